# Sophon. `make help` lists what there is to make.

PYTHON ?= python3
UV := $(shell command -v uv || echo .uv/bin/uv)
SYNC := $(UV) sync --frozen --python $(PYTHON)
export UV_PYTHON_DOWNLOADS := never
unexport PYTHONDONTWRITEBYTECODE  # it would have every command compile all that it imports: twice the time of its start

.PHONY: help run test check static fix bench image

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: $(UV) ## start Sophon: database, proxy, API and runtime; Ctrl-C stops it
	@$(SYNC) --no-dev --group process --inexact
	@exec .venv/bin/sophon up

test: $(UV) ## run the whole suite (container and browser tests where Docker and Chromium are)
	@$(SYNC) --all-groups
	.venv/bin/pytest tests/domain --cov=app/domain --cov-branch --cov-fail-under=100 --cov-report=term-missing:skip-covered
	.venv/bin/pytest --ignore=tests/domain --ignore=tests/acceptance --ignore=tests/images --numprocesses=2 --dist=worksteal
	.venv/bin/pytest tests/acceptance tests/images --numprocesses=2 --dist=loadfile

check: static test ## check form, types and behaviour

static: $(UV) ## check form and types only
	@$(SYNC) --all-groups
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/pyright

fix: $(UV) ## mend what can be mended by itself
	@$(SYNC) --all-groups
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: $(UV) ## measure, each figure beside its peer
	@$(SYNC) --all-groups
	.venv/bin/python -m bench

image: $(UV) ## build the image that notebooks are containers of
	@$(SYNC) --no-dev --group process --inexact
	@.venv/bin/sophon image


.uv/bin/uv:
	@$(PYTHON) infra/bootstrap/uv.py .uv/bin

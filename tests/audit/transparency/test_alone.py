"""The package stands alone: it imports nothing else of this application, and nothing that does I/O."""

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
import app.audit.transparency as package
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"{package.__name__}.{module.name}")
print(*sorted(sys.modules), sep="\\n")
"""


def test_it_is_imported_without_the_rest_of_the_application() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    ours = {name for name in modules if name.split(".")[0] == "app"}
    assert {name for name in ours if not name.startswith("app.audit.transparency")} == {"app", "app.audit"}
    assert {"app.audit.transparency.tree", "app.audit.transparency.witnessing"} <= ours
    assert not {"psycopg", "asyncio", "litestar", "structlog", "socket"} & modules

"""How a command does its work: the settings read, the loop run, a failure told in one sentence and an exit code."""

import gc
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import rich_click as click
import uvloop
from rich.console import Console

from app.audit.database.provision import SchemaMissing
from app.audit.entry import UnreadableEntry
from app.postgres import DATABASE_ERRORS, PostgresFailed
from app.runtime.engine import EngineError
from app.runtime.routes import ProxyFailed
from app.settings import BadSetting, Settings
from app.telemetry import set_up_logging

console = Console(stderr=True, soft_wrap=not sys.stderr.isatty())
"""What is told to a person; a sentence is broken into lines for a terminal only, not for a file or a pipe.

What is asked for goes to standard output, plain, so that it can be piped.
"""

WHOLE, TAMPERED, COULD_NOT, POLICY = 0, 1, 2, 3
"""Exit codes of everything under `audit` and `state`."""

CANNOT = (UnreadableEntry, BadSetting, EngineError, PostgresFailed, ProxyFailed, SchemaMissing)
"""What can keep a command from its work, each with a sentence that says what to do."""


class CannotDo(Exception):
    """A command cannot do what was asked; the message says what to do. `code` is what the process exits with."""

    def __init__(self, message: str, code: int = COULD_NOT) -> None:
        super().__init__(message)
        self.code = code


def run(work: Callable[[Settings], Awaitable[Any]], failure: int = COULD_NOT) -> None:
    """Do the work on a loop of its own; on a failure say what it was, and exit with a code.

    What was not foreseen ends with that code too: 1, with which Python ends, would mean that something was found.
    """
    try:
        settings = Settings.read()
        set_up_logging(settings.log_format)
        gc.freeze()  # what is imported stays: no collection has to look at it again
        uvloop.run(_awaited(work, settings))
    except CannotDo as error:
        _end(error, error.code)
    except CANNOT as error:
        _end(error, failure)
    except DATABASE_ERRORS as error:
        _end(f"The database does not answer, or refuses: {str(error).strip()}", failure)
    except BrokenPipeError:
        raise  # whoever read our output has enough of it
    except OSError as error:
        _end(f"A file or an address cannot be used: {error}", failure)
    except click.ClickException:
        raise
    except Exception:
        traceback.print_exc()
        _end("This was not foreseen, and what was asked for was not found out.", failure)


def counted(number: int, one: str, many: str) -> str:
    """Say how many there are, and of one as of one."""
    return f"{number:,} {one if number == 1 else many}"


async def _awaited(work: Callable[[Settings], Awaitable[Any]], settings: Settings) -> Any:
    return await work(settings)


def _end(error: Exception | str, code: int) -> None:
    console.print(str(error), style="bold red", highlight=False, markup=False)
    sys.exit(code)

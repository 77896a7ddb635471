"""`sophon volumes purge`: the files of a deleted notebook, which were kept until now, are removed."""

# pyright: reportUnknownMemberType=false

import msgspec
import rich_click as click

from app.cli.asker import administrator
from app.cli.groups import volumes
from app.cli.work import CannotDo, console, run
from app.domain.errors import Refusal
from app.domain.names import NotebookName
from app.domain.purging import PurgeNotebook
from app.installation import database, keys_of
from app.keys import Keys
from app.platform import Platform
from app.runtime.containers import connect, remove_volume
from app.runtime.engine import EngineAway
from app.runtime.processes import Processes
from app.settings import Settings
from app.up import socket_directory


@volumes.command("purge")
@click.argument("name")
def volumes_purge(name: str) -> None:
    """Remove the volume of the deleted notebook NAME, with all files in it, for good.

    Refused for a notebook that is not deleted, or is under legal hold (as its project and group may be). It is recorded
    first, as done by the administrator whose token is in SOPHON_TOKEN; asked again, it removes what is left.
    """
    run(lambda settings: _purge(settings, name))


async def _purge(settings: Settings, name: str) -> None:
    try:
        notebook = msgspec.convert(name, NotebookName)
    except msgspec.ValidationError as error:
        raise CannotDo(f"{name!r} is no name of a notebook. {error}") from error
    keys = keys_of(settings)
    async with database(settings, console.print) as dsn, Platform.open(settings, keys, dsn) as platform:
        asker = await administrator(platform.log, platform.identity)
        try:
            await platform.dispatch(PurgeNotebook(by=asker.principal.caller, notebook=notebook), asker.context)
        except Refusal as refusal:
            raise CannotDo(str(refusal)) from refusal
    was_there = await _remove(settings, keys, notebook)
    console.print(f"The volume of {notebook} is removed." if was_there else f"{notebook} has no volume.")


async def _remove(settings: Settings, keys: Keys, notebook: NotebookName) -> bool:
    """Remove it from wherever this installation can have had it: it may have run with Docker, and without."""
    processes = Processes(settings.data / "processes", socket_directory(settings.data))
    was_there = await processes.remove_volume(notebook)
    if settings.runtime == "process":
        return was_there
    try:
        async with connect() as docker:
            return await remove_volume(docker, keys.installation, notebook) or was_there
    except EngineAway:
        if not was_there:
            raise
        return True

"""`sophon signer`: the signer alone, as another user of the machine or on another one, with a login of its own."""

# pyright: reportUnknownMemberType=false

import asyncio
import signal

import rich_click as click

from app.audit.database.provision import prepare, signing_login
from app.audit.signing.alone import WatchedLog, sign_alone
from app.audit.signing.store import Store
from app.audit.signing.tree import Tree
from app.cli.groups import main
from app.cli.work import CannotDo, console, run
from app.installation import administered, has_secret, keys_of, origin_of
from app.platform import own_signer
from app.settings import Settings
from app.tasks import end


@main.command("signer")
@click.option("--login", is_flag=True, help="Make its login into the database, print the address with it, and end.")
def signer(login: bool) -> None:
    """Sign the log, and do nothing else: beside a `sophon up` with SOPHON_SIGNER=none.

    Its keys and its memory are in SOPHON_SIGNER, where nobody else can read; SOPHON_DATABASE_URL is what --login
    printed, on the application's machine. It needs no secret of the installation, and can append nothing.
    """
    run(_login if login else _sign)


async def _login(settings: Settings) -> None:
    async with administered(settings, console.print) as dsn:
        await prepare(dsn)
        own = await signing_login(dsn, keys_of(settings))
    if own == dsn:
        raise CannotDo("No login could be made for the signer: that takes an administrator of the database.")
    click.echo(own)


async def _sign(settings: Settings) -> None:
    if not settings.signs:
        raise CannotDo("SOPHON_SIGNER is none: for the signer itself, set it to the directory of its keys.")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with administered(settings, console.print) as given:
        await prepare(given)
        dsn = await signing_login(given, keys_of(settings)) if has_secret(settings) else given
        async with WatchedLog.open(dsn) as log:
            own = own_signer(settings, _origin(settings), log, Tree(log.pool))
            console.print(f"Signing, with the keys in {own.store.directory}.", highlight=False, markup=False)
            tasks = [asyncio.create_task(sign_alone(log, own)), asyncio.create_task(stop.wait())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await end(tasks)
            for task in done:
                task.result()


def _origin(settings: Settings) -> str:
    if keyring := Store(settings.signer_directory).keyring():
        return keyring.origin
    if settings.log_origin or has_secret(settings):
        return settings.log_origin or origin_of(settings, keys_of(settings))
    raise CannotDo("Set SOPHON_LOG_ORIGIN to the name of the log, as it is set for the application.")

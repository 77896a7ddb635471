"""An installation on its machine: what it keeps, who holds that, and the database that its log is in."""

import contextlib
import fcntl
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

from app.audit.database.provision import application, prepare
from app.audit.signing.store import Store
from app.keys import Keys
from app.postgres import embedded
from app.settings import BadSetting, Settings


def keys_of(settings: Settings, *, anew: bool = False) -> Keys:
    """Give the installation's keys: of the secret that was set, or of the one in the data directory.

    Raises `BadSetting` where there is none, unless it may be made `anew`.
    """
    if settings.secret:
        return Keys(settings.secret.encode())
    if not (anew or has_secret(settings)):
        raise _no_secret_in(settings) if settings.database_url else _nothing_in(settings)
    return Keys.kept_in(settings.data / "secret")


def has_secret(settings: Settings) -> bool:
    """Whether the installation's secret is here."""
    return bool(settings.secret) or (settings.data / "secret").exists()


@contextlib.asynccontextmanager
async def database(settings: Settings, say: Callable[[str], None], *, anew: bool = False) -> AsyncGenerator[str]:
    """Set up the database that was set, or the embedded one, and give the DSN that the application uses it by.

    That is of a login of its own, which may append to the log and change nothing of it. Raises as `administered` does.
    """
    async with administered(settings, say, anew=anew) as dsn:
        await prepare(dsn)
        yield await application(dsn, keys_of(settings, anew=anew), signs=settings.signs)


@contextlib.asynccontextmanager
async def administered(settings: Settings, say: Callable[[str], None], *, anew: bool = False) -> AsyncGenerator[str]:
    """Give the DSN of who administrates the database that was set, or the embedded one, which is started.

    Raises `BadSetting` where there is none in the data directory, unless it may be made `anew`: a command in another
    directory, or with a name misspelt, has to say so, and not to answer from an empty log.
    """
    if settings.database_url:
        yield settings.database_url
        return
    if not (settings.data / "postgres").exists():
        if not anew:
            raise _nothing_in(settings)
        say("creating the database")
    async with embedded(settings.data / "postgres") as dsn:
        yield dsn


def origin_of(settings: Settings, keys: Keys) -> str:
    """Name the log: as its signing keys do or, before there are any, as they will."""
    keyring = Store(settings.signer_directory).keyring()
    named = settings.log_origin or f"{settings.host}/{keys.installation}"
    return keyring.origin if keyring else named


@contextlib.contextmanager
def only_one(data: Path) -> Generator[None]:
    """Hold a data directory; raises `BadSetting` where somebody else does. Ends with the process, however it ends."""
    with (data / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadSetting(f"Sophon is running on {data} already. Stop it, or set SOPHON_DATA to another.") from None
        yield


def _nothing_in(settings: Settings) -> BadSetting:
    return BadSetting(
        f"There is no installation in {settings.data}: set SOPHON_DATA to where it is. `sophon up` makes a new one."
    )


def _no_secret_in(settings: Settings) -> BadSetting:
    return BadSetting(
        f"The installation's secret is not in {settings.data}: set SOPHON_DATA to where it is, or SOPHON_SECRET. "
        "`sophon up` makes one for a new installation."
    )

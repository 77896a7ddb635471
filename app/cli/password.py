"""`sophon admin password`: another password for an account, for whoever has the machine and not the one before."""

import secrets
import sys

import msgspec
import rich_click as click

from app.cli.groups import admin
from app.cli.work import CannotDo, console, run
from app.dispatch import Context, LogCannotBeWritten
from app.domain.errors import Refusal
from app.domain.passwords import Password, ResetPassword
from app.installation import database, keys_of
from app.platform import Platform
from app.settings import Settings


@admin.command("password")
@click.argument("name", required=False)  # pyright: ignore[reportUnknownMemberType]
@click.option("--stdin", is_flag=True, help="Read the new password from the first line of standard input.")  # pyright: ignore[reportUnknownMemberType]
def admin_password(name: str | None, stdin: bool) -> None:
    """Give the account NAME another password, a generated one, which is printed; without NAME, the first account.

    Its sessions end, and the log says so. It needs no token: whoever may read SOPHON_DATA may do anything. Sophon may
    be running meanwhile.
    """
    given = _given() if stdin else None
    run(lambda settings: _reset(settings, name or settings.admin_username, given))


def _given() -> str:
    return sys.stdin.readline().rstrip("\r\n")


async def _reset(settings: Settings, username: str, given: str | None) -> None:
    password = secrets.token_urlsafe(12) if given is None else _fit(given)
    async with (
        database(settings, console.print) as dsn,
        Platform.open(settings, keys_of(settings), dsn) as platform,
    ):
        user = await platform.identity.user_named(username)
        if user is None:
            raise CannotDo(f"Nobody is called {username!r}.")
        password_hash = await platform.identity.hashing.hash(password)
        try:
            await platform.dispatch(ResetPassword(user=user), Context())
        except (Refusal, LogCannotBeWritten) as refusal:
            raise CannotDo(str(refusal)) from refusal
        await platform.identity.replace_password(user, password_hash)
    if given is None:
        click.echo(password)
    console.print(f"{username} has another password, and is logged out everywhere.", highlight=False, markup=False)


def _fit(password: str) -> str:
    try:
        return msgspec.convert(password, Password)
    except msgspec.ValidationError:
        raise CannotDo("A password has to have 12 to 1024 characters.") from None

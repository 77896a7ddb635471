"""Who acts on the command line, and how their acts come into the log.

Whoever can run these commands on the database can read it with any other tool as well: that they asked is for honest
people, and for those who come after them.
"""

import os
from datetime import UTC, datetime, timedelta

import rich_click as click
from msgspec import Struct

from app.acts import AGAIN
from app.audit.entry import Actor, Context
from app.audit.log import Log
from app.audit.sealing.vault import Vault
from app.audit.writer import LogUnavailable
from app.cli.work import CannotDo, console
from app.domain.audits import AuditQueried, Question, RequestRefused
from app.domain.event import Access
from app.domain.model import events
from app.domain.names import Personal
from app.domain.tokens import TokenUsed
from app.domain.users import AdministratorsOnly
from app.identifiers import uuid7
from app.identity.identity import Identity
from app.identity.principal import Principal
from app.installation import keys_of
from app.settings import Settings

TOKEN = "SOPHON_TOKEN"  # noqa: S105
"""The environment variable; no option, which the list of processes would show to everybody."""


class Asker(Struct, frozen=True):
    """Whose token it is, and what all entries of this command have in common."""

    principal: Principal
    context: Context


async def context_of(log: Log, settings: Settings) -> Context:
    """Say who acts, where nobody's leave is needed: whose token it is or, without one, as which user of the machine."""
    principal = await bearer(log, settings)
    return await _by(log, principal) if principal else somebody()


async def bearer(log: Log, settings: Settings) -> Principal | None:
    """Give whose token it is, if there is one that opens anything."""
    if not _given():
        return None
    principal = await Identity(log, Vault(log.pool), keys_of(settings)).who(_given(), "token")
    if principal is None:
        console.print(f"{TOKEN} opens nothing: it has ended or expired. What is recorded does not name you.")
    return principal


async def asker(log: Log, identity: Identity) -> Asker:
    """Give whose token it is; raises `CannotDo`, which is recorded."""
    principal = await identity.who(_given(), "token")
    if principal is None:
        await refused(log, somebody(), "bad-token" if _given() else "not-authenticated")
        raise CannotDo(f"Set {TOKEN} to an API token of yours, so that it is known who asks. It may have expired.")
    return Asker(principal, await _by(log, principal))


async def administrator(log: Log, identity: Identity) -> Asker:
    """Give the administrator whose token it is; raises `CannotDo` for anybody else, which is recorded."""
    found = await asker(log, identity)
    if not found.principal.caller.administering:
        await refused(log, found.context, AdministratorsOnly.problem())
        raise CannotDo("Only administrators may do this; the token's scope has to be `admin`.")
    return found


async def note(log: Log, context: Context, access: Access, *, reason: str | None = None) -> None:
    """Record an access, refused for a reason or not. Where the log cannot be written, say so, and go on."""
    try:
        await log.append([context.draft(access, outcome="refused" if reason else "success", reason=reason)])
    except LogUnavailable as error:
        why = str(error).partition("\n")[0]
        console.print(f"This could not be recorded in the log: {why}", highlight=False, markup=False)


async def note_question(log: Log, settings: Settings, question: Question, about: str = "") -> None:
    """Record that the log, or the state, is read, by whom, and what of it."""
    asked = AuditQueried(question=question, about=Personal(about) if about else None)
    await note(log, await context_of(log, settings), asked)


async def refused(log: Log, context: Context, reason: str) -> None:
    """Record that this command was refused to somebody."""
    await note(log, context, RequestRefused(method="CLI", route=_command()), reason=reason)


def _given() -> str:
    return os.environ.get(TOKEN, "").strip()


def somebody() -> Context:
    """Name the way and the machine's number for a user: a name would be personal, and stand in the log for ever."""
    return Context(actor=Actor(kind="system", id=f"cli:uid-{os.getuid()}"), request=str(uuid7()))


def by(principal: Principal) -> Context:
    """Let a token's user act."""
    return Context(actor=principal.actor, request=str(uuid7()))


async def note_use(log: Log, principal: Principal, context: Context) -> None:
    """Record that a token is used, unless it was in the last hour, here or elsewhere."""
    used = (await log.read((events(TokenUsed, tags=(f"token:{principal.key}",)),))).records
    if not used or datetime.now(UTC) - used[-1].entry.at >= timedelta(seconds=AGAIN):
        await note(log, context, TokenUsed(token=principal.key, user=principal.user))


async def _by(log: Log, principal: Principal) -> Context:
    context = by(principal)
    await note_use(log, principal, context)
    return context


def _command() -> str:
    names: list[str] = []
    at = click.get_current_context(silent=True)
    while at is not None and at.parent is not None:
        names.append(at.command.name or "")
        at = at.parent
    return " ".join(reversed(names))

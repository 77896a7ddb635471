"""`sophon audit subject`: everything about one person or thing, and its erasure."""

import sys
from datetime import UTC, datetime

import msgspec
import rich_click as click

from app.audit.pruned import DatabaseRefuses
from app.audit.sealing.dossier import Dossiers, Extent
from app.cli.asker import Asker, asker, note
from app.cli.groups import audit
from app.cli.work import CannotDo, console, counted, run
from app.dispatch import LogCannotBeWritten
from app.domain.approvals import ApprovalRequested
from app.domain.audits import NOBODY, AuditorsOnly, AuditQueried
from app.domain.erasure import EraseSubject
from app.domain.errors import Refusal
from app.domain.names import Personal
from app.domain.subjects import Subject, SubjectErased
from app.installation import database, keys_of
from app.platform import Platform
from app.settings import Settings

_KINDS = ("user", "group", "project", "notebook")


@audit.command("subject")
@click.argument("subject")  # pyright: ignore[reportUnknownMemberType]
@click.argument("what", type=click.Choice(["report", "erase"]))  # pyright: ignore[reportUnknownMemberType]
@click.option("--dry-run", is_flag=True, help="Say what there is, and change nothing.")  # pyright: ignore[reportUnknownMemberType]
def audit_subject(subject: str, what: str, dry_run: bool) -> None:
    """Everything about SUBJECT (a user's name or id, or e.g. project/apollo, or guest), or its erasure.

    Who asks is shown by an API token in the environment variable SOPHON_TOKEN. An erasure takes two administrators:
    it happens when the second one asks for the same within 24 hours. A report is one line of JSON for each entry and
    each sealed value.
    """
    run(lambda settings: _audit_subject(settings, subject, what, dry_run))


async def _audit_subject(settings: Settings, given: str, what: str, dry_run: bool) -> None:
    async with (
        database(settings, console.print) as dsn,
        Platform.open(settings, keys_of(settings), dsn) as platform,
    ):
        who = await asker(platform.log, platform.identity)
        subject = await _subject(platform, who, given)
        try:
            if what == "report" or dry_run:
                await _look(platform, who, subject, report=what == "report")
            else:
                await _erase(platform, who, subject)
        except (Refusal, LogCannotBeWritten) as refusal:
            raise CannotDo(str(refusal)) from refusal
        except DatabaseRefuses as error:
            raise CannotDo(f"The database refuses it, and nothing was erased: {str(error).strip()}") from error


async def _subject(platform: Platform, who: Asker, given: str) -> Subject:
    kind, _, name = given.replace("/", ":").partition(":")
    kind, name = (kind, name) if given == "guest" or (kind in _KINDS and name) else ("user", given)
    if found := await Dossiers(platform.log).subject(kind, name):
        return found
    asked = AuditQueried(question="subject", about=Personal(f"{kind}:{NOBODY}"))
    await note(platform.log, who.context, asked, reason=None if who.principal.audits else AuditorsOnly.problem())
    if kind == "user" and "/" in name:
        kinds = ", ".join(_KINDS)
        raise CannotDo(
            f"{given} names nothing: write a user's name or id, guest, or one of {kinds}, a slash, and a name."
        )
    raise CannotDo(f"Nobody is called {given!r}. If they were erased, ask by their id (usr_…).")


async def _look(platform: Platform, who: Asker, subject: Subject, *, report: bool) -> None:
    access = AuditQueried(question="subject", about=Personal(subject))
    if not who.principal.audits:
        await note(platform.log, who.context, access, reason=AuditorsOnly.problem())
        raise CannotDo("Only auditors and administrators may do this; the token's scope has to be `audit` or `admin`.")
    await note(platform.log, who.context, access)
    dossiers = Dossiers(platform.log)
    _say(await dossiers.extent(subject))
    after: int | None = 0 if report else None
    while after is not None:
        dossier = await dossiers.about(subject, after)
        for one in (*dossier.entries, *dossier.values):
            sys.stdout.write(msgspec.json.encode(one).decode() + "\n")
        after = dossier.next


async def _erase(platform: Platform, who: Asker, subject: Subject) -> None:
    command = EraseSubject(by=who.principal.caller, now=datetime.now(UTC), subject=subject)
    receipt = await platform.dispatch(command, who.context)
    if not receipt.events:
        console.print(f"{subject} was erased before.")
    for event in receipt.events:
        match event:
            case ApprovalRequested(until=until):
                console.print(
                    "Recorded. It happens when another administrator asks for the same before "
                    f"{until:%Y-%m-%d %H:%M} UTC."
                )
            case SubjectErased():
                await platform.swept(receipt.position)
                console.print(
                    f"{subject} is erased, at position {receipt.position}. Backups still hold what they held."
                )
            case _:
                pass


def _say(extent: Extent) -> None:
    entries = counted(extent.entries, "entry", "entries")
    console.print(
        f"{entries}; {extent.readable:,} of {extent.values:,} sealed values can be read; "
        f"open sessions and tokens: {extent.sessions_and_tokens:,}."
        + (f" Erased at position {extent.erased_at:,}." if extent.erased_at else "")
    )

"""Subjects: everything about one person or thing, and its erasure, which takes two administrators."""

from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Struct

from app.api.auth import SCOPE, Asker
from app.api.pages import Limit
from app.api.problems import asked_for, problems
from app.audit.sealing.dossier import Dossier, Dossiers, Extent
from app.dispatch import DatabaseRefuses
from app.domain.approvals import ApprovalRequested
from app.domain.audits import NOBODY, AuditQueried
from app.domain.erasure import EraseSubject
from app.domain.errors import Conflict, NotFound
from app.domain.names import Personal
from app.domain.subjects import Subject, SubjectErased
from app.domain.tokens import Scope
from app.domain.users import AdministratorsOnly

Kind = Literal["user", "group", "project", "notebook", "guest"]
KindInPath: TypeAlias = Annotated[
    Kind, PathParameter(description="What kind of subject; `guest`: those not logged in.")
]
NameInPath: TypeAlias = Annotated[
    str,
    PathParameter(
        pattern=r"^[a-z0-9_.-]{1,63}(?!\n)$",
        description="A user's id or name; a slug; for guests, `all`.",
        max_length=63,
    ),
]


class NoSuchSubject(NotFound):
    """Nobody has this user name (of who was erased, ask by the id), or a slug is not written like this."""


class NotErased(Conflict):
    """Something in the database keeps what was to be erased. Drop what `sophon state doctor` names, and ask again."""


class ErasureAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """A wish for an erasure. With `dry_run`, it is only said what there is to be erased."""

    dry_run: bool = False


class ErasureView(Struct, frozen=True):
    """What came of it. `requested`: another administrator has to ask for the same, until then."""

    subject: Subject
    status: Literal["dry-run", "requested", "erased", "erased-before"]
    extent: Extent
    until: datetime | None = None


@get("/audit/subjects/{kind:str}/{name:str}", opt={SCOPE: Scope.AUDIT}, responses=problems(403, 404))
async def show_subject(
    dossiers: NamedDependency[Dossiers],
    asker: NamedDependency[Asker],
    kind: KindInPath,
    name: NameInPath,
    limit: Limit = 50,
    after: Annotated[int, QueryParameter(ge=0, le=2**53, description="A position.", required=False)] = 0,
) -> Dossier:
    """Give everything about a subject: what they did, what names them, each sealed value with its disclosure."""
    return await dossiers.about(await _looked_at(dossiers, asker, kind, name), after, limit)


@post(
    "/audit/subjects/{kind:str}/{name:str}/erasure",
    status_code=200,
    opt={SCOPE: Scope.ADMIN},
    responses=problems(403, 404, 409, 413, 415) | {202: asked_for(ErasureView)},
)
async def erase_subject(
    data: JSONBody[ErasureAsked],
    dossiers: NamedDependency[Dossiers],
    asker: NamedDependency[Asker],
    kind: KindInPath,
    name: NameInPath,
) -> Response[ErasureView]:
    """Make unreadable, for ever, all that was sealed for a subject; a user's account ends with it.

    The first administrator's asking is recorded; it happens when another one asks for the same within 24 hours.
    """
    if data.dry_run:
        subject = await _looked_at(dossiers, asker, kind, name)
        return Response(ErasureView(subject, "dry-run", await dossiers.extent(subject)))
    if not asker.caller.administering:
        raise AdministratorsOnly  # before it is told whether there is such a user
    subject = await subject_of(dossiers, kind, name)
    try:
        receipt = await asker.tell(EraseSubject(by=asker.caller, now=datetime.now(UTC), subject=subject))
    except DatabaseRefuses as error:
        raise NotErased from error
    extent = await dossiers.extent(subject)
    for event in receipt.events:
        if isinstance(event, ApprovalRequested):
            return Response(ErasureView(subject, "requested", extent, event.until), status_code=202)
    if extent.readable or extent.keys:
        raise NotErased
    for event in receipt.events:
        if isinstance(event, SubjectErased):
            return Response(ErasureView(subject, "erased", extent))
    return Response(ErasureView(subject, "erased-before", extent))


async def subject_of(dossiers: Dossiers, kind: str, name: str) -> Subject:
    """Give the subject that is meant; raises `NoSuchSubject` for a user name that is nobody's, or no slug."""
    if (subject := await dossiers.subject(kind, name)) is None:
        raise NoSuchSubject
    return subject


async def _looked_at(dossiers: Dossiers, asker: Asker, kind: str, name: str) -> Subject:
    """Give the subject that is meant, once it is recorded that it is looked at: by its id, never by a user's name."""
    subject = await dossiers.subject(kind, name)
    await asker.audit(AuditQueried(question="subject", about=Personal(subject or f"{kind}:{NOBODY}")))
    if subject is None:
        raise NoSuchSubject
    return subject


routes = Router("/api", route_handlers=[show_subject, erase_subject], tags=["audit"])

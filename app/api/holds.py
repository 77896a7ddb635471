"""Legal holds: what is neither erased nor pruned, and what is kept for how long."""

from datetime import UTC, datetime

from litestar import Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Struct

from app.api.auth import SCOPE, Asker
from app.api.problems import asked_for, problems
from app.api.subjects import KindInPath, NameInPath, subject_of
from app.audit.retention import Report, Retention
from app.audit.sealing.dossier import Dossiers
from app.domain.approvals import About, ApprovalRequested
from app.domain.audits import AuditQueried
from app.domain.names import Personal
from app.domain.retention import LiftHold, PlaceHold
from app.domain.tokens import Scope
from app.domain.users import AdministratorsOnly


class HoldAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """Why something has to be kept. It is sealed: it may name people."""

    reason: Personal


class HoldView(Struct, frozen=True):
    """Whether something is held. `until`: another administrator has to ask for its lifting until then."""

    about: About
    held: bool
    until: datetime | None = None


@get("/audit/retention", opt={SCOPE: Scope.AUDIT}, responses=problems(403))
async def show_retention(retention: NamedDependency[Retention], asker: NamedDependency[Asker]) -> Report:
    """Tell what is kept, by class, what is past its term, and what is under legal hold."""
    await asker.audit(AuditQueried(question="holds"))
    return await retention.report(datetime.now(UTC))


@put(
    "/audit/holds/{kind:str}/{name:str}",
    status_code=200,
    opt={SCOPE: Scope.ADMIN},
    responses=problems(403, 404, 413, 415),
)
async def place_hold(
    data: JSONBody[HoldAsked],
    dossiers: NamedDependency[Dossiers],
    asker: NamedDependency[Asker],
    kind: KindInPath,
    name: NameInPath,
) -> HoldView:
    """Have what is about something kept: it is not erased until that is lifted. One administrator may."""
    if not asker.caller.administering:
        raise AdministratorsOnly  # before it is told whether there is such a user
    about = await subject_of(dossiers, kind, name)
    await asker.tell(PlaceHold(by=asker.caller, about=about, reason=data.reason))
    return HoldView(about, held=True)


@post(
    "/audit/holds/{kind:str}/{name:str}/lifting",
    status_code=200,
    opt={SCOPE: Scope.ADMIN},
    responses=problems(403, 404, 409) | {202: asked_for(HoldView)},
)
async def lift_hold(
    dossiers: NamedDependency[Dossiers], asker: NamedDependency[Asker], kind: KindInPath, name: NameInPath
) -> Response[HoldView]:
    """Have something no longer be kept. The first administrator's asking is recorded; another one's lifts it."""
    if not asker.caller.administering:
        raise AdministratorsOnly
    about = await subject_of(dossiers, kind, name)
    receipt = await asker.tell(LiftHold(by=asker.caller, now=datetime.now(UTC), about=about))
    for event in receipt.events:
        if isinstance(event, ApprovalRequested):
            return Response(HoldView(about, held=True, until=event.until), status_code=202)
    return Response(HoldView(about, held=False))


routes = Router("/api", route_handlers=[show_retention, place_hold, lift_hold], tags=["audit"])

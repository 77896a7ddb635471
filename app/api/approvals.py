"""Approvals: what one administrator asked for, and another one has not yet."""

from collections.abc import Sequence
from datetime import UTC, datetime

from litestar import Router, get
from litestar.di import NamedDependency
from msgspec import Struct

from app.api.auth import SCOPE, Asker
from app.api.problems import problems
from app.domain.audits import AuditQueried
from app.domain.tokens import Scope
from app.projections.approvals import Pending, PendingApprovals


class Approvals(Struct, frozen=True):
    """All that waits for a second administrator; it happens when that one asks for the same."""

    items: Sequence[Pending]


@get("/audit/approvals", opt={SCOPE: Scope.AUDIT}, responses=problems(403))
async def list_approvals(approvals: NamedDependency[PendingApprovals], asker: NamedDependency[Asker]) -> Approvals:
    """List what waits for a second administrator: what, who asked, and until when it can be let happen."""
    await asker.audit(AuditQueried(question="approvals"))
    return Approvals(await approvals.pending(datetime.now(UTC)))


routes = Router("/api", route_handlers=[list_approvals], tags=["audit"])

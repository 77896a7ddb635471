"""The audit log, to administrators."""

from typing import Annotated

from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from msgspec import Struct

from app.api.auth import SCOPE, Asker
from app.api.pages import MOST, PRINTABLE, Limit
from app.api.problems import problems
from app.domain.tokens import Scope
from app.domain.users import AdministratorsOnly
from app.projections.timeline import Timeline, TimelineEntry


class EntriesPage(Struct, frozen=True):
    """Some of the log; ask for what is after `next` to go on, now or later."""

    items: list[TimelineEntry]
    next: int


@get("/audit/entries", opt={SCOPE: Scope.ADMIN}, responses=problems(403))
async def list_entries(
    timeline: NamedDependency[Timeline],
    asker: NamedDependency[Asker],
    limit: Limit = 50,
    after: Annotated[int, QueryParameter(ge=0, le=2**53, description="A position.", required=False)] = 0,
    type: Annotated[str | None, QueryParameter(max_length=100, pattern=PRINTABLE, required=False)] = None,  # noqa: A002
    tag: Annotated[str | None, QueryParameter(max_length=200, pattern=PRINTABLE, required=False)] = None,
) -> EntriesPage:
    """List entries in order, each as it was recorded, to the byte."""
    if not asker.principal.administrator:
        raise AdministratorsOnly
    items = await timeline.entries(min(limit, MOST), after, type_=type, tag=tag)
    return EntriesPage(items, items[-1].position if items else after)


routes = Router("/api", route_handlers=[list_entries], tags=["audit"])

"""Time travel, for auditors: what a thing was, what became different, which entry made it so, what an entry meant."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter
from msgspec import Struct

from app.api.addresses import PositionInPath
from app.api.auth import SCOPE, Asker
from app.api.pages import Limit
from app.api.problems import problems
from app.domain.audits import AuditQueried, Question
from app.domain.errors import NotFound, Refusal
from app.domain.names import Personal
from app.domain.tokens import Scope
from app.projections.moments import Blamed, Differences, Explanation, Moment, Moments, NoSuchMoment, Resource
from app.projections.times import moment_of, recorded

PRINTED = r"^[ -~]+$"

Kind = Annotated[str, PathParameter(max_length=20, pattern=r"^[a-z]+$", description="Such as `project` or `user`.")]
Name = Annotated[
    str, PathParameter(max_length=100, pattern=r"^[a-z0-9_-]+$", description="A slug, an opaque id, or a user's name.")
]
When = Annotated[
    str | None,
    QueryParameter(
        max_length=40, pattern=PRINTED, required=False, description="A position, a time in ISO 8601, or `2 hours ago`."
    ),
]


class NoSuchPosition(NotFound):
    """The log has no such position."""


class NoSuchResource(NotFound):
    """The log has nothing under this kind and name, or the thing has no such field."""


class NotAMoment(Refusal):
    """Write a position, a time in ISO 8601, or a time ago, such as `2 hours ago`."""

    status = 400


class Blame(Struct, frozen=True):
    """Which entry gave each field of a thing its value, as of a position."""

    resource: str
    position: int
    fields: Sequence[Blamed]


@get("/audit/state/{kind:str}/{name:str}", opt={SCOPE: Scope.AUDIT}, responses=problems(403, 404))
async def show_state(
    kind: Kind, name: Name, moments: NamedDependency[Moments], asker: NamedDependency[Asker], as_of: When = None
) -> Moment:
    """Show what a thing was as of a position or a time; without one, now. `state` is null if there was none."""
    await _record(asker, "state", f"{await moments.recorded(f'{kind}/{name}')} {recorded(as_of, datetime.now(UTC))}")
    return await moments.as_of(await _resource(moments, kind, name), await _position(moments, as_of, "as_of"))


@get("/audit/diff", opt={SCOPE: Scope.AUDIT}, responses=problems(403, 404))
async def show_difference(
    moments: NamedDependency[Moments],
    asker: NamedDependency[Asker],
    from_: Annotated[str, QueryParameter(name="from", max_length=40, pattern=PRINTED, description="As `as_of`.")],
    to: When = None,
    resource: Annotated[
        str | None, QueryParameter(max_length=121, pattern=r"^[a-z]+/[a-z0-9_-]+$", required=False)
    ] = None,
    limit: Limit = 50,
    after: Annotated[int | None, QueryParameter(ge=0, le=2**53, description="A `next`.", required=False)] = None,
) -> Differences:
    """Tell field by field what became different between two moments: of one thing, or of everything, in pages.

    If `from` is the later of the two, it is told how everything would become again what it was.
    """
    asked = [recorded(moment, datetime.now(UTC)) for moment in (from_, to)]
    await _record(asker, "diff", " ".join((*asked, *([await moments.recorded(resource)] if resource else ()))))
    before, until = await _position(moments, from_, "from"), await _position(moments, to, "to")
    if resource is None:
        return await moments.diff_all(before, until, after, limit)
    difference = await moments.diff(await _resource(moments, *resource.split("/", 1)), before, until)
    return Differences(before, until, [difference] if difference.changes else [])


@get("/audit/blame/{kind:str}/{name:str}", opt={SCOPE: Scope.AUDIT}, responses=problems(403, 404))
async def show_blame(
    kind: Kind,
    name: Name,
    moments: NamedDependency[Moments],
    asker: NamedDependency[Asker],
    field: Annotated[str | None, QueryParameter(max_length=100, pattern=PRINTED, required=False)] = None,
    as_of: When = None,
) -> Blame:
    """Tell which entry gave each field of a thing, or one of them, its value; or ended the thing, if it was ended."""
    await _record(asker, "blame", f"{await moments.recorded(f'{kind}/{name}')} {field or ''}".strip())
    resource = await _resource(moments, kind, name)
    position = await _position(moments, as_of, "as_of")
    if not (fields := await moments.blame(resource, position, field)):
        raise NoSuchResource(f"{resource}, {field}" if field else str(resource))
    return Blame(str(resource), position, fields)


@get("/audit/entries/{position:int}/explain", opt={SCOPE: Scope.AUDIT}, responses=problems(403, 404))
async def explain_entry(
    position: PositionInPath, moments: NamedDependency[Moments], asker: NamedDependency[Asker]
) -> Explanation:
    """Say what an entry means: who, what and why; before and after of what it changed; and what had caused it."""
    await _record(asker, "explain", str(position))
    try:
        return await moments.explain(position)
    except NoSuchMoment:
        raise NoSuchPosition(str(position)) from None


async def _record(asker: Asker, question: Question, about: str) -> None:
    await asker.audit(AuditQueried(question=question, about=Personal(about)))


async def _position(moments: Moments, text: str | None, field: str) -> int:
    try:
        return await moments.position_at(None if text is None else moment_of(text, datetime.now(UTC)))
    except ValueError:
        raise NotAMoment(field) from None
    except NoSuchMoment:
        raise NoSuchPosition(f"{field}: {text}") from None


async def _resource(moments: Moments, kind: str, name: str) -> Resource:
    try:
        return await moments.named(Resource.parse(f"{kind}/{name}"))
    except ValueError:
        raise NoSuchResource(f"{kind}/{name}") from None


routes = Router("/api", route_handlers=[show_state, show_difference, show_blame, explain_entry], tags=["audit"])
"""What may be asked of the past."""

"""The audit log, to auditors and administrators: searched, read, followed. Each reading is in the log too."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal

from litestar import Request, Router, get
from litestar.di import NamedDependency
from litestar.exceptions import ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter
from litestar.response import Stream
from msgspec import Struct

from app.api.addresses import PositionInPath
from app.api.auth import SCOPE, Asker, who_now
from app.api.pages import MOST, PRINTABLE, Limit
from app.api.problems import problems
from app.domain.audits import AuditQueried, Question
from app.domain.errors import NotFound
from app.domain.names import Personal
from app.domain.tokens import Scope
from app.projections.timeline import QueryError, Timeline, TimelineEntry, shown

HEARTBEAT = 10.0
"""Seconds after which a silent stream says that it lives, and whether its asker may still read is looked up."""

Q = Annotated[
    str,
    QueryParameter(
        max_length=1000,
        required=False,
        description="What is asked, such as `actor:ada action:project.* -outcome:success`; see docs/query-language.md.",
    ),
]
Position = Annotated[
    int | None, QueryParameter(ge=0, le=2**53, required=False, description="A position: those on this side of it.")
]


class NoSuchEntry(NotFound):
    """The log has no entry at this position."""


class EntriesPage(Struct, frozen=True):
    """Some of the log. To go on, now or later, ask for what is `after` `next` or, the newest first, `before` it.

    `more`: whether there may be any now. A page can be short, or empty, and still have more behind it: one request
    looks for a while, and `next` is how far it came.
    """

    items: list[TimelineEntry]
    next: int
    more: bool


@get("/audit/entries", opt={SCOPE: Scope.AUDIT}, responses=problems(403))
async def list_entries(
    timeline: NamedDependency[Timeline],
    asker: NamedDependency[Asker],
    limit: Limit = 50,
    q: Q = "",
    after: Position = None,
    before: Position = None,
    order: Annotated[
        Literal["oldest", "newest"], QueryParameter(required=False, description="What is first.")
    ] = "oldest",
    type: Annotated[str | None, QueryParameter(max_length=100, pattern=PRINTABLE, required=False)] = None,  # noqa: A002
    tag: Annotated[str | None, QueryParameter(max_length=200, pattern=PRINTABLE, required=False)] = None,
) -> EntriesPage:
    """List the entries that a query asks for, each as it was recorded, to the byte."""
    await _record(asker, "entries", await timeline.recorded(q, type, tag))
    newest = order == "newest"
    try:
        found = await timeline.page(
            min(limit, MOST), after or 0, q=q, before=before, newest=newest, type_=type, tag=tag
        )
    except QueryError as error:
        raise _malformed(error) from None
    items = [shown(record) for record in found.records]
    if found.next is not None:
        return EntriesPage(items, found.next, more=True)
    nothing_more = (before or 0) if newest else (after or 0)
    return EntriesPage(items, items[-1].position if items else nothing_more, more=False)


@get("/audit/entries/{position:int}", opt={SCOPE: Scope.AUDIT}, responses=problems(403, 404))
async def show_entry(
    position: PositionInPath,
    timeline: NamedDependency[Timeline],
    asker: NamedDependency[Asker],
) -> TimelineEntry:
    """Show the entry at a position, as it was recorded, to the byte."""
    await _record(asker, "entry", str(position))
    if (entry := await timeline.entry(position)) is None:
        raise NoSuchEntry(str(position))
    return entry


@get(
    "/audit/tail",
    opt={SCOPE: Scope.AUDIT},
    responses={
        200: ResponseSpec(
            str, description="Server-sent events.", media_type="text/event-stream", generate_examples=False
        ),
        **problems(403),
    },
)
async def follow_entries(
    request: Request[Any, Any, Any],
    timeline: NamedDependency[Timeline],
    asker: NamedDependency[Asker],
    q: Q = "",
    after: Position = None,
) -> Stream:
    """Follow what a query asks for: server-sent events whose id is the position, so that Last-Event-ID resumes.

    Begins at the end of the log, unless a position is given. Ends when the right to read the log does.
    """
    await _record(asker, "tail", await timeline.recorded(q))
    last = request.headers.get("Last-Event-ID", "")
    if last.isascii() and last.isdigit() and len(last) <= 16:
        after = int(last)
    pages = timeline.follow(q, after)
    try:
        first, _ = await anext(pages)
    except QueryError as error:
        raise _malformed(error) from None
    return Stream(_events(request, pages, first), media_type="text/event-stream")


async def _events(
    request: Request[Any, Any, Any], pages: AsyncIterator[tuple[int, list[Any]]], reached: int
) -> AsyncGenerator[bytes]:
    yield f"id: {reached}\n: following\n\n".encode()
    coming = asyncio.ensure_future(anext(pages))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=HEARTBEAT)
            principal = await who_now(request)
            if principal is None or not principal.audits:
                return
            if not done:
                yield f"id: {reached}\n: heartbeat\n\n".encode()
                continue
            reached, records = coming.result()
            coming = asyncio.ensure_future(anext(pages))
            for record in records:
                yield b"id: %d\ndata: %b\n\n" % (record.position, _entry(record.position, record.octets))
    finally:
        coming.cancel()


def _entry(position: int, octets: bytes) -> bytes:
    """Write an entry as the list does. No line break can be in it: they are escaped in JSON."""
    return b'{"position":%d,"entry":%b}' % (position, octets)


async def _record(asker: Asker, question: Question, about: str) -> None:
    await asker.audit(AuditQueried(question=question, about=Personal(about) if about else None))


def _malformed(error: QueryError) -> ValidationException:
    return ValidationException(detail=str(error), extra=[{"key": "q", "message": str(error)}])


routes = Router("/api", route_handlers=[list_entries, show_entry, follow_entries], tags=["audit"])

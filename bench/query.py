"""A first page by the query language beside the same by hand-written SQL, in a log of a million entries.

Each query is asked for its newest 50 entries: ours from the text to decoded records, names looked up and times turned
into positions on the way; the other is what somebody who knows the tables would write, without that, on a connection
that it already has, to decoded records as well. They are asked in turn, and take turns at being first: whoever is finds
what the queries before it left in memory, and the other what the first has just read. Each query's p95 is compared with
its own SQL's, and with 50 ms; what is judged is the worst query of all, by the median of its rounds, and it is named.
The queries one by one are told, and not judged.

A round before the others is not counted: connections prepare what they are asked again, on either side.

The last few are such as no index answers. There our page may end before it is full: it has to be the beginning of the
answer, and to say so.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL

from app.audit.entry import Record
from app.audit.log import Log
from app.audit.query.search import Found
from app.projections.timeline import Timeline
from bench.history import fill
from bench.loop import event_loop
from bench.measure import Comparison, Effort, Target
from bench.server import SEALER, server

ENTRIES = 1_000_000
EACH = 20
LIMIT_MS = 50.0

NOW = datetime(2026, 11, 18, tzinfo=UTC)
SOMEBODY = f"usr_{81:026}"
DIGEST = "4p8-oYZGE73jEwvUApT_3eOdrGaNl7MlRPvVXMtyPiY"
"""Where they came from: SHA-256 of their id, as `bench.history` has it."""
LOOKUP = SEALER.lookup("address", "10.0.0.7")
"""By what the vault finds that digest."""

NOTEBOOKS = [
    f"Notebook{did}"
    for did in (
        "Created", "Deleted", "Entered", "StartRequested", "CreationBegan",
        "ContainerCreated", "Started", "Failed", "StopRequested", "Stopped", "Viewed",
    )
]  # fmt: skip

QUERIES: dict[str, tuple[str, tuple[Any, ...]]] = {
    f"actor:{SOMEBODY}": ("actor = %s", (SOMEBODY,)),
    "action:notebook.*": ("type = ANY(%s)", (NOTEBOOKS,)),
    f"actor:{SOMEBODY} action:project.*": (
        "actor = %s AND type IN ('ProjectCreated', 'ProjectViewed')", (SOMEBODY,),
    ),
    "-outcome:success": ("outcome <> 'success'", ()),
    "reason:owners-only": ("outcome <> 'success' AND bytes ->> 'reason' = 'owners-only'", ()),
    "resource:project/project-7": ("tags @> ARRAY['project:project-7']", ()),
    "resource:group/group-3": ("tags @> ARRAY['group:group-3']", ()),
    "resource:group/group-47 action:project.viewed": (
        "tags @> ARRAY['group:group-47'] AND type = 'ProjectViewed'", (),
    ),
    "resource:project/project-12*": (
        "tags && (SELECT array_agg(tags[1]) FROM audit.entries WHERE type = 'ProjectCreated'"
        " AND tags[1] LIKE 'project:project-12%%')", (),
    ),
    f"subject:{SOMEBODY}": ("(actor = %s OR tags @> ARRAY[%s])", (SOMEBODY, f"user:{SOMEBODY}")),
    "request:01930000-0000-7000-8000-000000004e20": (
        "bytes ->> 'request' = '01930000-0000-7000-8000-000000004e20'", (),
    ),
    "address:10.0.0.7": ("bytes #>> '{source,_sd,0}' = %s", (DIGEST,)),
    "time:2026-05-01..2026-05-02 outcome:refused": (
        "at >= '2026-05-01Z' AND at < '2026-05-03Z' AND outcome = 'refused'", (),
    ),
    "position:100000..150000 -action:notebook.*": (
        "position BETWEEN 100000 AND 150000 AND type <> ALL(%s)", (NOTEBOOKS,),
    ),
    "changed:role": ("type = 'MemberAdded'", ()),
    "actor:system action:session.*": ("actor = 'sophon' AND type IN ('LoggedIn', 'LoggedOut')", ()),
    "resource:project/*7": ("EXISTS (SELECT FROM unnest(tags) AS tag WHERE tag LIKE 'project:%%7')", ()),
    "-action:notebook.*,session.*,project.viewed time:>=2026-06": (
        "type <> ALL(%s) AND at >= '2026-06-01Z'", ([*NOTEBOOKS, "LoggedIn", "LoggedOut", "ProjectViewed"],),
    ),
}  # fmt: skip
"""What is asked, and the condition that somebody would write."""

FIRST: dict[str, tuple[str, tuple[Any, ...]]] = {
    "address:10.0.0.7": ("SELECT digest FROM vault.disclosures WHERE lookup = %s AND name = 'address'", (LOOKUP,)),
}
"""What has to be asked before, by hand: entries have no addresses. In one statement the planner would walk the log."""

Times = dict[str, list[float]]
"""Milliseconds of each query."""


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare the worst query's p95 with its SQL's, and the slowest one's with 50 ms; then tell each query's median."""
    with server() as postgres, event_loop() as loop:
        dsn = postgres.database()
        opened = Log.open(dsn, SEALER)
        log = loop.run(opened.__aenter__())
        try:
            _prepare(dsn, round(ENTRIES * effort.share))
            loop.run(_round(log))
            rounds = [loop.run(_round(log)) for _ in range(effort.rounds)]
        finally:
            loop.run(opened.__aexit__(None, None, None))
    yield from _figures([ours for ours, _ in rounds], [theirs for _, theirs in rounds])


def _figures(ours: list[Times], theirs: list[Times]) -> Iterator[Comparison]:
    ratios = {
        query: [_p95(our[query]) / _p95(their[query]) for our, their in zip(ours, theirs, strict=True)]
        for query in QUERIES
    }
    highs = {query: [_p95(our[query]) for our in ours] for query in QUERIES}
    furthest, slowest = _worst(ratios), _worst(highs)
    yield Comparison(
        what=f"a page of a query, p95, beside its SQL's: the worst of {len(QUERIES)} ({furthest})",
        unit="times",
        peer="the same by hand-written SQL",
        ours=ratios[furthest],
        theirs=[1.0] * len(ours),
        target=Target(2.0, at_most=True),
    )
    yield Comparison(
        what=f"a page of a query, p95: the slowest of {len(QUERIES)} ({slowest})",
        unit="ms",
        peer="50 ms",
        ours=highs[slowest],
        theirs=[LIMIT_MS] * len(ours),
        target=Target(1.0, at_most=True),
    )
    for query in QUERIES:
        yield Comparison(
            what=query,
            unit="ms",
            peer="SQL",
            ours=[median(our[query]) for our in ours],
            theirs=[median(their[query]) for their in theirs],
        )


def _prepare(dsn: str, entries: int) -> None:
    fill(dsn, entries)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO vault.disclosures (digest, position, subject, name, key, lookup)"
            " VALUES (%s, 1, 'user:x', 'address', gen_random_uuid(), %s)",
            (DIGEST, LOOKUP),
        )


async def _round(log: Log) -> tuple[Times, Times]:
    """Ask each query in turn, ours and theirs, and note the milliseconds."""
    timeline = Timeline(log, lambda: NOW)
    ours: Times = {query: [] for query in QUERIES}
    theirs: Times = {query: [] for query in QUERIES}
    for number in range(EACH):
        for asked, query in enumerate(QUERIES):
            if (number + asked) % 2:
                found, expected = await _ours(timeline, query, ours), await _theirs(log, query, theirs)
            else:
                expected, found = await _theirs(log, query, theirs), await _ours(timeline, query, ours)
            _check(query, found, expected)
    return ours, theirs


async def _ours(timeline: Timeline, query: str, times: Times) -> Found:
    begin = time.perf_counter()
    found = await timeline.page(50, q=query, newest=True)
    times[query].append(1000 * (time.perf_counter() - begin))
    return found


async def _theirs(log: Log, query: str, times: Times) -> list[Record]:
    async with log.pool.connection() as connection:
        begin = time.perf_counter()
        where, values = QUERIES[query]
        if query in FIRST:
            text, given = FIRST[query]
            values = (await (await connection.execute(SQL(text), given)).fetchone()) or ()  # pyright: ignore
        expected = await _by_hand(connection, where, values)
        times[query].append(1000 * (time.perf_counter() - begin))
    return expected


async def _by_hand(connection: AsyncConnection, where: str, values: tuple[Any, ...]) -> list[Record]:
    query = f"SELECT position, bytes::text FROM audit.entries WHERE {where} ORDER BY position DESC LIMIT 50"
    cursor = await connection.execute(SQL(query), values or None)  # pyright: ignore[reportArgumentType]
    return [Record(position, text.encode()) for position, text in await cursor.fetchall()]


def _check(query: str, found: Found, expected: list[Record]) -> None:
    """See that the page is the answer; or the answer as far as it came, if it came that far only."""
    reached = 0 if found.next is None else found.next
    assert [one.position for one in found.records] == [one.position for one in expected if one.position >= reached], (
        query
    )


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]


def _worst(figures: dict[str, list[float]]) -> str:
    return max(figures, key=lambda query: median(figures[query]))

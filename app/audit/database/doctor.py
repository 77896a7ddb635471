"""The doctor: looks whether the database that holds the log is as it should be, and names each fault and its mend.

It finds what was loosened, by mistake or by somebody who may. Whether the history itself is whole, only `sophon audit
verify` can say, and against somebody who owns the database only what is kept elsewhere.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.database.catalogue import QUESTIONS, START_AGAIN, Question
from app.audit.database.connecting import connect
from app.audit.database.found import unfound
from app.audit.database.provision import DUTIES, release
from app.audit.database.shape import altered_functions, altered_tables
from app.audit.entry import Record, UnreadableEntry, leaf_hash
from app.audit.pruned import Prunings
from app.audit.reading import one

SAMPLE = 1_000
"""Entries that are hashed anew: this many of the newest, and as many drawn by lot."""

SKEW = timedelta(seconds=2)

VERIFY = (
    "Run `sophon audit verify`, which finds every such place, and compare with an export or a replica. Append nothing "
    "before that."
)


class Finding(Struct, frozen=True):
    """What was looked at, under a code that stays, and what is wrong with it: nothing, if `faults` is empty.

    `unknown` says why it could not be looked at, if it could not.
    """

    code: str
    about: str
    mend: str
    faults: tuple[str, ...] = ()
    unknown: str | None = None


Look = Callable[[AsyncConnection], Awaitable[Sequence[str]]]


class CannotLook(Exception):
    """The database does not answer, or went away."""


async def examine(administrator: str, application: str, signed: int = 0) -> list[Finding]:
    """Look at the log's database as its administrator, and say for each thing whether it is as it should be.

    Takes the DSNs by which it is administrated and by which the application uses it, and how many entries the signer
    remembers to have signed. Raises `CannotLook`.
    """
    try:
        async with await connect(application, autocommit=True) as connection:
            cursor = await connection.execute("SELECT current_user")
            login = one(await cursor.fetchone())
        return await _examine(administrator, login, signed)
    except psycopg.OperationalError as error:
        raise CannotLook(f"The database does not answer: {str(error).strip()}") from error


async def _examine(administrator: str, login: str, signed: int) -> list[Finding]:
    async with await connect(administrator, autocommit=True) as connection:
        cursor = await connection.execute("SELECT to_regclass('audit.entries') IS NULL")
        if one(await cursor.fetchone()):
            return [Finding("SPH-DB-009", "the tables are as they were made", START_AGAIN, ("There is no log here.",))]
        asked = [await _ask(connection, question, login) for question in QUESTIONS]
        looked = [await look_at(connection, *what) for what in _LOOKS]
        return [*asked, *looked, await look_at(connection, *_BEHIND, _behind(signed))]


async def _ask(connection: AsyncConnection, question: Question, application: str) -> Finding:
    """Ask the catalogue a question."""

    async def look(connection: AsyncConnection) -> Sequence[str]:
        cursor = await connection.execute(
            question.sql.encode(), {"owner": ["sophon_owner"], "duties": list(DUTIES), "application": application}
        )
        return [row[0] for row in await cursor.fetchall()]

    return await look_at(connection, question.code, question.about, question.mend, look)


async def look_at(connection: AsyncConnection, code: str, about: str, mend: str, look: Look) -> Finding:
    """Look at one thing; what cannot be looked at is no fault, and not healthy either.

    Where tables were altered, what is read of them may be anything.
    """
    try:
        return Finding(code, about, mend, tuple(await look(connection)))
    except psycopg.OperationalError:
        raise
    except (psycopg.Error, TypeError, ValueError, ArithmeticError, UnreadableEntry) as error:
        return Finding(code, about, mend, unknown=str(error).strip())


async def _release(connection: AsyncConnection) -> Sequence[str]:
    cursor = await connection.execute("SELECT obj_description('audit'::regnamespace)")
    return (
        [] if one(await cursor.fetchone()) == f"sophon {release()}" else ["Another release of Sophon made the tables."]
    )


async def _gaps(connection: AsyncConnection) -> Sequence[str]:
    cursor = await connection.execute(
        "SELECT count(*), coalesce(min(position), 1), coalesce(max(position), 0) FROM audit.entries"
    )
    entries, first, last = await cursor.fetchone() or (0, 1, 0)
    faults = [f"There is an entry at position {first:,}, and the first is 1."] if first < 1 else []
    if entries == last and first == 1:
        return faults
    cursor = await connection.execute(
        "SELECT count(*), min(position) FILTER (WHERE next - 1 > position) + 1 FROM (SELECT 0 AS position,"
        " min(position) AS next FROM audit.entries WHERE position > 0 UNION ALL SELECT position, lead(position)"
        " OVER (ORDER BY position) FROM audit.entries WHERE position > 0) AS steps"
    )
    steps, empty = await cursor.fetchone() or (1, None)
    there = steps - 1
    if empty is not None:
        faults.append(f"{last - there:,} positions up to {last:,} are empty, the first of them {empty:,}.")
    if there > last > 0:
        faults.append(f"{there:,} entries stand at the positions up to {last:,}.")
    return faults


async def _hashes(connection: AsyncConnection) -> Sequence[str]:
    prunings = await Prunings.read(connection)
    return [
        f"The entry at position {position} is not the one that was hashed."
        for position, octets, kept, *_ in await _sample(connection)
        if leaf_hash(octets) != kept and not prunings.covers(position, octets)
    ]


async def _search_columns(connection: AsyncConnection) -> Sequence[str]:
    return [
        f"The entry at position {position} is searched for under other words than it has."
        for position, octets, _, *columns in await _sample(connection)
        if _searched_by(octets) != tuple(columns)
    ]


def _searched_by(octets: bytes) -> tuple[object, ...]:
    try:
        entry = Record(0, octets).entry
    except UnreadableEntry:
        return ()
    return entry.type, list(entry.tags), entry.actor.id, entry.outcome, entry.at, entry.id


async def _sample(connection: AsyncConnection) -> list[tuple[int, bytes, bytes, *tuple[object, ...]]]:
    cursor = await connection.execute("SELECT coalesce(max(position), 0) FROM audit.entries")
    head: int = one(await cursor.fetchone())
    all_ = range(1, head + 1)
    wanted = {*all_[-SAMPLE:], *random.sample(all_, min(len(all_), SAMPLE))}
    cursor = await connection.execute(
        "SELECT position, coalesce(bytes::text, ''), leaf_hash, type, tags, actor, outcome, at, id::text"
        " FROM audit.entries WHERE position = ANY(%s) ORDER BY position",
        (sorted(wanted),),
    )
    return [(position, text.encode(), *rest) for position, text, *rest in await cursor.fetchall()]


def _behind(signed: int) -> Look:
    async def look(connection: AsyncConnection) -> Sequence[str]:
        cursor = await connection.execute("SELECT coalesce(max(position), 0) FROM audit.entries")
        head: int = one(await cursor.fetchone())
        return [f"The log ends at {head:,}, and {signed:,} entries were signed: it has lost its end."][: head < signed]

    return look


async def _clock(connection: AsyncConnection) -> Sequence[str]:
    before = datetime.now(UTC)
    cursor = await connection.execute(
        "SELECT clock_timestamp(), (SELECT at FROM audit.entries ORDER BY position DESC LIMIT 1)"
    )
    theirs, newest = await cursor.fetchone() or (before, None)
    after = datetime.now(UTC)
    faults: list[str] = []
    if theirs < before - SKEW or theirs > after + SKEW:
        faults.append(
            f"The database's clock differs from this machine's by {abs((theirs - after).total_seconds()):.0f} s."
        )
    if newest is not None and newest > after + SKEW:
        faults.append(f"The newest entry is from {newest.isoformat()}, which is yet to come: the clock was set back.")
    return faults


_BEHIND = (
    "SPH-LOG-005",
    "the log has every entry that was signed",
    "This is an older copy of the log, or its end was cut off. Append nothing: `sophon state recover --from-export "
    "DIR` puts the lost end back from an export.",
)
_LOOKS: tuple[tuple[str, str, str, Look], ...] = (
    (
        "SPH-DB-008",
        "the functions of the log are ours",
        "Start Sophon again: it puts its own functions in place. Drop those that it does not know. Then run `sophon "
        "audit verify`: what was appended meanwhile may not be what the application sent.",
        altered_functions,
    ),
    (
        "SPH-DB-009",
        "the tables are as they were made",
        "Make the column as it stands in app/audit/database/*.sql, with ALTER TABLE, or restore the log from an export "
        "with `sophon state recover`.",
        altered_tables,
    ),
    ("SPH-DB-014", "the tables were made by this release", START_AGAIN, _release),
    ("SPH-LOG-001", "no position is empty", VERIFY, _gaps),
    ("SPH-LOG-002", "a sample of entries is what was hashed", VERIFY, _hashes),
    (
        "SPH-LOG-003",
        "a sample of entries is found by what it says",
        "The columns by which entries are searched are not computed from them any more: see SPH-DB-009.",
        _search_columns,
    ),
    (
        "SPH-LOG-006",
        "every entry is found by the indexes that decisions and searches use",
        "REINDEX INDEX CONCURRENTLY audit.<index>; or, where it is not there, start Sophon again. Then ask again what "
        "was asked meanwhile, and look what was decided: neither has seen the entries that were not found.",
        unfound,
    ),
    (
        "SPH-LOG-004",
        "the clocks agree, and no entry is from the future",
        "Let both machines follow a time server (`timedatectl set-ntp true`). Until then new entries get the time of "
        "the newest.",
        _clock,
    ),
)

"""The timeline: the log itself, as it is read by those who may. The one read model that needs no table of its own."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Raw, Struct

from app.audit.entry import Record
from app.audit.log import Log
from app.audit.query.frequencies import Frequencies
from app.audit.query.impersonal import without_names
from app.audit.query.language import QueryError as QueryError
from app.audit.query.language import parse
from app.audit.query.looking import Page
from app.audit.query.marks import Addresses, Sources, Types
from app.audit.query.meaning import meaning
from app.audit.query.ranges import LAST_POSITION
from app.audit.query.search import Found, search
from app.audit.query.sieve import Sieve, Test
from app.audit.query.traits import Tags
from app.domain.audits import NOBODY, NOT_UNDERSTOOD
from app.domain.names import Personal, UserId, is_a
from app.domain.registry import EVENTS

LONGEST = 8_000
"""Characters that are kept of what was asked."""
MOST = 200
"""Entries that are read at a time to catch up with the log's end."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class TimelineEntry(Struct, frozen=True):
    """An entry at its position; `entry` is the recorded text to the byte."""

    position: int
    entry: Raw


def shown(record: Record) -> TimelineEntry:
    """Give a record as it was recorded."""
    return TimelineEntry(record.position, Raw(record.octets))


class Timeline:
    """Answers queries, and follows what they ask for. `now` is what their relative times rest on."""

    def __init__(self, log: Log, now: Callable[[], datetime] = _utc_now) -> None:
        self._log = log
        self._now = now
        self._frequencies = Frequencies()
        self.names = Names(log)
        self._hashes = _Hashes(log)

    async def page(
        self,
        limit: int,
        after: int = 0,
        *,
        q: str = "",
        before: int | None = None,
        newest: bool = False,
        type_: str | None = None,
        tag: str | None = None,
    ) -> Found:
        """Give entries between two positions that a query, a type and a tag ask for: the newest or the oldest.

        Fewer than the limit if more of them are not found at once: then from `next` on there may be others. Raises
        `QueryError`.
        """
        sieve = await meaning(parse(q, self._now()), self._hashes)
        more: list[Test] = [Types((type_,))] if type_ else []
        more += [Tags((tag,))] if tag else []
        high = LAST_POSITION if before is None else before - 1
        async with self._log.pool.connection() as connection:
            asked, wanted = Sieve((*more, *sieve.tests)), Page(limit, after + 1, high, newest)
            return await search(connection, asked, wanted, self._frequencies)

    async def recorded(self, q: str, type_: str | None = None, tag: str | None = None) -> str:
        """Write what is asked as it may be kept, though people are erased: users by their ids, times as they are now.

        Of what is not understood nothing is kept.
        """
        try:
            words = [str(await without_names(parse(q, self._now()), self.names))]
        except QueryError:
            words = [NOT_UNDERSTOOD]
        if type_:
            words.append(f"type={type_ if type_ in EVENTS else NOT_UNDERSTOOD}")
        if tag:
            kind, _, name = tag.partition(":")
            names_somebody = kind == "user" and not is_a(UserId, name)
            words.append(f"tag=user:{await self.names.user(name) or NOBODY}" if names_somebody else f"tag={tag}")
        return " ".join(filter(None, words))[:LONGEST]

    async def entries(
        self, limit: int, after: int = 0, *, type_: str | None = None, tag: str | None = None
    ) -> list[TimelineEntry]:
        """Give the oldest entries after a position of a type and with a tag, however far between they are."""
        found: list[Record] = []
        reached: int | None = after
        while reached is not None and len(found) < limit:
            page = await self.page(limit - len(found), reached, type_=type_, tag=tag)
            found += page.records
            reached = page.next
        return [shown(record) for record in found]

    async def entry(self, position: int) -> TimelineEntry | None:
        """Give the entry at a position, if the log is as long."""
        found = (await self.page(1, position - 1, before=position + 1)).records
        return shown(found[0]) if found else None

    async def follow(self, q: str, after: int | None = None) -> AsyncIterator[tuple[int, list[Record]]]:
        """Give what a query asks for, from a position (none: the end) on, and go on as the log grows.

        Each time with the position that is reached, also where nothing there was asked for. Raises `QueryError`.
        """
        query = parse(q, self._now())
        sieve = await meaning(query, self.names)
        after = self._log.head if after is None else after
        yield after, []
        while after < (head := self._log.head):
            page = Page(MOST, after + 1, head)
            async with self._log.pool.connection() as connection:
                found = await search(connection, sieve, page, self._frequencies)
            after = head if found.next is None else found.next
            yield after, found.records
        moving = any(term.key == "address" for term in query.terms)  # each session has a digest of its own
        async for records in self._log.follow(after):
            if moving:
                sieve = await meaning(query, self.names)
            yield records[-1].position, [record for record in records if sieve.matches(record)]


class Names:
    """Finds out what people call things by the vault, by a keyed hash: whoever was erased is not found any more."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def user(self, username: str) -> str | None:
        """Give the id of the user who has a name."""
        found = await self._disclosures("username", (username,))
        return next((one.removeprefix("user:") for _, one in found if one.startswith("user:")), None)

    async def sources(self, addresses: Sequence[str]) -> Test:
        """Say of an entry that one of the digests stands in it which some IP addresses have so far."""
        return Sources(tuple([digest for digest, _ in await self._disclosures("address", addresses)]))

    async def usernames(self, users: Iterable[str]) -> dict[str, str]:
        """Give the names of those of some users who have one that can be read, by their ids."""
        subjects = [f"user:{user}" for user in users]
        query = "SELECT digest FROM vault.disclosures WHERE subject = ANY(%s) AND name = 'username' ORDER BY position"
        async with self._log.pool.connection() as connection:
            cursor = await connection.execute(query, (subjects,))
            found = await self._log.open_digests(connection, [digest for (digest,) in await cursor.fetchall()])
        decode = msgspec.json.Decoder(Personal).decode
        return {one.subject.removeprefix("user:"): decode(one.value).text for one in found.values()}

    async def _disclosures(self, name: str, values: Sequence[str]) -> list[tuple[str, str]]:
        query = "SELECT digest, subject FROM vault.disclosures WHERE lookup = ANY(%s) AND name = %s ORDER BY position"
        async with self._log.pool.connection() as connection:
            cursor = await connection.execute(query, (self._lookups(name, values), name))
            return await cursor.fetchall()

    def _lookups(self, name: str, values: Sequence[str]) -> list[bytes]:
        return [self._log.sealer.lookup(name, value) for value in values]


class _Hashes(Names):
    """The same for a search, which finds out itself what has an address's hash."""

    async def sources(self, addresses: Sequence[str]) -> Test:
        """Say of an entry by its address's keyed hash where it came from."""
        return Addresses(tuple(self._lookups("address", addresses)))

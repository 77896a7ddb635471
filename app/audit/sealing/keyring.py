"""The keys of subjects, in memory: what is appended is sealed with them, and what is read is opened.

The vault has the last word. A batch that was sealed with a key which another process has erased meanwhile is refused
by the database, whole, and sealed anew; so nothing that was erased can be read again.
"""

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import islice
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct
from psycopg import AsyncConnection

from app.audit.entry import Draft, Record, Source
from app.audit.sealing.sealer import NEW_KEY, NONCE, Disclosure, SealBroken, Sealer, SubjectKey, disclose, disclosed
from app.settings import BadSetting

REMEMBERED = 10_000
"""Keys, and addresses, at most."""
RECALLED = 1_000
"""Values at most: those of the last appends, until whoever follows the log has read them."""

_log = structlog.get_logger(__name__)


class _Sealed(Struct, frozen=True, gc=False):
    """What `vault.take_in` reads a list of: octets in base 64. `wrapped`: a key that is new, with its first value."""

    digest: str
    position: int
    subject: str
    name: str
    key: UUID
    sealed: bytes
    lookup: bytes | None
    wrapped: bytes | None


_encode = msgspec.json.Encoder().encode


class Keyring:
    """One process's keys. Those that are new are kept once the vault has them."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._keys: OrderedDict[str, SubjectKey] = OrderedDict()
        self._new: dict[str, SubjectKey] = {}
        self._sources: OrderedDict[tuple[str, str, date], Disclosure] = OrderedDict()
        self._kept_sources: set[str] = set()
        self._seen: set[str] = set()
        """Whose keys were read in the vault."""
        self._just_sealed: dict[str, Disclosure] = {}

    def source_of(self, draft: Draft, day: date) -> Source | None:
        """Give the digest of where something was done: of one address of one subject's the same all day."""
        disclosure = self._source(draft, day)
        return disclosure and Source((disclosure.digest,))

    def disclosures_of(self, draft: Draft, day: date) -> Sequence[Disclosure]:
        """Give what has to go into the vault with an entry."""
        source = self._source(draft, day)
        if source is None or source.digest in self._kept_sources:
            return draft.disclosures
        return (*draft.disclosures, source)

    def _source(self, draft: Draft, day: date) -> Disclosure | None:
        if draft.address is None:
            return None
        subject, address = draft.address
        if (found := self._sources.get((subject, address, day))) is None:
            found = self._sources[subject, address, day] = disclose(subject, "address", address)
        return found

    def parcel(self, disclosures: Sequence[tuple[int, Disclosure]]) -> str | None:
        """Seal the disclosures that belong to positions; give what the vault takes in, or none if there is nothing."""
        if not disclosures:
            return None
        sent: set[str] = set()
        sealed: dict[str, _Sealed] = {}
        # Asked for at once: every question for random octets is one to the kernel.
        random = os.urandom(len(disclosures) * (NONCE + NEW_KEY))
        for number, (position, one) in enumerate(disclosures):
            if one.digest in sealed:
                continue
            start = number * (NONCE + NEW_KEY)
            nonce, fresh = random[start : start + NONCE], random[start + NONCE : start + NONCE + NEW_KEY]
            key, wrapped = self._keys.get(one.subject), None
            if key is None:
                key = self._new.get(one.subject)
                if key is None:
                    key = self._new[one.subject] = self._sealer.new_key(one.subject, fresh)
                wrapped = b"" if one.subject in sent else key.wrapped
                sent.add(one.subject)
            sealed[one.digest] = _Sealed(
                one.digest,
                position,
                one.subject,
                one.name,
                key.id,
                key.seal(one, nonce),
                self._sealer.lookup_of(one),
                wrapped,
            )
        return _encode(list(sealed.values())).decode()

    def keep(self, disclosures: Iterable[tuple[int, Disclosure]]) -> None:
        """Remember the keys, and the addresses, that the vault has now taken in."""
        for _, one in disclosures:
            if one.name == "address":
                self._kept_sources.add(one.digest)
            elif one.subject in self._seen or not one.subject.startswith("user:"):
                # Of a user who was erased before, the vault has taken in nothing, and has not said so.
                self._just_sealed[one.digest] = one
            if (key := self._new.pop(one.subject, None)) is not None:
                self._keys[one.subject] = key
        self._trim()

    def forget(self, subject: str) -> None:
        """Let go of all that belongs to a subject."""
        self._drop_key(subject)
        for known in [known for known in self._sources if known[0] == subject]:
            self._kept_sources.discard(self._sources.pop(known).digest)
        for digest in [one.digest for one in self._just_sealed.values() if one.subject == subject]:
            del self._just_sealed[digest]

    def recall(self, record: Record) -> bool:
        """Attach to a record what was sealed in its data, and let go of it; false if not all of that is known here.

        That is what the vault would answer: it has the key, and an erasure that stands before the record was heard of.
        """
        disclosures = [self._just_sealed.pop(digest, None) for digest in record.data_digests]
        record.disclosures = known = [one for one in disclosures if one is not None]
        return len(known) == len(disclosures)

    async def reload(self, connection: AsyncConnection, subjects: Iterable[str]) -> None:
        """Read the keys of subjects anew: another process made, or erased, one of them."""
        wanted = list(set(subjects))
        for subject in wanted:
            self._drop_key(subject)
        cursor = await connection.execute(
            "SELECT subject, id, wrapped FROM vault.subject_keys WHERE subject = ANY(%s)", (wanted,)
        )
        for subject, id_, wrapped in await cursor.fetchall():
            self._keys[subject] = self._unwrapped(subject, id_, wrapped)
            self._seen.add(subject)

    async def check(self, connection: AsyncConnection) -> None:
        """See that the vault is this installation's; raises `BadSetting` if its keys were wrapped under another."""
        cursor = await connection.execute("SELECT subject, id, wrapped FROM vault.subject_keys LIMIT 1")
        for row in await cursor.fetchall():
            self._unwrapped(*row)

    def _unwrapped(self, subject: str, id_: UUID, wrapped: bytes) -> SubjectKey:
        try:
            return self._sealer.unwrap(subject, id_, wrapped)
        except SealBroken as error:
            raise BadSetting(
                "The vault in this database was sealed with another secret. Set SOPHON_SECRET, or put the file "
                "`secret` into the data directory, as it was when the database was made."
            ) from error

    async def reveal(self, connection: AsyncConnection, records: Sequence[Record]) -> Sequence[Record]:
        """Attach to records what is readable of what they hold digests of, in one question for all; give them back."""
        sealed = {record: record.digests for record in records if b'"_sd":' in record.octets}
        if sealed:
            known = await self.open(connection, {digest for digests in sealed.values() for digest in digests})
            for record, digests in sealed.items():
                record.disclosures = [known[digest] for digest in digests if digest in known]
        return records

    async def open(self, connection: AsyncConnection, digests: Iterable[str]) -> dict[str, Disclosure]:
        """Give the disclosures of those digests that can be read."""
        cursor = await connection.execute(
            "SELECT d.digest, d.sealed, subject, k.id, k.wrapped FROM vault.disclosures AS d"
            " JOIN vault.subject_keys AS k USING (subject)"
            " WHERE d.digest = ANY(%s) AND d.sealed IS NOT NULL AND k.id = d.key",
            (list(digests),),
        )
        opened: dict[str, Disclosure] = {}
        keys: dict[str, SubjectKey] = {}
        for digest, sealed, subject, id_, wrapped in await cursor.fetchall():
            try:
                key = keys.get(subject) or keys.setdefault(subject, self._sealer.unwrap(subject, id_, wrapped))
                opened[digest] = disclosed(subject, digest, key.open(digest, sealed))
                if (known := self._keys.get(subject)) and known.id == id_:
                    self._seen.add(subject)
            except SealBroken as error:
                # One value that cannot be read must not keep everything else from being read.
                _log.warning("vault.unreadable", digest=digest, error=str(error))
        return opened

    def _drop_key(self, subject: str) -> None:
        self._keys.pop(subject, None)
        self._new.pop(subject, None)
        self._seen.discard(subject)

    def _trim(self) -> None:
        for digest in list(islice(self._just_sealed, max(0, len(self._just_sealed) - RECALLED))):
            del self._just_sealed[digest]
        while len(self._keys) > REMEMBERED:
            self._drop_key(next(iter(self._keys)))
        while len(self._sources) > REMEMBERED:
            self._kept_sources.discard(self._sources.popitem(last=False)[1].digest)

"""What goes into the log together: decided on, stamped, encoded, hashed and sealed before the database sees it."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from app.audit.entry import Draft, Entry, Record, encode, leaf_hash
from app.audit.recent import Condition, Recent
from app.audit.sealing.keyring import Keyring
from app.audit.sealing.sealer import Disclosure
from app.audit.transparency.strict import HASH


class ConditionViolated(Exception):
    """Something that the decision rests on has changed since it was read. Read again, and decide again."""


class Append:
    """What one caller waits for."""

    __slots__ = ("checked_to", "condition", "done", "drafts")

    def __init__(self, drafts: Sequence[Draft], condition: Condition | None) -> None:
        self.drafts = drafts
        self.condition = condition
        self.checked_to = 0
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        """Tell the caller, unless it has gone."""
        if not self.done.done():
            self.done.set_exception(error)

    def succeed(self, position: int) -> None:
        """Tell the caller where its last entry stands, unless it has gone."""
        if not self.done.done():
            self.done.set_result(position)


Decided = tuple[Append, list[Record]]
"""An append, and what it adds to the log: nothing, if it is refused."""


class Batch:
    """Appends that follow on the position `after`, as the database is given them."""

    __slots__ = ("after", "decided", "disclosed", "hashes", "lines", "parcel", "records")

    def __init__(self, after: int, decided: list[Decided], disclosed: list[tuple[int, Disclosure]]) -> None:
        self.after = after
        self.decided = decided
        self.disclosed = disclosed
        self.records = [record for _, records in decided for record in records]
        self.lines = b"\n".join([record.octets for record in self.records])
        self.hashes = b"".join([leaf_hash(record.octets) for record in self.records])
        self.parcel: str | None = None
        """What the vault takes in with it."""

    @property
    def head(self) -> int:
        """Where the log ends with it."""
        return self.after + len(self.records)

    @property
    def end(self) -> bytes | None:
        """Give the hash of its last entry, if it has any."""
        return self.hashes[-HASH:] or None

    @property
    def appends(self) -> list[Append]:
        """Name who waits for it."""
        return [append for append, _ in self.decided]

    @property
    def subjects(self) -> Iterable[str]:
        """Name those whose keys something in it is sealed with."""
        return (one.subject for _, one in self.disclosed)


class Preparer:
    """Knows the end of the log as it is once all that it prepared is in."""

    def __init__(self, head: int, newest: datetime, keyring: Keyring) -> None:
        self._recent = Recent(head)
        self._newest = newest
        self._keyring = keyring

    @property
    def head(self) -> int:
        """Where the log ends."""
        return self._recent.head

    @property
    def floor(self) -> int:
        """After which position conditions are checked here; up to it, the database has to be asked."""
        return self._recent.floor

    def is_old(self, append: Append) -> bool:
        """Whether the condition looks back beyond what is known here."""
        return append.condition is not None and max(append.condition.after, append.checked_to) < self.floor

    def prepare(self, appends: Sequence[Append]) -> Batch:
        """Decide on each that still waits; what is accepted follows on all that was prepared before."""
        after = self.head
        decided = [(append, self._decide(append)) for append in appends if not append.done.done()]
        return self.sealed_anew(Batch(after, decided, [one for each in decided for one in self._disclosed(*each)]))

    def sealed_anew(self, batch: Batch) -> Batch:
        """Seal what is disclosed to the vault with the keys as they are now."""
        batch.parcel = self._keyring.parcel(batch.disclosed)
        return batch

    def take_in(self, entry: Entry) -> None:
        """Learn of the next entry of the log."""
        self._recent.add(entry.type, entry.tags)
        self._newest = max(self._newest, entry.at)

    def forget_after(self, position: int) -> None:
        """Take back what was prepared, and is not in the log."""
        self._recent.forget_after(position)

    def keep(self, batch: Batch) -> None:
        """Remember what is in the log now, and the keys that the vault has."""
        self._recent.trim(batch.head)
        if batch.disclosed:
            self._keyring.keep(batch.disclosed)

    def _decide(self, append: Append) -> list[Record]:
        """Give what this append adds to the batch: nothing, if its condition does not hold."""
        if append.condition is not None and self._recent.violates(append.condition):
            return []
        try:
            return self._stamp(append.drafts)
        except ValueError as error:
            append.fail(error)
            return []

    def _stamp(self, drafts: Sequence[Draft]) -> list[Record]:
        at = max(self._newest, datetime.now(UTC))
        entries = [
            draft.entry(at, self._keyring.source_of(draft, at.date()) if draft.address else None) for draft in drafts
        ]
        lines = [encode(entry) for entry in entries]
        self._newest = at
        start = self.head + 1
        for entry in entries:
            self._recent.add(entry.type, entry.tags)
        return [Record(start + n, line, entry) for n, (line, entry) in enumerate(zip(lines, entries, strict=True))]

    def _disclosed(self, append: Append, records: list[Record]) -> list[tuple[int, Disclosure]]:
        return [
            (record.position, one)
            for draft, record in zip(append.drafts, records, strict=False)  # none of them, if it is refused
            if draft.disclosures or draft.address
            for one in self._keyring.disclosures_of(draft, record.entry.at.date())
        ]

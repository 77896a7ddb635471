"""What an entry is asked that an index in the order of positions answers: one value of each entry is one of some."""

from typing import ClassVar

import msgspec
from msgspec import Struct

from app.audit.entry import Record
from app.audit.query.sieve import Clause, Test

SOURCE = "(bytes #>> '{source,_sd,0}')"
REQUEST = "(bytes ->> 'request')"
REASON = "(bytes ->> 'reason')"
"""As they stand in indexes.sql, to the letter."""


class OneOf(Test, frozen=True):
    """A value is one of some: what an index in the order of positions can be asked for."""

    column: ClassVar[str]
    """The column, or the expression that is indexed."""

    values: tuple[str, ...]

    def value(self, record: Record) -> str | None:
        """Give the value that an entry has."""
        raise NotImplementedError

    def matches(self, record: Record) -> bool:
        """Whether an entry has one of the values."""
        return self.value(record) in self.values

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        return f"{self.column} = ANY(%s::text[])", (list(self.values),)


class OneOfFew(OneOf, frozen=True):
    """The same where there is an index on entries alone that are no success."""

    def clause(self) -> Clause:
        """Ask the same in SQL, in words that let the planner see that the partial index will do."""
        text, values = OneOf.clause(self)
        return f"({text} AND outcome <> 'success')", values


class Types(OneOf, frozen=True):
    """Of one of these event types."""

    column: ClassVar[str] = "type"

    def value(self, record: Record) -> str | None:
        """Give the type."""
        return record.entry.type


class Succeeded(OneOf, frozen=True):
    """With one of these outcomes, success among them."""

    column: ClassVar[str] = "outcome"

    def value(self, record: Record) -> str | None:
        """Give the outcome."""
        return record.entry.outcome


class Outcomes(OneOfFew, frozen=True):
    """With one of these outcomes, which are no success."""

    column: ClassVar[str] = "outcome"

    def value(self, record: Record) -> str | None:
        """Give the outcome."""
        return record.entry.outcome


class Reasons(OneOfFew, frozen=True):
    """Not a success, for one of these reasons."""

    column: ClassVar[str] = REASON

    def value(self, record: Record) -> str | None:
        """Give the reason."""
        return record.entry.reason if record.entry.outcome != "success" else None


class Requests(OneOf, frozen=True):
    """Done in one of these requests."""

    column: ClassVar[str] = REQUEST

    def value(self, record: Record) -> str | None:
        """Give the request's id."""
        return record.entry.request


class _Source(Struct):
    sd: tuple[str, ...] = msgspec.field(name="_sd", default=())


class _Sourced(Struct):
    source: _Source | None = None


class Sources(OneOf, frozen=True):
    """From where one of these digests, which are a sealed address's, says."""

    column: ClassVar[str] = SOURCE

    def value(self, record: Record) -> str | None:
        """Give the digest."""
        source = msgspec.json.decode(record.octets, type=_Sourced).source
        return source.sd[0] if source and source.sd else None


class Addresses(Test, frozen=True):
    """From one of these addresses, each by its keyed hash. A search turns them into digests, which the vault knows."""

    column: ClassVar[str] = SOURCE
    lookups: tuple[bytes, ...]


class Actors(OneOf, frozen=True):
    """Done by one of these."""

    column: ClassVar[str] = "actor"

    def value(self, record: Record) -> str | None:
        """Give the actor's id."""
        return record.entry.actor.id


class Guests(Test, frozen=True):
    """Done by somebody who is not known."""

    def matches(self, record: Record) -> bool:
        """Whether nobody knows who did it."""
        return record.entry.actor.id is None

    def clause(self) -> Clause:
        """Ask the same in SQL."""
        return "actor IS NULL", ()

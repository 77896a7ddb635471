"""The state that is derived from the log: what it was sealed to be, and when it was rebuilt or repaired."""

from typing import Annotated

from msgspec import Meta, Struct

from app.domain.event import Access

Position = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Rows = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Shape = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}(?!\n)$")]
TableName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}(?!\n)$")]
Tables = Annotated[tuple[TableName, ...], Meta(max_length=100)]


class TableDigest(Struct, frozen=True):
    """What a read model's rows are, in the order of their keys, without what is sealed in them: as one SHA-256."""

    table: TableName
    version: Annotated[int, Meta(ge=1, le=1_000_000)]
    rows: Rows
    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]


class StateSealed(Access, frozen=True, kw_only=True):
    """What the state was as of a position: any release that replays the log up to there has to come to the same."""

    position: Position
    shape: Shape
    digests: Annotated[tuple[TableDigest, ...], Meta(max_length=100)]


class StateRebuilt(Access, frozen=True, kw_only=True):
    """Read models were built anew from the log, and went live; so many rows of theirs had been different before."""

    position: Position
    shape: Shape
    entries: Rows
    differences: Rows
    tables: Tables


class StateRepaired(Access, frozen=True, kw_only=True):
    """Rows of read models were not what the log says, and were written anew from it."""

    position: Position
    shape: Shape
    rows: Rows
    tables: Tables

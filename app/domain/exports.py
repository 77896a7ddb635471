"""What left the log, and what came back into it: exports, and a tail that was lost and appended again."""

from typing import Annotated, Literal

from msgspec import Meta

from app.domain.event import Access
from app.domain.names import UserId
from app.domain.states import Position

Size = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Root = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]


class AuditExported(Access, frozen=True, kw_only=True):
    """Somebody at the machine itself took an export of the log, of so many entries."""

    format: Literal["tiles", "jsonl", "cloudevents", "ocsf"]
    size: Size


class StateRecovered(Access, frozen=True, kw_only=True):
    """The database had been put back to `head`; the entries after it, to `size`, were appended again from an export.

    They have the root that was signed. `sealed`: values in them whose disclosures are in no backup, and read as erased.
    `by`: the administrators who wanted it.
    """

    head: Position
    size: Size
    root: Root
    sealed: Size
    by: Annotated[tuple[UserId, ...], Meta(max_length=2)] = ()

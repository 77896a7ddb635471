"""The timeline: the log itself, as it is read by those who may. The one read model that needs no table of its own."""

from msgspec import Raw, Struct

from app.audit.log import Log
from app.domain.model import Selection


class TimelineEntry(Struct, frozen=True):
    """An entry at its position; `entry` is the recorded text to the byte."""

    position: int
    entry: Raw


class Timeline:
    """Reads entries in order."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def entries(
        self, limit: int, after: int, *, type_: str | None = None, tag: str | None = None
    ) -> list[TimelineEntry]:
        """List entries after a position, of one type and with one tag where these are given."""
        selection = Selection((type_,) if type_ else (), (tag,) if tag else ())
        page = await self._log.read((selection,), after, limit)
        return [TimelineEntry(record.position, Raw(record.octets)) for record in page.records]

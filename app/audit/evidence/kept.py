"""What exports keep of entries that were pruned since: put back into the next export, if it is what was hashed."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from psycopg import AsyncConnection

from app.audit.evidence.bundles import read_bundle
from app.audit.evidence.exported import Exported
from app.audit.pruned import Prunings, hash_of, is_tombstone
from app.audit.transparency.tiles import WIDTH


class NotKept(Exception):
    """An entry was pruned, and none of the exports that are at hand has it."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"Entry {position} was pruned; its content is only in the exports that were made before. Go on with one of "
            "those, or name one: --from-export DIR."
        )


class KeptEntries:
    """Reads entries out of exports as tiles, believing only what has the hash that the log has kept."""

    def __init__(self, exports: Sequence[Exported]) -> None:
        self._exports = [one for one in exports if one.manifest.format == "tiles"]
        self._bundle = lru_cache(maxsize=4)(self._read)
        self.reach = max((one.checkpoint.size for one in self._exports), default=0)
        """Up to which entry they go."""

    def filled(self, after: int, entries: list[bytes], hashes: Sequence[bytes]) -> list[bytes]:
        """Give the entries after a position, with the content of those that were pruned. Raises `NotKept`."""
        return [
            self._content(after + n + 1, hashes[n]) if is_tombstone(entry) and hash_of(entry) != hashes[n] else entry
            for n, entry in enumerate(entries)
        ]

    async def must_reach(self, connection: AsyncConnection, prunings: Prunings, after: int) -> None:
        """Raise `NotKept` if the newest entry after a position that was pruned is newer than all that is kept."""
        cursor = await connection.execute(
            "SELECT position, convert_to(bytes::text, 'UTF8') FROM audit.entries"
            " WHERE type = 'Pruned' AND position > %s ORDER BY position DESC LIMIT 1",
            (after,),
        )
        row: Any = await cursor.fetchone()
        if row is not None and row[0] > self.reach and prunings.covers(row[0], bytes(row[1])):
            raise NotKept(row[0])

    def _content(self, position: int, expected: bytes) -> bytes:
        index, n = divmod(position - 1, WIDTH)
        for which, export in enumerate(self._exports):
            if position <= export.checkpoint.size and hash_of(entry := self._bundle(which, index)[n]) == expected:
                return entry
        raise NotKept(position)

    def _read(self, which: int, index: int) -> list[bytes]:
        export = self._exports[which]
        return read_bundle(export.directory, index, min(WIDTH, export.checkpoint.size - index * WIDTH))

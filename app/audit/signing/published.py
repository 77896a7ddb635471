"""What the log gives out of itself: checkpoints, tiles, verifier keys, and receipts for single entries."""

import asyncio
from typing import Literal

import msgspec
from msgspec import Struct

from app.audit.entry import Actor
from app.audit.pruned import is_tombstone
from app.audit.signing.elsewhere import SignedElsewhere
from app.audit.signing.rotation import NothingToRotate
from app.audit.signing.signer import AT_LEAST_EVERY, Signer
from app.audit.signing.tree import NotInTree, Tree
from app.audit.transparency.proofs import Receipt
from app.audit.transparency.strict import Malformed
from app.audit.transparency.tiles import parse_path
from app.domain.signing import LogKeyRotated

PATIENCE = 2.5
"""Seconds for which a receipt waits for the checkpoint that it needs."""

Kind = Literal["hashes", "entries"]


class NotSignedYet(Exception):
    """No checkpoint covers the entry yet. One is due within `seconds`, unless witnesses are missing."""

    seconds = int(AT_LEAST_EVERY)


class Acted(Struct, frozen=True):
    """What is read of an entry to know whose it is."""

    actor: Actor


_decode = msgspec.json.Decoder(Acted).decode


class PublishedLog:
    """The log as others see it, C2SP tlog-tiles. Raises `NotInTree` for what is not there."""

    def __init__(self, tree: Tree, signer: Signer | SignedElsewhere) -> None:
        self._tree = tree
        self._signer = signer

    async def checkpoint(self) -> bytes:
        """Give the newest checkpoint that enough witnesses have cosigned."""
        if (newest := await self._tree.newest()) is None:
            raise NotInTree
        return newest.note

    def kind(self, path: str) -> Kind:
        """Say what lies at a path below the log's prefix."""
        try:
            return "entries" if parse_path(path).level is None else "hashes"
        except Malformed:
            raise NotInTree from None

    async def tile(self, path: str) -> bytes:
        """Give the tile of hashes, or the bundle of entries, at a path below the log's prefix."""
        self.kind(path)
        tile = parse_path(path)
        if tile.level is None:
            return await self._tree.entries(tile.index, tile.width)
        return await self._tree.tile(tile.level, tile.index, tile.width)

    def verifier_keys(self) -> str:
        """List the verifier keys: on each line one, and the first and last size that it signs (`-`: it still does)."""
        return self._signer.verifier_keys()

    async def was_by(self, position: int, user: str) -> bool:
        """Whether a user did what an entry tells, or had it done."""
        actor = _decode(await self._tree.entry(position)).actor
        return user in (actor.id, actor.obo)

    async def receipt(self, position: int, *, with_entry: bool = True) -> bytes:
        """Prove that an entry is in the log (C2SP tlog-proof), by the first checkpoint. Raises `NotSignedYet`."""
        entry = await self._tree.entry(position)
        self._signer.hurry()
        return await receipt(self._tree, position, entry if with_entry else None, PATIENCE)

    async def next_keys(self) -> LogKeyRotated:
        """Make the keys that are to follow, unless they are made, and say what has to be recorded of them.

        Raises `NotSignedYet` where there are no keys at all.
        """
        try:
            return await self._signer.next_keys()
        except NothingToRotate as error:
            raise NotSignedYet from error


async def proof_of(tree: Tree, position: int) -> str | None:
    """Write a receipt without the entry, as text; none as long as no checkpoint covers the position."""
    try:
        return (await receipt(tree, position, None)).decode()
    except (NotSignedYet, NotInTree):
        return None


async def receipt(tree: Tree, position: int, extra: bytes | None, patience: float = 0) -> bytes:
    """Write a receipt, as soon as a checkpoint covers the position. Raises `NotSignedYet`.

    Of an entry that was pruned, the receipt holds the proof only: the entry itself is in an export.
    """
    if extra is not None and is_tombstone(extra):
        extra = None
    for _ in range(1 + int(patience / 0.1)):
        if checkpoint := await tree.covering(position):
            proof = await tree.inclusion(position, checkpoint.size)
            return Receipt(position - 1, tuple(proof), checkpoint.note, extra).encoded()
        if patience:
            await asyncio.sleep(0.1)
    raise NotSignedYet

"""New keys for the signer: made beside the old, announced by an entry that the old still sign, and then in their place.

Kill it between any two steps: keys that no entry announces are made anew the next time, keys that one announces are
taken up by the signer when it has signed that entry.
"""

import msgspec
from msgspec.structs import replace
from psycopg import AsyncConnection

from app.audit.signing.store import Keyring, Retired, Staged, Store
from app.audit.transparency.keys import SigningKey
from app.domain.signing import LogKeyRotated


class Announcement(msgspec.Struct, frozen=True):
    """What is read of an entry."""

    data: LogKeyRotated


_decode = msgspec.json.Decoder(Announcement).decode


class NothingToRotate(Exception):
    """There are no keys yet."""


def stage(store: Store) -> LogKeyRotated:
    """Make the keys that are to follow, unless they are made; give the event that has to announce them."""
    if (keyring := store.keyring()) is None:
        raise NothingToRotate(f"There are no keys in {store.directory} yet: the signer makes them at its first start.")
    staged = store.staged()
    if staged is None or set(staged.keys) & set(keyring.keys):
        keys = tuple(SigningKey.parse(key) for key in keyring.keys)
        fresh = tuple(SigningKey.generate(keyring.origin, key.kind).encoded() for key in keys)
        store.keep_staged(staged := Staged(keys=fresh))
    return LogKeyRotated(retired=verifiers(keyring.keys), keys=verifiers(staged.keys))


async def is_announced(connection: AsyncConnection, staged: Staged, size: int) -> bool:
    """Whether one of the first `size` entries says that these keys follow."""
    cursor = await connection.execute(
        "SELECT convert_to(bytes::text, 'UTF8') FROM audit.entries WHERE type = %s AND outcome = 'success'"
        " AND position <= %s ORDER BY position DESC LIMIT 1",
        (LogKeyRotated.__name__, size),
        binary=True,
    )
    row = await cursor.fetchone()
    return row is not None and _decode(row[0]).data.keys == verifiers(staged.keys)


def activated(store: Store, size: int) -> Keyring:
    """Put the staged keys in the place of the old, which have signed up to `size`, and destroy those."""
    keyring, staged = store.keyring(), store.staged()
    if keyring is None or staged is None:
        raise NothingToRotate("No keys are waiting to be taken up.")
    if staged.keys != keyring.keys:  # else we were killed before the last line
        old = Retired(verifiers=verifiers(keyring.keys), since=keyring.since, until=size)
        keyring = replace(keyring, keys=staged.keys, since=size + 1, retired=(*keyring.retired, old))
        store.keep_keyring(keyring)
    store.drop_staged()
    return keyring


def verifiers(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Give the public keys of signing keys."""
    return tuple(SigningKey.parse(key).verifier.text() for key in keys)

"""Hashing: a password's argon2id takes some 50 ms and 64 MiB, so few at a time, and no long queue of them."""

import asyncio
import secrets
from base64 import b64encode
from collections.abc import Callable
from typing import TypeVar

import argon2

from app.domain.errors import Refusal

AT_ONCE, WAITING = 2, 64
"""How many are computed at a time, and how many may wait for that: some two seconds' worth."""

T = TypeVar("T")


class TooManyPasswords(Refusal):
    """Too many passwords are being checked just now; try again in a moment."""

    status = 503


def decoy(hasher: argon2.PasswordHasher) -> str:
    """Make what looks like a hash and is nobody's: to hold a password to it takes as long as to somebody's."""
    salt, digest = (
        b64encode(secrets.token_bytes(length)).decode().rstrip("=") for length in (hasher.salt_len, hasher.hash_len)
    )
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


class Hashing:
    """Makes hashes of passwords, and holds passwords to them. Raises `TooManyPasswords` where too many wait."""

    def __init__(self, hasher: argon2.PasswordHasher | None = None) -> None:
        self._hasher = hasher or argon2.PasswordHasher()
        self._decoy = decoy(self._hasher)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Make a hash."""
        return await self._in_turn(lambda: self._hasher.hash(password))

    async def verify(self, kept: str | None, password: str) -> bool:
        """Whether it is this password's. Takes as long where none is kept, so that nobody learns who has an account."""

        def verified() -> bool:
            try:
                return self._hasher.verify(kept or self._decoy, password) and kept is not None
            except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
                return False

        return await self._in_turn(verified)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING:
            raise TooManyPasswords
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1

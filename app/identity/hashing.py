"""Hashing: a password's argon2id takes some 50 ms and 64 MiB, so few at a time, and no long queue of them."""

import asyncio
import secrets
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


class Hashing:
    """Makes hashes of passwords, and holds passwords to them. Raises `TooManyPasswords` where too many wait."""

    def __init__(self, hasher: argon2.PasswordHasher | None = None) -> None:
        self._hasher = hasher or argon2.PasswordHasher()
        self._decoy = self._hasher.hash(secrets.token_hex())
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

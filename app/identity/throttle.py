"""The throttle: so many wrong passwords, and no more for a while. Each process counts for itself."""

import contextlib
import hashlib
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Generator

from app.domain.errors import Forbidden, Refusal

REMEMBERED = 10_000
"""Sources and names, before those whose window has passed are let go of."""


class TooManyAttempts(Refusal):
    """Too many wrong passwords; wait some minutes and try again."""

    status = 429


class Throttle:
    """Bounds wrong passwords: so many in a window, for each user name from one address, and for each address.

    It remembers neither, but digests of them under a key that this process alone has: whoever is erased meanwhile is
    not named in here.
    """

    WINDOW = 300.0
    PER_NAME, PER_SOURCE = 10, 100

    def __init__(self) -> None:
        self._failures: defaultdict[str, deque[float]] = defaultdict(deque)
        self._key = secrets.token_bytes(32)

    def check(self, name: str, source: str) -> None:
        """Raise `TooManyAttempts`."""
        of_name, of_source = self._digests(name, source)
        if self._count(of_name) >= self.PER_NAME or self._count(of_source) >= self.PER_SOURCE:
            raise TooManyAttempts

    def attempt(self, name: str, source: str) -> None:
        """Take in an attempt before it is checked, so that those that come at once are bounded too.

        Raises `TooManyAttempts`.
        """
        self.check(name, source)
        for key in self._digests(name, source):
            self._failures[key].append(time.monotonic())
        if len(self._failures) > REMEMBERED:
            for key in list(self._failures):
                self._count(key)

    @contextlib.contextmanager
    def attempting(self, name: str, source: str) -> Generator[None]:
        """Take in an attempt, which a refusal as wrong leaves standing. Raises `TooManyAttempts`."""
        self.attempt(name, source)
        try:
            yield
        except Forbidden:
            raise  # the password was wrong
        except BaseException:
            self.succeeded(name, source)  # whether it was is not known
            raise
        self.succeeded(name, source)

    def succeeded(self, name: str, source: str) -> None:
        """Take an attempt back: the password was right."""
        for key in self._digests(name, source):
            if failures := self._failures.get(key):
                failures.pop()
                if not failures:
                    del self._failures[key]

    def _digests(self, name: str, source: str) -> tuple[str, str]:
        """Give what an attempt is counted under: the name from this address, and the address."""
        return self._digest(f"{source} {name}"), self._digest(source)

    def _digest(self, text: str) -> str:
        return hashlib.blake2b(text.encode(errors="surrogatepass"), key=self._key, digest_size=16).hexdigest()

    def _count(self, key: str) -> int:
        failures = self._failures.get(key)
        if failures is None:
            return 0
        while failures and failures[0] < time.monotonic() - self.WINDOW:
            failures.popleft()
        if not failures:
            del self._failures[key]
        return len(failures)

"""Ranges of positions and of times, both ends in them: how they are read, and written so that they read the same."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from msgspec import Struct

LAST_POSITION = 2**53
_TICK = timedelta(microseconds=1)
T = TypeVar("T", int, datetime)


class RangeError(Exception):
    """This is no range of positions or times; the message says what would be one."""


class Span(Struct, frozen=True):
    """Positions from `low` to `high`; none is no bound."""

    low: int | None
    high: int | None

    def holds(self, position: int) -> bool:
        """Whether a position lies in it."""
        return (self.low is None or self.low <= position) and (self.high is None or position <= self.high)

    def __str__(self) -> str:
        return _written(self.low, self.high, str)


class Period(Struct, frozen=True):
    """Times from `low` to `high`, in UTC; none is no bound."""

    low: datetime | None
    high: datetime | None

    def holds(self, at: datetime) -> bool:
        """Whether a time lies in it."""
        return (self.low is None or self.low <= at) and (self.high is None or at <= self.high)

    def __str__(self) -> str:
        return _written(self.low, self.high, lambda at: at.isoformat(timespec="microseconds").replace("+00:00", "Z"))


def span(text: str) -> Span:
    """Read `100`, `100..200`, `100..`, `..200`, `>=100`, `<200`; raises `RangeError`."""
    low, high = _bounds(text, _number, 1)
    if high is not None and high < 0:
        raise RangeError("Positions begin at 1.")
    return Span(low, high)


def period(text: str, now: datetime) -> Period:
    """Read the same of times. One that is less than a microsecond exact is all the time that it names.

    `2026-11`, `2026-11-23`, `2026-11-23T12:00`, with an offset if not in UTC; `now`, `today`, `yesterday`, and
    `2 hours ago`, which alone means since then. Raises `RangeError`.
    """
    if _AGO.fullmatch(text) or text == "now":
        return Period(_moment(text, now)[0], None)
    return Period(*_bounds(text, lambda part: _moment(part, now), _TICK))


def _bounds(text: str, read: Callable[[str], tuple[T, T]], step: int | timedelta) -> tuple[T | None, T | None]:
    try:
        if compared := re.fullmatch("(>=|<=|>|<)(.+)", text):
            low, high = read(compared[2].strip())
            bounds: dict[str, tuple[T | None, T | None]] = {
                ">=": (low, None),
                "<=": (None, high),
                ">": (high + step, None),  # pyright: ignore[reportOperatorIssue]
                "<": (None, low - step),  # pyright: ignore[reportOperatorIssue]
            }
            return bounds[compared[1]]
        first, dots, last = text.partition("..")
        if not dots:
            return read(text)
        if not first and not last:
            raise RangeError("A range has an end at least: 100.., ..200 or 100..200.")
        low, high = read(first)[0] if first else None, read(last)[1] if last else None
    except (OverflowError, ValueError):
        raise RangeError(f"{text[:60]!r} is no day or time that there is.") from None
    if low is not None and high is not None and high < low:
        raise RangeError(f"{text[:80]!r} ends before it begins.")
    return low, high


def _number(text: str) -> tuple[int, int]:
    if not re.fullmatch("[0-9]{1,16}", text) or int(text) > LAST_POSITION:
        raise RangeError(f"{text[:40]!r} is no position; write 100, 100..200, 100.., ..200, >=100 or <200.")
    return int(text), int(text)


_AGO = re.compile("([0-9]{1,6})[ -](second|minute|hour|day|week)s?[ -]ago")
_INSTANT = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2})(?:[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})"
    r"(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,6}))?)?(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})?)?)?)?"
)


def _moment(text: str, now: datetime) -> tuple[datetime, datetime]:
    """Give the first and the last microsecond that are meant."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        begin = midnight - timedelta(days=text == "yesterday")
        return begin, begin + timedelta(days=1) - _TICK
    if ago := _AGO.fullmatch(text):
        now -= timedelta(**{f"{ago[2]}s": int(ago[1])})
    if ago or text == "now":
        return now.astimezone(UTC), now.astimezone(UTC)
    found = _INSTANT.fullmatch(text)
    if not found:
        raise RangeError(f'{text[:40]!r} is no time; write 2026-11-23, 2026-11-23T12:00, today or "2 hours ago".')
    return _instant(found.groupdict())


def _instant(parts: dict[str, str | None]) -> tuple[datetime, datetime]:
    """Make the times; raises `ValueError` or `OverflowError` for those that there are not."""
    if not 1970 <= int(parts["year"] or 0) <= 9990:
        raise RangeError("A year is from 1970 to 9990.")
    numbers = {name: int(parts[name] or 0) for name in ("hour", "minute", "second")}
    offset = (parts["offset"] or "Z").replace("Z", "+0000").replace(":", "")
    zone = datetime.strptime(offset, "%z").tzinfo
    begin = datetime(
        int(parts["year"] or 0), int(parts["month"] or 1), int(parts["day"] or 1), tzinfo=zone, **numbers
    ).replace(microsecond=int((parts["fraction"] or "").ljust(6, "0")))
    return begin.astimezone(UTC), (_after(begin, parts) - _TICK).astimezone(UTC)


def _after(begin: datetime, parts: dict[str, str | None]) -> datetime:
    """Give the beginning of the next such year, month, day, minute, second or part of one."""
    if parts["month"] is None:
        return begin.replace(year=begin.year + 1)
    if parts["day"] is None:
        return (begin + timedelta(days=31)).replace(day=1)
    if parts["hour"] is None:
        return begin + timedelta(days=1)
    if parts["second"] is None:
        return begin + timedelta(minutes=1)
    return begin + (
        timedelta(microseconds=10 ** (6 - len(parts["fraction"]))) if parts["fraction"] else timedelta(seconds=1)
    )


def _written(low: T | None, high: T | None, write: Callable[[T], str]) -> str:
    if low == high and low is not None:
        return write(low)
    return f"{'' if low is None else write(low)}..{'' if high is None else write(high)}"

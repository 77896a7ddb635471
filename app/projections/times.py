"""Times as a person writes them: a position, ISO 8601, or "2 hours ago"."""

import re
from datetime import UTC, datetime, timedelta

from app.domain.audits import NOT_UNDERSTOOD

_AGO = re.compile(r"(\d{1,6})\s*(second|minute|hour|day|week)s?\s+ago", re.IGNORECASE)


def recorded(text: str | None, now: datetime) -> str:
    """Write a moment (none: now) as it may be kept of a question: what is no moment may be anything."""
    try:
        moment_of(text or "now", now)
    except ValueError:
        return NOT_UNDERSTOOD
    return text or "now"


def moment_of(text: str, now: datetime) -> int | datetime:
    """Read a position of the log or a time; one without an offset is UTC. Raises `ValueError` that says what is meant.

    "now", "yesterday" and "2 hours ago" are reckoned from `now`; a date alone is its first instant.
    """
    said = " ".join(text.split())
    if re.fullmatch(r"[0-9]{1,15}", said):
        return int(said)
    if said.lower() == "now":
        return now
    if said.lower() == "yesterday":
        return now - timedelta(days=1)
    try:
        if ago := _AGO.fullmatch(said):
            return now - timedelta(**{f"{ago[2].lower()}s": int(ago[1])})
        found = datetime.fromisoformat(said)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text} is no moment: write a position, a time like 2026-11-23T12:00:00Z, or “2 hours ago”."
        ) from None

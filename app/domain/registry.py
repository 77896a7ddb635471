"""Every noun of the domain, so that every event that was ever stored can be read. A new noun is one line here."""

from app.domain import (
    approvals,
    audits,
    command,
    exports,
    groups,
    notebooks,
    passwords,
    projects,
    pruning,
    purging,
    reports,
    retention,
    runs,
    signing,
    states,
    subjects,
    tokens,
    users,
)
from app.domain.event import Event, event_types

NOUNS = (
    command,
    users,
    passwords,
    tokens,
    groups,
    projects,
    notebooks,
    runs,
    reports,
    audits,
    subjects,
    states,
    approvals,
    retention,
    signing,
    exports,
    pruning,
    purging,
)

EVENTS: dict[str, type[Event]] = event_types()
"""The class of every event, by its stored name."""

"""Accesses: what was looked at, refused or noticed. It changed no state, is recorded, and nothing folds it."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta

from app.domain.errors import Forbidden
from app.domain.event import Access
from app.domain.groups import GroupName
from app.domain.names import NotebookName, Personal
from app.domain.projects import ProjectName

Question = Literal[
    "entries",
    "entry",
    "proof",
    "explain",
    "state",
    "diff",
    "blame",
    "subject",
    "export",
    "tail",
    "holds",
    "approvals",
    "verify",
    "read-models",
    "seals",
]
"""What somebody asked of the log."""

NOBODY = "(nobody)"
"""What is kept of a user name in a question that is nobody's: it may be the name of somebody who was erased."""

NOT_UNDERSTOOD = "(not understood)"
"""What is kept of a question, or a part of one, that means nothing: it may be anything."""

Reason = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}(?!\n)$")]
"""The kebab-case name of a refusal."""

Count = Annotated[int, Meta(ge=1, le=2**53 - 1)]


class AuditQueried(Access, frozen=True, kw_only=True):
    """Somebody read the log, or tried to. What they asked may name people, so it is personal."""

    question: Question
    about: Personal | None = None


class ProjectViewed(Access, frozen=True, kw_only=True):
    """Somebody read a private project."""

    project: ProjectName
    group: GroupName


class ProjectsListed(Access, frozen=True, kw_only=True):
    """Somebody was given a list with private projects in it; the entry's tags name them."""


class NotebookViewed(Access, frozen=True, kw_only=True):
    """Somebody read a notebook of a private project, or (`log`) what a notebook's container wrote last."""

    notebook: NotebookName
    project: ProjectName
    group: GroupName
    log: bool = False


class NotebooksListed(Access, frozen=True, kw_only=True):
    """Somebody was given a list with notebooks of private projects in it; the entry's tags name those projects."""


class GroupViewed(Access, frozen=True, kw_only=True):
    """Somebody read who belongs to a group."""

    group: GroupName


class UsersListed(Access, frozen=True, kw_only=True):
    """Somebody read the names of the people who have accounts."""


class VisitsListed(Access, frozen=True, kw_only=True):
    """A member read what administrators did in their group or project; the entry's tags name it."""


class RequestRefused(Access, frozen=True, kw_only=True):
    """Somebody who is known was refused before anything was decided; the reason is the entry's.

    `route` is the pattern of the address, never the address. `count` of them are told in one, where there were many.
    """

    method: Annotated[str, Meta(pattern=r"^[A-Z]{1,16}(?!\n)$")]
    route: Annotated[str, Meta(max_length=200)]
    count: Count = 1


class GuestsRefused(Access, frozen=True, kw_only=True):
    """Requests of nobody who is known were refused for one reason, so many in this time: nobody floods the log."""

    reason: Reason
    count: Count
    since: datetime
    until: datetime


class Heartbeat(Access, frozen=True, kw_only=True):
    """Nothing else happened for a while: a silence that is longer than this is one that has to be explained."""


class ClockSteppedBack(Access, frozen=True, kw_only=True):
    """The server's clock went back by so many whole seconds; entries keep the newest time until it has caught up."""

    seconds: Count


class AuditorsOnly(Forbidden):
    """Only auditors and administrators may read the audit log; with a token, its scope has to be `audit` or `admin`."""

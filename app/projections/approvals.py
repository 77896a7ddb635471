"""What waits for a second administrator: asked for by one, and neither given by another nor expired."""

from datetime import datetime

from msgspec import Struct

from app.audit.entry import Record
from app.audit.log import Log
from app.domain.approvals import About, Action, ApprovalGiven, ApprovalRequested
from app.domain.model import events
from app.domain.names import UserId
from app.domain.subjects import SubjectErased
from app.domain.users import UserRolesChanged
from app.projections.timeline import Names


class Pending(Struct, frozen=True):
    """What was asked for, and may happen until then; `username` is empty where it cannot be read any more."""

    action: Action
    about: About
    by: UserId
    username: str
    asked_at: datetime
    until: datetime
    position: int


Waiting = dict[tuple[Action, About], list[tuple[Record, ApprovalRequested]]]


class PendingApprovals:
    """Answers from the log itself: approvals are few."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._names = Names(log)

    async def pending(self, now: datetime) -> list[Pending]:
        """Tell what waits at that time, what was asked for first at the head."""
        page = await self._log.read((events(ApprovalRequested, ApprovalGiven, UserRolesChanged, SubjectErased),))
        waiting: Waiting = {}
        for record in page.records:
            match record.event:
                case ApprovalRequested() as asked if asked.until > now:
                    waiting.setdefault((asked.action, asked.about), []).append((record, asked))
                case ApprovalGiven() as given:
                    waiting.pop((given.action, given.about), None)
                case UserRolesChanged(user=user, administrator=False):
                    _withdraw(waiting, user)
                case SubjectErased(subject=subject):
                    _withdraw(waiting, subject.removeprefix("user:"))
                case _:
                    pass
        open_ = sorted((one for some in waiting.values() for one in some), key=lambda one: one[0].position)
        names = await self._names.usernames({asked.by for _, asked in open_})
        return [
            Pending(
                action=asked.action,
                about=asked.about,
                by=asked.by,
                username=names.get(asked.by, ""),
                asked_at=record.entry.at,
                until=asked.until,
                position=record.position,
            )
            for record, asked in open_
        ]


def _withdraw(waiting: Waiting, user: UserId) -> None:
    """Take out what was asked for by somebody who is an administrator no more: nobody can let it happen now."""
    for about, asked in waiting.items():
        waiting[about] = [one for one in asked if one[1].by != user]

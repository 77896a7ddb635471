"""Evictions: who may not be in a notebook any more is put out of it, and not only refused the next time.

A WebSocket is authorised once and may stay open for days. When a membership, a session, a token or a role ends, the
runs that it opened are told to close that user's sockets; whoever may still come in connects again by itself.
"""

import asyncio

import structlog

from app.audit.entry import Record
from app.domain.groups import GroupName, MemberRemoved
from app.domain.names import UserId
from app.domain.subjects import SubjectErased
from app.domain.tokens import TokenRevoked
from app.domain.users import LoggedOut, UserRolesChanged
from app.keys import Keys
from app.runtime.admissions import Admissions, Admitted
from app.runtime.asking import PROBLEMS, asking

AGAIN_AFTER = (0.0, 1.0, 3.0)
"""Seconds."""

_log = structlog.get_logger(__name__)


class Evictions:
    """Follows the log behind the admissions: the door refuses already when sockets are closed."""

    def __init__(self, admissions: Admissions, keys: Keys) -> None:
        self._admissions = admissions
        self._keys = keys
        self._at_once = asyncio.Semaphore(16)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Follow, and evict, until cancelled."""
        async for records in self._admissions.follow():
            for record in records:
                self._apply(record)

    def _apply(self, record: Record) -> None:
        if record.entry.type not in ("MemberRemoved", "LoggedOut", "TokenRevoked", "UserRolesChanged", "SubjectErased"):
            return
        match record.event:
            case MemberRemoved(user=user, group=group):
                self._evict(user, group)
            case LoggedOut(user=user) | TokenRevoked(user=user):
                self._evict(user)
            case UserRolesChanged(user=user, administrator=False, was_administrator=True):
                self._evict(user)
            case SubjectErased(subject=subject) if subject.startswith("user:"):
                self._evict(subject.removeprefix("user:"))
            case _:
                pass

    def _evict(self, user: UserId, group: GroupName | None = None) -> None:
        for run in self._admissions.ready_runs(group):
            task = asyncio.create_task(self._tell(run, user), name=f"evict {user}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell(self, run: Admitted, user: UserId) -> None:
        """Tell it now, and again: it may be busy, or about to take in a socket that was let in a moment ago."""
        for pause in AGAIN_AFTER:
            await asyncio.sleep(pause)
            try:
                async with (
                    self._at_once,
                    asking(run.upstream, self._keys.run_token(run.run)) as session,
                    session.post("/sophon/evict", params={"user": user}) as answer,
                ):
                    answer.raise_for_status()
            except PROBLEMS as error:
                _log.warning("eviction.failed", run=run.run, user=user, error=repr(error))

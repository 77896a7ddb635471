"""Evictions: who may not be in a notebook any more is put out of it, and not only refused the next time.

A WebSocket is authorised once and may stay open for days. When a membership, a session, a token or a role ends, or
expires, the runs that it opened are told to close that user's sockets; whoever may still come in connects again by
itself.
"""

import asyncio

import structlog

from app.audit.entry import Record
from app.audit.sealing.vault import Vault
from app.domain.groups import GroupName, MemberRemoved
from app.domain.names import UserId
from app.domain.passwords import PasswordChanged, PasswordReset
from app.domain.subjects import SubjectErased
from app.domain.tokens import TokenRevoked
from app.domain.users import LoggedOut, UserRolesChanged
from app.keys import Keys
from app.runtime.admissions import Admissions, Admitted
from app.runtime.asking import PROBLEMS, asking

ENDING = (
    *("MemberRemoved", "LoggedOut", "TokenRevoked", "UserRolesChanged", "SubjectErased"),
    *("PasswordReset", "PasswordChanged"),
)
"""What ends somebody's right to be somewhere, by stored name: whatever else is appended is not even read."""
AGAIN_AFTER = (0.0, 1.0, 3.0)
"""Seconds."""
LOOK, AHEAD = 5.0, 15.0
"""Seconds between two looks at what expires, and how far ahead each looks."""

_log = structlog.get_logger(__name__)


class Evictions:
    """Follows the log behind the admissions: the door refuses already when sockets are closed."""

    def __init__(self, admissions: Admissions, keys: Keys, vault: Vault) -> None:
        self._admissions = admissions
        self._keys = keys
        self._vault = vault
        self._at_once = asyncio.Semaphore(16)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Follow, and evict, until cancelled."""
        async for records in self._admissions.follow():
            for record in records:
                self._apply(record)

    async def expire(self) -> None:
        """Evict at the moment that a session or a token expires, of which the log says nothing; until cancelled."""
        awaited = set[str]()
        while True:
            soon = await self._vault.expiring(AHEAD)
            for id_, user, seconds in soon:
                if id_ not in awaited:
                    self._keep(asyncio.create_task(self._evict_after(seconds, user), name=f"expire {id_}"))
            awaited = {id_ for id_, _, _ in soon}
            await asyncio.sleep(LOOK)

    async def _evict_after(self, seconds: float, user: UserId) -> None:
        await asyncio.sleep(seconds)
        self._evict(user)

    def _apply(self, record: Record) -> None:
        if record.entry.type not in ENDING:
            return
        match record.event:
            case MemberRemoved(user=user, group=group):
                self._evict(user, group)
            case LoggedOut(user=user) | TokenRevoked(user=user) | PasswordReset(user=user) | PasswordChanged(user=user):
                self._evict(user)
            case UserRolesChanged(user=user, administrator=False, was_administrator=True):
                self._evict(user)
            case UserRolesChanged(user=user, auditor=True, was_auditor=False):
                self._evict(user)
            case SubjectErased(subject=subject) if subject.startswith("user:"):
                self._evict(subject.removeprefix("user:"))
            case _:
                pass

    def _evict(self, user: UserId, group: GroupName | None = None) -> None:
        for run in self._admissions.ready_runs(group):
            self._keep(asyncio.create_task(self._tell(run, user), name=f"evict {user}"))

    def _keep(self, task: asyncio.Task[None]) -> None:
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

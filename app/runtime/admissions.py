"""Admissions: who may enter which notebook, and where it answers. In memory, folded from the log as it grows."""

import asyncio
from collections.abc import AsyncGenerator

from msgspec import Struct

from app.audit.entry import Record
from app.audit.log import Log
from app.domain.command import Caller
from app.domain.groups import GroupCreated, GroupName, MemberAdded, MemberRemoved
from app.domain.model import Selection, events
from app.domain.names import NotebookName, UserId
from app.domain.notebooks import NOTEBOOK_EVENTS, Notebook
from app.domain.runs import RunId, Status, Upstream
from app.domain.subjects import SubjectErased
from app.domain.users import Administrators, UserCreated, UserRolesChanged

PAGE = 5_000
GROUP_EVENTS = (GroupCreated, MemberAdded, MemberRemoved)
ROLE_EVENTS = (UserCreated, UserRolesChanged, SubjectErased)
FOLDED = (*NOTEBOOK_EVENTS, *GROUP_EVENTS, *ROLE_EVENTS)
_TYPES = frozenset(event.__name__ for event in FOLDED)


class Unknown(Struct, frozen=True):
    """There is no such notebook."""


class NotAMember(Struct, frozen=True):
    """There is, and it is not theirs."""

    group: GroupName


class NotReady(Struct, frozen=True):
    """It is theirs, and does not run now."""

    group: GroupName
    status: Status


class Admitted(Struct, frozen=True):
    """They may enter; it answers at `upstream`. `administering`: not as members of its group."""

    upstream: Upstream
    run: RunId
    administering: bool = False


class Admissions:
    """Answers at once, from what the log says now: whoever is removed is refused with the next request."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._notebooks: dict[NotebookName, Notebook] = {}
        self._members: dict[GroupName, set[UserId]] = {}
        self._administrators = Administrators()
        self._auditors: set[UserId] = set()
        self._position = 0
        self.ready = asyncio.Event()

    async def follow(self) -> AsyncGenerator[list[Record]]:
        """Read the history, then take in what is appended, and hand it on once it is taken in."""
        selection: tuple[Selection, ...] = (events(*FOLDED),)
        page = await self._log.read(selection, self._position, PAGE)
        while page.records:
            self.apply(page.records)
            page = await self._log.read(selection, self._position, PAGE)
        self._position = max(self._position, page.head)
        self.ready.set()
        try:
            async for records in self._log.follow(self._position):
                self.apply(records)
                yield records
        finally:
            self.ready.clear()  # what is not followed may have changed, and opens nothing

    def apply(self, records: list[Record]) -> None:
        """Take in what happened."""
        for record in records:
            self._apply(record)
        self._position = records[-1].position

    def is_member(self, user: UserId, group: GroupName) -> bool:
        """Whether a user belongs to a group now."""
        return user in self._members.get(group, ())

    def ready_runs(self, group: GroupName | None = None) -> list[Admitted]:
        """Give the runs that can be entered, of one group or of all."""
        return [
            Admitted(one.upstream, one.run)
            for one in self._notebooks.values()
            if one.exists and group in (None, one.group) and one.status == "ready" and one.upstream and one.run
        ]

    def ask(self, notebook: NotebookName, caller: Caller) -> Unknown | NotAMember | NotReady | Admitted:
        """Tell whether somebody may enter a notebook, and where it is."""
        found = self._notebooks.get(notebook)
        if found is None or not found.exists or found.group is None:
            return Unknown()
        is_member = self.is_member(caller.user, found.group) and caller.user not in self._auditors
        if not (is_member or self.administers(caller)):
            return NotAMember(found.group)
        if found.status != "ready" or found.upstream is None or found.run is None:
            return NotReady(found.group, found.status)
        return Admitted(found.upstream, found.run, administering=not is_member)

    def administers(self, caller: Caller) -> bool:
        """Whether a caller may use an administrator's power: a pass may be older than the loss of the role."""
        return caller.administering and caller.user in self._administrators.users

    def _apply(self, record: Record) -> None:
        if record.entry.type not in _TYPES or not isinstance(record.event, FOLDED):
            return
        match record.event:
            case GroupCreated(group=group, owner=user) | MemberAdded(group=group, user=user):
                self._members.setdefault(group, set()).add(user)
            case MemberRemoved(group=group, user=user):
                self._members.get(group, set()).discard(user)
            case UserCreated() | UserRolesChanged() | SubjectErased() as event:
                self._administrators = self._administrators.evolve(event)
                if not isinstance(event, SubjectErased):
                    only_reads = event.auditor and not event.administrator
                    (self._auditors.add if only_reads else self._auditors.discard)(event.user)
            case event:
                known = self._notebooks.get(event.notebook, Notebook())
                self._notebooks[event.notebook] = known.evolve(event)

"""Random histories that could have happened: every event was decided by a command."""

import random

from app.audit.entry import Context
from app.audit.log import Log
from app.dispatch import Dispatch
from app.domain.command import Caller, Command
from app.domain.errors import Refusal
from app.domain.groups import AddMember, CreateGroup, RemoveMember
from app.domain.names import Personal
from app.domain.notebooks import CreateNotebook, DeleteNotebook, StartNotebook, StopNotebook
from app.domain.projects import CreateProject
from app.domain.reports import (
    ReportNotebookContainerCreated,
    ReportNotebookCreationBegan,
    ReportNotebookFailed,
    ReportNotebookReady,
    ReportNotebookStopped,
)
from app.domain.tokens import IssueToken, RevokeToken, Scope
from tests.audit.stored import SOON
from tests.domain.cast import ADA, BOB, EVE, GRACE, HERE, accounts, an_id

_USERS = (ADA, BOB, EVE, GRACE)
_GROUPS, _PROJECTS = ("lab", "mars"), ("apollo", "gemini", "viking")
_NOTEBOOKS = tuple(f"n-{n}" for n in range(6))


class History:
    """Carries out random commands; some are refused, as they would be."""

    def __init__(self, log: Log, seed: int) -> None:
        self._log = log
        self._dispatch = Dispatch(log)
        self._chance = random.Random(seed)
        self._runs = 0

    async def begin(self) -> None:
        await self._log.append([Context().draft(event) for event in accounts])
        for group in _GROUPS:
            await self._dispatch(CreateGroup(by=Caller(ADA), group=group, title=group), Context())

    async def go_on(self, commands: int) -> None:
        for _ in range(commands):
            try:
                await self._dispatch(self._command(), Context())
            except Refusal:
                continue

    def _command(self) -> Command:
        pick = self._chance.choice
        by, group, project, notebook = Caller(pick(_USERS[:3])), pick(_GROUPS), pick(_PROJECTS), pick(_NOTEBOOKS)
        ada, token = Caller(ADA), an_id("tok", self._chance.randrange(5))
        self._runs += 1
        run = an_id("run", self._chance.randint(max(1, self._runs - 12), self._runs))
        reports = (
            ReportNotebookCreationBegan(notebook=notebook, run=run),
            ReportNotebookContainerCreated(notebook=notebook, run=run),
            ReportNotebookReady(notebook=notebook, run=run, upstream=HERE),
            ReportNotebookFailed(notebook=notebook, run=run, reason="exited", exit_code=1, log=Personal("bye\n")),
            ReportNotebookStopped(notebook=notebook, run=run),
        )
        return pick(
            (
                AddMember(by=ada, group=group, user=pick(_USERS), role=pick(("member", "owner"))),
                RemoveMember(by=ada, group=group, user=pick(_USERS)),
                CreateProject(
                    by=by,
                    project=project,
                    group=group,
                    title=project,
                    visibility=pick(("public", "internal", "private")),
                ),
                CreateNotebook(by=by, notebook=notebook, project=project, group=group, title=notebook),
                *[StartNotebook(by=by, notebook=notebook, group=group, run=an_id("run", self._runs))] * 3,
                StopNotebook(by=by, notebook=notebook, group=group),
                DeleteNotebook(by=by, notebook=notebook, group=group) if self._runs % 5 == 0 else pick(reports),
                IssueToken(by=by, in_session=True, token=token, title="t", scopes=(Scope.READ,), expires=SOON),
                RevokeToken(by=by, token=token),
                *reports,
                *reports,
            )
        )

"""A log as an installation writes it: accounts, groups, projects, notebooks, mostly runs, and accesses in between."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from app.audit.entry import Actor, Context, Draft
from app.domain.command import CommandRefused
from app.domain.event import Event
from app.domain.groups import GroupCreated, MemberAdded
from app.domain.names import Personal
from app.domain.notebooks import NotebookCreated
from app.domain.projects import ProjectCreated
from app.domain.runs import (
    NotebookContainerCreated,
    NotebookCreationBegan,
    NotebookFailed,
    NotebookStarted,
    NotebookStartRequested,
    NotebookStopped,
    NotebookStopRequested,
)
from app.domain.tokens import Scope, TokenIssued
from app.domain.users import LoggedIn, LoggedOut, UserCreated
from app.identifiers import new_id

USERS, GROUPS = 100, 20


def drafts() -> Iterator[Draft]:
    """Give entries without end: a department settles in, and then works."""
    chance = random.Random(1)
    users = [new_id("usr") for _ in range(USERS)]
    contexts = [Context(actor=Actor(kind="user", id=user, via="session"), request=new_id("req")) for user in users]
    groups = [f"group-{number}" for number in range(GROUPS)]
    for event in _settle(users, groups):
        yield contexts[0].draft(event)
    notebooks: list[str] = []
    day = 0
    while True:
        day += 1
        context, user = chance.choice(list(zip(contexts, users, strict=True)))
        group = chance.choice(groups)
        for event in _day(day, user, group, chance, notebooks):
            yield context.draft(event)


def _settle(users: list[str], groups: list[str]) -> Iterator[Event]:
    for number, user in enumerate(users):
        name = Personal(f"user-{number}")
        yield UserCreated(user=user, username=name, digest=f"{number:026}", administrator=number == 0)
    for number, group in enumerate(groups):
        yield GroupCreated(group=group, title=group.title(), owner=users[number])
        for user in users[number : number + 10]:
            yield MemberAdded(group=group, user=user, role="member")


def _day(day: int, user: str, group: str, chance: random.Random, notebooks: list[str]) -> Iterator[Event]:
    """Log in, work on a notebook (sometimes a new one, in a new project), be refused something at times, log out."""
    session = new_id("ses")
    yield LoggedIn(user=user, session=session)
    if day % 4 == 1:
        project = f"project-{day}"
        yield ProjectCreated(project=project, group=group, title=f"Project {day}", visibility="internal")
        for number in (1, 2):
            notebooks.append(f"notebook-{day}-{number}")
            yield NotebookCreated(notebook=notebooks[-1], project=project, group=group, title=f"Notebook {number}")
    yield from _run(chance.choice(notebooks), fails=day % 10 == 0)
    if day % 20 == 0:
        expires = datetime.now(UTC) + timedelta(days=30)
        yield TokenIssued(token=new_id("tok"), user=user, title="Script", scopes=(Scope.READ,), expires=expires)
    if day % 5 == 0:
        yield CommandRefused(command="CreateNotebook")
    yield LoggedOut(user=user, session=session)


def _run(notebook: str, *, fails: bool) -> Iterator[Event]:
    run = new_id("run")
    yield NotebookStartRequested(notebook=notebook, run=run)
    yield NotebookCreationBegan(notebook=notebook, run=run)
    yield NotebookContainerCreated(notebook=notebook, run=run)
    if fails:
        yield NotebookFailed(notebook=notebook, run=run, reason="exited", exit_code=1)
        return
    yield NotebookStarted(notebook=notebook, run=run, upstream="127.0.0.1:49153")
    yield NotebookStopRequested(notebook=notebook, run=run)
    yield NotebookStopped(notebook=notebook, run=run)

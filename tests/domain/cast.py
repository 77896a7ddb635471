"""Who and what the tests tell of: Ada owns the Space Lab, Bob is in it, Eve is not, Grace administers."""

from app.domain.command import Caller
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
from app.domain.users import UserCreated


def an_id(prefix: str, number: int) -> str:
    """Make the same identifier each time."""
    return f"{prefix}_{number:026d}"


def a_digest(number: int) -> str:
    return f"{number:026d}"


ADA, BOB, EVE, GRACE = (an_id("usr", number) for number in range(1, 5))
RUN, NEXT_RUN = an_id("run", 1), an_id("run", 2)
LAB, APOLLO, PLOTS = "space-lab", "apollo", "apollo-plots"
HERE = "127.0.0.1:40001"

ada, bob, eve = Caller(ADA), Caller(BOB), Caller(EVE)
grace = Caller(GRACE, administering=True)
grace_as_anybody = Caller(GRACE, administering=False)


def account(user: str, name: str, *, administrator: bool = False, auditor: bool = False) -> UserCreated:
    digest = a_digest(int(user[4:]))
    return UserCreated(user=user, username=Personal(name), digest=digest, administrator=administrator, auditor=auditor)


accounts = (
    account(ADA, "ada"),
    account(BOB, "bob"),
    account(EVE, "eve"),
    account(GRACE, "grace", administrator=True),
)
lab = (
    *accounts,
    GroupCreated(group=LAB, title="Space Lab", owner=ADA),
    MemberAdded(group=LAB, user=BOB, role="member"),
)
apollo = (*lab, ProjectCreated(project=APOLLO, group=LAB, title="Apollo 11", visibility="private"))
plots = (*apollo, NotebookCreated(notebook=PLOTS, project=APOLLO, group=LAB, title="Plots"))

wanted = NotebookStartRequested(notebook=PLOTS, run=RUN)
began = NotebookCreationBegan(notebook=PLOTS, run=RUN)
created = NotebookContainerCreated(notebook=PLOTS, run=RUN)
ready = NotebookStarted(notebook=PLOTS, run=RUN, upstream=HERE)
failed = NotebookFailed(notebook=PLOTS, run=RUN, reason="exited", exit_code=1)
stopping = NotebookStopRequested(notebook=PLOTS, run=RUN)
stopped = NotebookStopped(notebook=PLOTS, run=RUN)

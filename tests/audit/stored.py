"""Every event that was ever shipped, as it stands in `stored.jsonl`, line by line. Both only grow, at their ends.

To ship a new event, add it here and run `python -m tests.audit.stored`, which writes the lines that are missing.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from msgspec.structs import replace

from app.audit.entry import Actor, Context, encode
from app.domain.approvals import ApprovalGiven, ApprovalRequested
from app.domain.audits import (
    AuditQueried,
    ClockSteppedBack,
    GroupViewed,
    GuestsRefused,
    Heartbeat,
    NotebooksListed,
    NotebookViewed,
    ProjectsListed,
    ProjectViewed,
    RequestRefused,
    UsersListed,
    VisitsListed,
)
from app.domain.command import CommandRefused
from app.domain.event import Event
from app.domain.exports import AuditExported, StateRecovered
from app.domain.groups import GroupCreated, MemberAdded, MemberRemoved
from app.domain.names import Personal
from app.domain.notebooks import NotebookCreated, NotebookDeleted, NotebookEntered
from app.domain.passwords import PasswordChanged, PasswordReset
from app.domain.projects import ProjectCreated
from app.domain.pruning import LogPruned, Pruned, PrunedClass
from app.domain.purging import NotebookPurged
from app.domain.retention import LegalHoldLifted, LegalHoldPlaced
from app.domain.runs import (
    NotebookContainerCreated,
    NotebookCreationBegan,
    NotebookFailed,
    NotebookStarted,
    NotebookStartRequested,
    NotebookStopped,
    NotebookStopRequested,
)
from app.domain.signing import CheckpointTimestamped, LogKeyRotated
from app.domain.states import StateRebuilt, StateRepaired, StateSealed, TableDigest
from app.domain.subjects import SubjectErased
from app.domain.tokens import Scope, TokenIssued, TokenRevoked, TokenUsed
from app.domain.users import LoggedIn, LoggedOut, LoginRefused, UserCreated, UserRolesChanged

_USER, _TOKEN, _RUN = (
    "usr_06dmq5v1c9t72r8k3f4g5h6j0n",
    "tok_06dmq5v1c9t72r8k3f4g5h6j0o",
    "run_06dmq5v1c9t72r8k3f4g5h6j0p",
)

EVER_SHIPPED: tuple[Event, ...] = (
    UserCreated(user=_USER, username=Personal("ada"), digest="0123456789abcdefghijklmnop", administrator=True),
    LoggedIn(user=_USER, session="ses_06dmq5v1c9t72r8k3f4g5h6j0q"),
    LoginRefused(user=_USER),
    LoggedOut(user=_USER, session="ses_06dmq5v1c9t72r8k3f4g5h6j0q"),
    CommandRefused(command="StartNotebook"),
    TokenIssued(
        token=_TOKEN,
        user=_USER,
        title="laptop",
        scopes=(Scope.READ, Scope.WRITE, Scope.NOTEBOOKS, Scope.ADMIN),
        expires=datetime(2027, 1, 1, tzinfo=UTC),
    ),
    TokenRevoked(token=_TOKEN, user=_USER),
    GroupCreated(group="space-lab", title="Space Lab ☾", owner=_USER),
    MemberAdded(group="space-lab", user=_USER, role="member"),
    MemberRemoved(group="space-lab", user=_USER),
    ProjectCreated(project="apollo", group="space-lab", title='Apollo "11"', visibility="internal"),
    NotebookCreated(notebook="apollo-plots", project="apollo", group="space-lab", title="Plots"),
    NotebookDeleted(notebook="apollo-plots", project="apollo", group="space-lab"),
    NotebookStartRequested(notebook="apollo-plots", run=_RUN),
    NotebookCreationBegan(notebook="apollo-plots", run=_RUN),
    NotebookContainerCreated(notebook="apollo-plots", run=_RUN),
    NotebookStarted(notebook="apollo-plots", run=_RUN, upstream="127.0.0.1:40001"),
    NotebookFailed(
        notebook="apollo-plots", run=_RUN, reason="out-of-memory", exit_code=137, log=Personal("Größe: 2 GB\nKilled\n")
    ),
    NotebookStopRequested(notebook="apollo-plots", run=_RUN),
    NotebookStopped(notebook="apollo-plots", run=_RUN),
    NotebookEntered(notebook="apollo-plots", user=_USER, session="ses_06dmq5v1c9t72r8k3f4g5h6j0q", administering=False),
    SubjectErased(subject=f"user:{_USER}"),
    UserRolesChanged(user=_USER, administrator=True, auditor=True, was_administrator=True, was_auditor=False),
    TokenUsed(token=_TOKEN, user=_USER),
    AuditQueried(question="entries", about=Personal("actor:ada")),
    ProjectViewed(project="apollo", group="space-lab"),
    ProjectsListed(),
    NotebookViewed(notebook="apollo-plots", project="apollo", group="space-lab", log=True),
    NotebooksListed(),
    GroupViewed(group="space-lab"),
    UsersListed(),
    VisitsListed(),
    RequestRefused(method="GET", route="/api/projects/{project}", count=3),
    GuestsRefused(
        reason="not-authenticated",
        count=7,
        since=datetime(2026, 11, 23, tzinfo=UTC),
        until=datetime(2026, 11, 23, 0, 1, tzinfo=UTC),
    ),
    Heartbeat(),
    ClockSteppedBack(seconds=2),
    ApprovalRequested(action="erase", about=f"user:{_USER}", by=_USER, until=datetime(2027, 1, 1, tzinfo=UTC)),
    ApprovalGiven(action="erase", about=f"user:{_USER}", by=_USER, asked=_USER),
    LegalHoldPlaced(about="project:apollo", reason=Personal("Case 42")),
    LegalHoldLifted(about="project:apollo"),
    # From here on what is sealed stands as digests; before, it stood in the clear.
    UserCreated(user=_USER, username=Personal("ada"), digest="0123456789abcdefghijklmnop", administrator=True),
    TokenIssued(
        token=_TOKEN, user=_USER, title="laptop", scopes=(Scope.READ,), expires=datetime(2027, 1, 1, tzinfo=UTC)
    ),
    GroupCreated(group="space-lab", title="Space Lab ☾", owner=_USER),
    ProjectCreated(project="apollo", group="space-lab", title='Apollo "11"', visibility="internal"),
    NotebookCreated(notebook="apollo-plots", project="apollo", group="space-lab", title="Plots"),
    NotebookFailed(notebook="apollo-plots", run=_RUN, reason="exited", exit_code=1, log=Personal("Größe")),
    NotebookFailed(notebook="apollo-plots", run=_RUN, reason="vanished"),
    LogKeyRotated(
        retired=("lab.example.org/log+ecce9acb+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",),
        keys=("lab.example.org/log+6d8125f1+AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",),
    ),
    StateSealed(position=48, shape="0123456789abcdef", digests=(TableDigest("projects", 1, 1, "0" * 64),)),
    StateRebuilt(position=48, shape="0123456789abcdef", entries=48, differences=1, tables=("projects", "notebooks")),
    StateRepaired(position=48, shape="0123456789abcdef", rows=1, tables=("projects",)),
    AuditExported(format="tiles", size=48),
    StateRecovered(head=40, size=48, root="0" * 64, sealed=2),
    LogPruned(
        before=40,
        entries=3,
        positions="0" * 64,
        size=48,
        root="0" * 64,
        classes=(PrunedClass(name="reads", until=datetime(2026, 11, 1, tzinfo=UTC)),),
    ),
    Pruned(by=54, of="reads"),
    StateRecovered(head=40, size=48, root="0" * 64, sealed=2, by=(_USER,)),
    CheckpointTimestamped(size=48, token="MAA="),
    NotebookPurged(notebook="apollo-plots"),
    PasswordReset(user=_USER),
    PasswordChanged(user=_USER, session="ses_06dmq5v1c9t72r8k3f4g5h6j0q"),
)

SOON = datetime(2030, 1, 1, tzinfo=UTC)

_FILE = Path(__file__).with_name("stored.jsonl")
_BY_ADA = Context(actor=Actor(kind="user", id=_USER, via="session"), request="req_1")


def line(number: int, event: Event) -> bytes:
    """Make a line with the same id and time at each call."""
    draft = replace(_BY_ADA.draft(event), id=str(UUID(int=0x01930000_0000_7000_8000_000000000000 + number)))
    at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=number, microseconds=123_456)
    return encode(draft.entry(at))


if __name__ == "__main__":
    known = _FILE.read_bytes().splitlines() if _FILE.exists() else []
    with _FILE.open("ab") as file:
        for number, event in enumerate(EVER_SHIPPED[len(known) :], len(known)):
            file.write(line(number, event) + b"\n")

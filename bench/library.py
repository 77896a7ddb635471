"""The peer of whole commands and of projections: the same little domain, said in `eventsourcing`'s own words.

It keeps what our command rests on (a group, a membership, a user, a project's name), decides the same, appends on the
same condition and projects the same row, with the library's own application, mapper, runner and view, on Postgres.
"""

import threading
from typing import Any

from eventsourcing.dcb.application import DCBApplication
from eventsourcing.dcb.domain import Selector, Slice, Tagged
from eventsourcing.dcb.msgpack import Decision
from eventsourcing.domain import event
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.utils import get_topic
from psycopg.sql import SQL, Identifier

from bench.server import parts


class UserCreated(Decision):
    """An account exists."""

    user: str
    administrator: bool


class GroupCreated(Decision):
    """A group exists."""

    group: str
    title: str
    owner: str


class MemberAdded(Decision):
    """Somebody belongs to a group."""

    group: str
    user: str
    role: str


class ProjectCreated(Decision):
    """A project exists in a group."""

    project: str
    group: str
    title: str
    visibility: str


class CreateProject(Slice[Decision]):
    """Begin a project in a group. Members do, and a name is used once."""

    def __init__(self, by: str, project: str, group: str, title: str) -> None:
        self.by, self.project, self.group, self.title = by, project, group, title
        self.group_exists = self.is_member = self.is_taken = False

    def consistency_boundary(self) -> list[Selector]:
        """Name what the decision rests on, as ours does."""
        here, who = f"group:{self.group}", f"user:{self.by}"
        return [
            Selector(types=[GroupCreated], tags=[here]),
            Selector(types=[MemberAdded], tags=[here, who]),
            Selector(types=[UserCreated], tags=[who]),
            Selector(types=[ProjectCreated], tags=[f"project:{self.project}"]),
        ]

    @event(GroupCreated)
    def _(self) -> None:
        self.group_exists = True

    @event(MemberAdded)
    def _(self) -> None:
        self.is_member = True

    @event(ProjectCreated)
    def _(self) -> None:
        self.is_taken = True

    def execute(self) -> None:
        """Decide."""
        if not self.group_exists or not self.is_member or self.is_taken:
            raise PermissionError
        tags = [f"project:{self.project}", f"group:{self.group}"]
        fact = ProjectCreated(self.project, self.group, self.title, "private")
        self.new_decisions.append(Tagged(tags, fact))


class ProjectsView(PostgresTrackingRecorder):
    """The read model's table: the columns and the index of ours."""

    def __init__(self, datastore: PostgresDatastore, **kwargs: Any) -> None:
        super().__init__(datastore, **kwargs)
        schema = Identifier(self.datastore.schema)
        self.sql_create_statements += [
            SQL(
                "CREATE TABLE IF NOT EXISTS {}.projects (slug text PRIMARY KEY, "
                '"group" text NOT NULL, title text NOT NULL, visibility text NOT NULL, position bigint NOT NULL)'
            ).format(schema),
            SQL('CREATE INDEX IF NOT EXISTS projects_group ON {}.projects ("group", slug)').format(schema),
        ]
        self._insert = SQL("INSERT INTO {}.projects VALUES (%s, %s, %s, %s, %s)").format(schema)

    def add(self, fact: ProjectCreated, tracking: Tracking) -> None:
        """Insert a row, and track it, in one transaction."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            row = (fact.project, fact.group, fact.title, fact.visibility, tracking.notification_id)
            cursor.execute(self._insert, row, prepare=True)


class Projects(Projection[ProjectsView]):
    """Project one event at a time, which is what the library's runner does."""

    topics = (get_topic(ProjectCreated),)
    until = 0
    """The position whose being applied sets `arrived`."""

    def __init__(self, view: ProjectsView) -> None:
        super().__init__(view)
        self.arrived = threading.Event()

    def process_event(self, domain_event: Tagged[ProjectCreated], tracking: Tracking) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Add the row."""
        self.view.add(domain_event.decision, tracking)
        if tracking.notification_id >= self.until:
            self.arrived.set()


Runner = ProjectionRunner[DCBApplication, ProjectsView]


def environment(log: str, view: str, connections: int) -> dict[str, str]:
    """Configure the library: events in one database, the view in the same or another, a connection for each caller."""
    chosen = {
        "PERSISTENCE_MODULE": "eventsourcing.dcb.postgres_tt",
        "MAPPER_TOPIC": "eventsourcing.dcb.msgpack:MessagePackMapper",
        "POSTGRES_PASSWORD": "none is asked for",
        "POSTGRES_POOL_SIZE": str(connections),
        "PROJECTS_PERSISTENCE_MODULE": "eventsourcing.postgres",
    }
    for prefix, dsn in (("", log), ("PROJECTS_", view)):
        where = parts(dsn)
        for name in ("dbname", "host", "user"):
            chosen[f"{prefix}POSTGRES_{name.upper()}"] = where[name]
        chosen[f"{prefix}POSTGRES_PORT"] = where.get("port", "5432")
    return chosen


def runner(env: dict[str, str]) -> Runner:
    """Start the application and, in a thread, its projection."""
    return ProjectionRunner(
        application_class=DCBApplication, projection_class=Projects, view_class=ProjectsView, env=env
    )


def begin_group(application: DCBApplication, user: str, group: str) -> None:
    """Record what the decision rests on."""
    who, here = f"user:{user}", f"group:{group}"
    application.events.append(
        [
            Tagged([who], UserCreated(user, administrator=False)),
            Tagged([here, "user:owner"], GroupCreated(group, "Space lab", "owner")),
            Tagged([here, who], MemberAdded(group, user, "member")),
        ]
    )


def create_project(application: DCBApplication, command: CreateProject) -> int:
    """Read, decide and append; return the position. `DCBApplication.do` is this, and keeps the position to itself."""
    decided = application.repository.advance(command)
    decided.execute()
    return application.repository.save(decided)

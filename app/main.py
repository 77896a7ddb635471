"""The composition root: the one place that knows everything, and makes one application of it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, Self

import psycopg
import psycopg_pool
import structlog
from litestar import Litestar
from litestar.di import Provide

from app import telemetry
from app.acts import Acts
from app.api import (
    approvals,
    audit,
    auth,
    docs,
    entrance,
    groups,
    health,
    holds,
    moments,
    notebooks,
    problems,
    projects,
    session,
    sight,
    subjects,
    tokens,
    transparency,
    users,
    visits,
)
from app.api.bodies import JsonRequest
from app.api.health import Fault
from app.audit.log import Log
from app.audit.retention import Retention
from app.audit.sealing.dossier import Dossiers
from app.audit.sealing.sealer import Sealer
from app.audit.sealing.sweeping import Sweeper
from app.audit.sealing.vault import Vault
from app.audit.signing.elsewhere import SignedElsewhere
from app.audit.signing.published import PublishedLog, proof_of
from app.audit.signing.signer import Signer, Watched
from app.audit.signing.store import Store
from app.audit.signing.timestamps import Timestamps
from app.audit.signing.tree import Tree
from app.audit.signing.witness_client import NoWitness, Witnesses
from app.audit.webhook import Target, Webhook
from app.dispatch import Context, Dispatch
from app.domain.names import Personal
from app.domain.users import Account, AlreadySetUp, CreateFirstAdministrator
from app.identifiers import new_id
from app.identity.identity import Identity
from app.keys import Keys
from app.projections.approvals import PendingApprovals
from app.projections.groups import Groups
from app.projections.moments import Moments
from app.projections.notebooks import Notebooks
from app.projections.projector import Projector
from app.projections.projects import Projects
from app.projections.seals import keep_sealing
from app.projections.timeline import Timeline
from app.projections.tokens import Tokens
from app.projections.users import Users
from app.projections.visits import Privacy, Visits
from app.settings import BadSetting, Settings
from app.tasks import end

_log = structlog.get_logger(__name__)

LARGEST_BODY = 64 * 1024
NOUNS = (
    session,
    tokens,
    users,
    groups,
    projects,
    notebooks,
    visits,
    audit,
    moments,
    subjects,
    approvals,
    holds,
    transparency,
    health,
    entrance,
)
"""Every module of the API. A new noun is one line here."""


class Platform:
    """All parts, put together on one log. Open it with `async with Platform.open(…)`: its tasks live as long."""

    def __init__(self, settings: Settings, keys: Keys, log: Log) -> None:
        self.settings = settings
        self.keys = keys
        self.log = log
        self.identity = Identity(log, Vault(log.pool), keys)
        self.projector = Projector(log)
        self.sweeper = Sweeper(log, Vault(log.pool), self.projector.reach)
        self.dispatch = Dispatch(log, self.projector)
        self.acts = Acts(self.dispatch, lambda: log.head)
        self.tree = Tree(log.pool)
        self.signer = signer_of(settings, keys, log, self.tree)
        self.timestamps = Timestamps.by(settings, log)
        self.webhook = Webhook(log, target) if (target := webhook_target(settings, keys)) else None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_set_up = False
        self._failing: dict[str, str] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings, keys: Keys, dsn: str) -> AsyncGenerator[Self]:
        """Open the log, and start what follows it."""
        async with Log.open(dsn, Sealer(keys.vault_key())) as log:
            platform = cls(settings, keys, log)
            await platform.signer.check()  # first of all: nothing may be appended to an older copy of the log
            platform.dispatch.can_write = await log.takes_changes()  # else health says so from the beginning
            await platform.identity.catch_up()
            platform.start("projector", platform.projector.run)
            platform.start("identity", platform.identity.run)
            platform.start("sweeper", platform.sweeper.run)
            platform.start("signer", platform.signer.run)
            platform.start("seals", lambda: keep_sealing(log))
            if platform.timestamps:
                platform.start("timestamps", platform.timestamps.run)
            if platform.webhook:
                platform.start("webhook", platform.webhook.run)
            platform.start("acts", lambda: platform.acts.run(settings.heartbeat))
            try:
                while not await platform.projector.reach(log.head) and platform.projector.failure is None:
                    pass  # after an upgrade it may rebuild, and says how far it is
                yield platform
            finally:
                await end(platform._tasks.values())
                await platform.acts.tell()

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something run as long as the platform does; should it fail, it begins again, and health says so."""
        self._tasks[name] = asyncio.create_task(self._keep_going(name, work), name=name)

    async def _keep_going(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await work()
                return
            except Exception as error:
                self._failing[name] = type(error).__name__
                _log.exception("task.begins_again", task=name)
            await asyncio.sleep(1)
            self._failing.pop(name, None)

    def faults(self) -> list[Fault]:
        """Say what is not as it should be, by part."""
        self._measure()
        found = [Fault(name, f"The {name} has stopped.") for name, task in self._tasks.items() if task.done()]
        found += [
            Fault(name, f"The {name} has failed ({error}) and begins again.") for name, error in self._failing.items()
        ]
        at, behind = self.projector.position, self.log.head - self.projector.position
        if self.projector.failure:
            found.append(Fault("read models", f"The read models have stopped at position {at}; see the server's log."))
        elif behind > 10_000:
            found.append(Fault("read models", f"The read models are {behind} entries behind."))
        if not self._is_set_up:
            found.append(Fault("first account", "The first account is not made yet."))
        if not self.log.is_reachable:
            found.append(Fault("database", "The database is away."))
        if not self.dispatch.can_write:
            said = "The log cannot be written: nothing can be changed, and what is read is not recorded."
            found.append(Fault("log", said))
        found += [Fault("signer", said) for said in self.signer.faults()]
        found += [Fault("timestamps", said) for said in (self.timestamps.faults() if self.timestamps else [])]
        if self.webhook and self.webhook.wrong:
            found.append(Fault("webhook", f"The webhook does not get on. {self.webhook.wrong}"))
        return found

    def _measure(self) -> None:
        telemetry.WRITABLE.set(self.dispatch.can_write)
        telemetry.SIGNED.set(self.signer.size)
        telemetry.CHECKPOINT_AGE.set(self.signer.age)
        telemetry.SIGNER_UP.set(self.signer.refusal is None)
        telemetry.HEAD.set(self.log.head)
        telemetry.APPLIED.set(self.projector.position)
        telemetry.PROJECTOR_UP.set(self.projector.failure is None)

    async def swept(self, position: int) -> None:
        """Wait until what was erased up to a position has left old versions of rows too."""
        while self.sweeper.swept < position:
            await asyncio.sleep(0.05)

    async def set_up(self, username: str, password: str) -> bool:
        """Make the first account, if there is none; tell whether it was made."""
        if await self.has_users():
            self._is_set_up = True
            return False
        user = new_id("usr")
        await self.identity.set_password(user, password)
        command = CreateFirstAdministrator(
            user=user, username=Personal(username), digest=self.identity.digest_of(username)
        )
        try:
            await self.dispatch(command, Context())
        except AlreadySetUp:
            await self.identity.forget_password(user)
            return False
        finally:
            self._is_set_up = await self.has_users()
        return True

    async def has_users(self) -> bool:
        """Whether anybody has an account."""
        return bool((await self.log.read(Account.any().selections, limit=1)).records)


def origin_of(settings: Settings, keys: Keys) -> str:
    """Name the log: as its signing keys do or, before there are any, as they will."""
    keyring = Store(settings.signer_directory).keyring()
    named = settings.log_origin or f"{settings.host}/{keys.installation}"
    return keyring.origin if keyring else named


def webhook_target(settings: Settings, keys: Keys) -> Target | None:
    """Say where entries are sent; none if nowhere."""
    if not (settings.webhook_url and settings.webhook_secret):
        return None
    return Target(settings.webhook_url, settings.webhook_secret, origin_of(settings, keys))


def signer_of(settings: Settings, keys: Keys, log: Log, tree: Tree) -> Signer | SignedElsewhere:
    """Make the signer of an installation's log or, where that is a process of its own, what stands for it here."""
    return own_signer(settings, origin_of(settings, keys), log, tree) if settings.signs else SignedElsewhere(log, tree)


def own_signer(settings: Settings, origin: str, log: Watched, tree: Tree) -> Signer:
    """Make a signer, and its way to the witnesses of the policy that was set."""
    path = settings.witness_policy
    try:
        witnesses = Witnesses.by(path, tree.consistency) if path else None
    except NoWitness as error:
        raise BadSetting(str(error)) from error
    return Signer(log, Store(settings.signer_directory), origin, witnesses)


def create_app(platform: Platform) -> Litestar:
    """Make the application that answers at the public address."""
    pool = platform.log.pool

    def given(value: object) -> Provide:
        return Provide(lambda: value, sync_to_thread=False)

    def faults() -> health.Faults:
        return platform.faults

    app = Litestar(
        route_handlers=[*(noun.routes for noun in NOUNS), docs.assets],
        dependencies={
            "settings": given(platform.settings),
            "identity": given(platform.identity),
            "dispatch": given(platform.dispatch),
            "acts": given(platform.acts),
            "projector": given(platform.projector),
            "users": given(Users(pool)),
            "tokens": given(Tokens(pool)),
            "groups": given(Groups(pool)),
            "projects": given(Projects(pool)),
            "notebooks": given(Notebooks(pool)),
            "privacy": given(Privacy(pool)),
            "visits": given(Visits(pool)),
            "dossiers": given(Dossiers(platform.log)),
            "retention": given(Retention(platform.log, platform.settings.retention)),
            "approvals": given(PendingApprovals(platform.log)),
            "timeline": given(Timeline(platform.log)),
            "moments": given(Moments(platform.log, partial(proof_of, platform.tree))),
            "faults": Provide(faults, sync_to_thread=False),
            "published": given(PublishedLog(platform.tree, platform.signer)),
            "context": Provide(auth.provide_context),
            "viewer": Provide(auth.provide_viewer),
            "asker": Provide(auth.provide_asker),
            "sight": Provide(sight.provide_sight),
        },
        middleware=[auth.Authentication],
        guards=[auth.guard],
        exception_handlers={
            **problems.HANDLERS,
            psycopg.OperationalError: problems.on_database_away,
            psycopg_pool.PoolTimeout: problems.on_database_away,
            psycopg.errors.ReadOnlySqlTransaction: problems.on_database_read_only,
            psycopg.errors.InsufficientPrivilege: problems.on_database_read_only,
        },
        openapi_config=docs.config(platform.identity.cookie),
        request_class=JsonRequest,
        plugins=[docs.StrictBodies(), docs.Security()],
        request_max_body_size=LARGEST_BODY,
        logging_config=None,
    )
    app.state.identity = platform.identity
    app.state.acts = platform.acts
    app.state.address = platform.settings.address
    return app

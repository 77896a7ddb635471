"""The composition root: all parts, put together on one log; for the application, and for commands that act."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Self

import structlog

from app import telemetry
from app.acts import Acts
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.audit.sealing.sweeping import Sweeper
from app.audit.sealing.vault import Vault
from app.audit.signing.elsewhere import SignedElsewhere
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
from app.installation import origin_of
from app.keys import Keys
from app.projections import leftovers
from app.projections.projector import Projector
from app.projections.seals import keep_sealing
from app.settings import BadSetting, Settings
from app.tasks import end
from app.telemetry import Fault

_log = structlog.get_logger(__name__)


class Platform:
    """All parts, put together on one log. Open it with `async with Platform.open(…)`: its tasks live as long."""

    def __init__(self, settings: Settings, keys: Keys, log: Log) -> None:
        self.settings = settings
        self.keys = keys
        self.log = log
        self.identity = Identity(log, Vault(log.pool), keys)
        self.projector = Projector(log)
        self.sweeper = Sweeper(log, Vault(log.pool), self._knows)
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
            if platform.timestamps:
                platform.start("timestamps", platform.timestamps.run)
            if platform.webhook:
                platform.start("webhook", platform.webhook.run)
            platform.start("acts", lambda: platform.acts.run(settings.heartbeat))
            try:
                while not await platform.projector.reach(log.head) and platform.projector.failure is None:
                    pass  # after an upgrade it may rebuild, and says how far it is
                # From now on there are people who wait: a rebuild rests for them as long as this is held.
                platform.start("seals", lambda: keep_sealing(log))
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

    async def _knows(self, position: int) -> bool:
        """Whether all read models, and those that are being made, know of an erasure at a position."""
        return await self.projector.reach(position) and await leftovers.know(self.log, position)

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

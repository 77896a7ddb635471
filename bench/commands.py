"""Whole commands with 32 callers: read what the decision rests on, decide, append, and see the read model caught up.

`CreateProject` in a group by one of its members: ours through `Dispatch` with a running `Projector`, beside the same
decision through `eventsourcing`'s DCB application, mapper, `ProjectionRunner` and `wait`, in threads. Its `wait` polls,
a tenth of a second at first, which alone bounds 32 callers; so the library is measured a second time without waiting
for its read model at all, though its runner runs, and ours does wait.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

from app.audit.entry import Actor, Context
from app.audit.log import Log
from app.dispatch import Dispatch
from app.domain.command import Caller
from app.domain.groups import AddMember, CreateGroup
from app.domain.names import Personal
from app.domain.projects import CreateProject
from app.domain.users import CreateFirstAdministrator, CreateUser
from app.identifiers import new_id
from app.projections.projector import Projector
from bench import library
from bench.loop import event_loop, rate_of_tasks, rate_of_threads
from bench.measure import Comparison, Effort, Target, alternate
from bench.server import SEALER, server

CALLERS = 32
GROUP = "space-lab"
_numbers = itertools.count()


def measure(effort: Effort) -> Iterator[Comparison]:
    """Compare with the library that waits for its read model, and with the library that does not."""
    for waits, target in ((True, Target(4.0)), (False, None)):
        with server() as postgres, event_loop() as loop, contextlib.ExitStack() as stack:
            ours = _ours(postgres.database())
            command = loop.run(ours.__aenter__())
            stack.callback(lambda: loop.run(ours.__aexit__(None, None, None)))  # noqa: B023
            theirs = _theirs(stack, postgres.database(), waits=waits)
            measured = alternate(
                effort.rounds,
                lambda: loop.run(rate_of_tasks(CALLERS, effort.seconds, command)),  # noqa: B023
                lambda: rate_of_threads(CALLERS, effort.seconds, theirs),  # noqa: B023
            )
        yield Comparison(
            what="whole commands, 32 callers",
            unit="1/s",
            peer=f"eventsourcing 9.5 DCB application {'and wait' if waits else 'without waiting for its read model'}",
            ours=measured[0],
            theirs=measured[1],
            target=target,
        )


@contextlib.asynccontextmanager
async def _ours(dsn: str) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    async with Log.open(dsn, SEALER) as log:
        projector = Projector(log)
        projecting = asyncio.create_task(projector.run())
        dispatch = Dispatch(log, projector)
        member = await _begin_group(dispatch)
        context = Context(actor=Actor(kind="user", id=member, via="session"), request=new_id("req"))

        async def command() -> None:
            name = f"project-{next(_numbers)}"
            wish = CreateProject(by=Caller(member), project=name, group=GROUP, title="Apollo")
            assert (await dispatch(wish, context)).seen

        yield command
        projecting.cancel()
        await asyncio.gather(projecting, return_exceptions=True)


async def _begin_group(dispatch: Dispatch) -> str:
    """Make a group with an owner and a member; return the member."""
    owner, member, context = new_id("usr"), new_id("usr"), Context()
    by = Caller(owner, administering=True)
    names = "0" * 26, "1" * 26
    await dispatch(CreateFirstAdministrator(user=owner, username=Personal("grace"), digest=names[0]), context)
    await dispatch(CreateUser(by=by, user=member, username=Personal("ada"), digest=names[1]), context)
    await dispatch(CreateGroup(by=by, group=GROUP, title="Space lab"), context)
    await dispatch(AddMember(by=by, group=GROUP, user=member), context)
    return member


def _theirs(stack: contextlib.ExitStack, dsn: str, *, waits: bool) -> Callable[[], object]:
    member = new_id("usr")
    running = stack.enter_context(library.runner(library.environment(dsn, dsn, CALLERS + 3)))
    library.begin_group(running.app, member, GROUP)

    def command() -> None:
        name = f"project-{next(_numbers)}"
        wish = library.CreateProject(by=member, project=name, group=GROUP, title="Apollo")
        position = library.create_project(running.app, wish)
        if waits:
            running.wait(position, timeout=60)

    return command

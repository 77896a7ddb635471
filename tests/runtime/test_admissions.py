"""Admissions: who may enter, and by what; a power that was taken opens nothing any more."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from app.audit.entry import Context
from app.audit.log import Log
from app.domain.event import Event
from app.domain.groups import MemberAdded, MemberRemoved
from app.domain.subjects import SubjectErased
from app.domain.users import UserRolesChanged
from app.runtime.admissions import Admissions, Admitted, NotAMember, NotReady, Unknown
from tests.database import end
from tests.domain.cast import (
    BOB,
    GRACE,
    HERE,
    LAB,
    PLOTS,
    RUN,
    bob,
    eve,
    grace,
    grace_as_anybody,
    plots,
    ready,
    stopping,
    wanted,
)

demoted = UserRolesChanged(user=GRACE, administrator=False, auditor=False, was_administrator=True, was_auditor=False)


@pytest.fixture
async def admissions(log: Log) -> AsyncIterator[Admissions]:
    """Admissions that follow the log of a lab whose notebook runs."""
    await log.append([Context().draft(event) for event in (*plots, wanted, ready)])
    admissions = Admissions(log)

    async def follow() -> None:
        async for _ in admissions.follow():
            pass

    following = asyncio.create_task(follow())
    await admissions.ready.wait()
    yield admissions
    await end(following)


async def happens(log: Log, events: Sequence[Event], admissions: Admissions) -> None:
    """Append, and wait until the admissions know it."""
    position = await log.append([Context().draft(event) for event in events])
    async with asyncio.timeout(10):
        while admissions._position < position:  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.005)


async def test_members_and_administrators_enter_and_it_is_told_which(admissions: Admissions) -> None:
    assert admissions.ask(PLOTS, bob) == Admitted(HERE, RUN)
    assert admissions.ask(PLOTS, grace) == Admitted(HERE, RUN, administering=True)
    assert admissions.ask(PLOTS, eve) == admissions.ask(PLOTS, grace_as_anybody) == NotAMember(LAB)
    assert admissions.ask("nothing", grace) == Unknown()


async def test_who_is_removed_is_refused(log: Log, admissions: Admissions) -> None:
    await happens(log, [MemberRemoved(group=LAB, user=BOB)], admissions)
    assert admissions.ask(PLOTS, bob) == NotAMember(LAB)


@pytest.mark.parametrize("end_of_it", [demoted, SubjectErased(subject=f"user:{GRACE}")])
async def test_an_older_pass_of_who_administers_no_more_opens_nothing(
    log: Log, admissions: Admissions, end_of_it: Event
) -> None:
    await happens(log, [end_of_it], admissions)
    assert admissions.ask(PLOTS, grace) == NotAMember(LAB)


async def test_an_administrator_who_is_a_member_enters_as_one(log: Log, admissions: Admissions) -> None:
    await happens(log, [MemberAdded(group=LAB, user=GRACE, role="member"), demoted], admissions)
    assert admissions.ask(PLOTS, grace) == Admitted(HERE, RUN)


async def test_an_auditor_enters_nothing_that_they_are_a_member_of(log: Log, admissions: Admissions) -> None:
    audits = UserRolesChanged(user=BOB, administrator=False, auditor=True, was_administrator=False, was_auditor=False)
    await happens(log, [audits], admissions)
    assert admissions.ask(PLOTS, bob) == NotAMember(LAB)
    no_more = UserRolesChanged(user=BOB, administrator=False, auditor=False, was_administrator=False, was_auditor=True)
    await happens(log, [no_more], admissions)
    assert admissions.ask(PLOTS, bob) == Admitted(HERE, RUN)


async def test_what_stops_is_not_entered(log: Log, admissions: Admissions) -> None:
    await happens(log, [stopping], admissions)
    assert admissions.ask(PLOTS, bob) == NotReady(LAB, "stopping")

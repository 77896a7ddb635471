"""Acts: what is remembered, so that the log is not flooded, is bounded and ends."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from app import acts, telemetry
from app.acts import Acts, Recently
from app.audit.entry import GUEST, Actor, Context, Draft
from app.audit.reader import Page
from app.dispatch import GUESTS, REFUSALS, Dispatch
from app.domain.command import Caller
from app.domain.names import Personal
from app.domain.users import AdministratorsOnly, CreateUser, LoginRefused
from tests.domain.cast import ADA, EVE, a_digest


def test_what_was_is_remembered_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1_000.0
    monkeypatch.setattr(acts.time, "monotonic", lambda: clock)
    recently = Recently(60)
    recently.add("a")
    clock += 59
    assert "a" in recently
    assert "b" not in recently
    clock += 2
    assert "a" not in recently


def test_the_oldest_is_forgotten_first_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "REMEMBERED", 3)
    recently = Recently(60)
    for key in ("a", "b", "c", "a", "d"):
        recently.add(key)
    assert [key for key in "abcd" if key in recently] == ["a", "c", "d"]


class Kept:
    """A log that keeps what it is given, and has nothing in it that a decision could rest on."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []

    async def read(self, *_: Any) -> Page:
        return Page([], 0)

    async def append(self, drafts: Sequence[Draft], _: Any = None) -> int:
        self.drafts += drafts
        return len(self.drafts)


async def test_ten_thousand_refusals_make_few_entries_and_none_is_lost() -> None:
    log = Kept()
    dispatch = Dispatch(cast("Any", log))
    counting = Acts(dispatch, lambda: 0)
    by_eve = Context(actor=Actor(kind="user", id=EVE, via="session"))
    command = CreateUser(by=Caller(EVE), user=ADA, username=Personal("ada"), digest=a_digest(1))
    for _ in range(10_000):
        with pytest.raises(AdministratorsOnly) as refusal:
            await dispatch(command, by_eve)
        if not refusal.value.recorded:
            await counting.refused("POST", "/api/users", refusal.value.problem(), by_eve)
        if not await counting.refused_access(LoginRefused(), Context(actor=GUEST), "bad-credentials"):
            await counting.refused("POST", "/api/session", "bad-credentials", Context(actor=GUEST))
    await counting.tell()
    assert len(log.drafts) == REFUSALS + GUESTS + 2
    for reason in ("administrators-only", "bad-credentials"):
        told = [msgspec.json.decode(one.data).get("count", 1) for one in log.drafts if one.reason == reason]
        assert sum(told) == 10_000, reason


async def test_what_there_is_no_room_to_count_rings_the_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "REMEMBERED", 1)
    counting = Acts(Dispatch(cast("Any", Kept())), lambda: 0)
    unrecorded = telemetry.UNRECORDED._value.get()  # pyright: ignore
    by_eve = Context(actor=Actor(kind="user", id=EVE, via="session"))
    for _ in range(REFUSALS + 2):
        await counting.refused("GET", "/api/users", "scope-missing", by_eve)
    assert telemetry.UNRECORDED._value.get() == unrecorded  # pyright: ignore
    await counting.refused("GET", "/api/groups", "scope-missing", by_eve)
    assert telemetry.UNRECORDED._value.get() == unrecorded + 1  # pyright: ignore

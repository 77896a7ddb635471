"""What somebody without the right brought about, or what a right that had ended still did."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.audit.signing.store import Store
from app.dispatch import Dispatch
from app.domain.audits import AuditQueried
from tests.questions.platform import Town, lab


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    """A platform with its administrator."""
    async with Town.open(dsn, tmp_path) as town:
        yield town


async def test_what_a_removed_administrator_asked_for_counts_no_more(town: Town) -> None:
    boss, ada = await town.person("boss", administrator=True), await town.person("ada")
    path = f"/api/audit/subjects/user/{ada.user}/erasure"
    assert (await boss.ask("POST", path, {})).status_code == 202
    await town.admin.do("PUT", f"/api/users/{boss.user}/roles", {"administrator": False, "auditor": False})
    answer = await town.admin.ask("POST", path, {})
    assert answer.json()["status"] == "requested", "the only administrator who is left has erased somebody alone"


async def test_who_may_not_rotate_keys_has_none_made(town: Town) -> None:
    eve = await town.person("eve")
    store = Store(town.platform.settings.signer_directory)
    while store.keyring() is None:
        await asyncio.sleep(0.05)
    assert (await eve.ask("POST", "/api/audit/rotations")).status_code == 403
    assert store.staged() is None


async def test_an_address_that_was_refused_unread_leaves_no_name_in_a_leaf(town: Town) -> None:
    ada, _ = await lab(town)
    reader = await town.bearer(ada, "read")
    before = town.head
    assert (await reader.ask("DELETE", "/api/groups/lab/members/jane-canary")).status_code == 403
    assert [record.position for record in await town.since(before) if b"jane-canary" in record.octets] == []


async def test_a_name_that_was_asked_for_in_the_log_is_erased_with_its_user(town: Town) -> None:
    boss, ada = await town.person("boss", administrator=True), await town.person("ada-canary")
    await town.admin.get("/api/audit/entries?q=actor:ada-canary")
    dry = await town.admin.ask("POST", "/api/audit/subjects/user/ada-canary/erasure", {"dry_run": True})
    assert dry.status_code == 200
    for asker in (boss, town.admin):
        await asker.do("POST", f"/api/audit/subjects/user/{ada.user}/erasure", {})
    dossier = await town.admin.ask("GET", f"/api/audit/subjects/user/{town.admin.user}?limit=200")
    assert "ada-canary" not in dossier.text


async def test_an_erased_name_is_not_remembered_by_what_bounds_wrong_passwords(town: Town) -> None:
    boss, ada = await town.person("boss", administrator=True), await town.person("ada-canary")
    for asker in (boss, town.admin):
        await asker.do("POST", f"/api/audit/subjects/user/{ada.user}/erasure", {})
    throttle = town.platform.identity._throttle  # pyright: ignore[reportPrivateUsage]
    assert not any("ada-canary" in key for key in throttle._failures)  # pyright: ignore[reportPrivateUsage]


async def test_nobody_is_told_that_a_user_is_held_who_does_not_exist(town: Town) -> None:
    answer = await town.admin.ask("PUT", "/api/audit/holds/user/usr_typo", {"reason": {"text": "a case"}})
    assert answer.status_code == 404


async def test_a_session_does_not_end_without_its_entry(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await town.person("ada")
    before = town.head

    async def killed(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(Dispatch, "record", killed)
        with contextlib.suppress(asyncio.CancelledError, RuntimeError):
            await ada.ask("DELETE", "/api/session")
    is_open = (await ada.ask("GET", "/api/session")).status_code == 200
    assert is_open or "LoggedOut" in await town.kinds(before)


async def asked_of(town: Town, after: int) -> list[str]:
    """Give what was kept of the questions that were asked after a position."""
    records = await town.since(after, "AuditQueried")
    async with town.platform.log.pool.connection() as connection:
        await town.platform.log.reveal(connection, records)
    asked = [record.event for record in records]
    return [event.about.text for event in asked if isinstance(event, AuditQueried) and event.about]


async def test_no_question_to_the_log_keeps_a_user_name(town: Town) -> None:
    ada = await town.person("ada-canary")
    for erased in (False, True):
        before, here = town.head, "(nobody)" if erased else ada.user
        for path in (
            "entries?q=actor:ada-canary,system,guest%20-subject:user/ada-canary%20resource:user/ada-canary,project/x",
            f"entries?q=actor:{ada.user}&tag=user:ada-canary&type=UserCreated",
            "entries?q=ada-canary&type=ada-canary",
            "tail?q=actor:ada-canary%20ada-canary",
            "state/user/ada-canary?as_of=ada-canary",
            "diff?from=1&to=2&resource=user/ada-canary",
            "diff?from=ada-canary&resource=person/ada-canary",
            "blame/user/ada-canary?field=administrator",
            "subjects/user/ada-canary",
            "subjects/user/usr_ada-canary",
            "subjects/project/ada.canary",
        ):
            await town.admin.ask("GET", f"/api/audit/{path}")
        assert await asked_of(town, before) == [
            f"actor:{here},system,guest -subject:user/{here} resource:user/{here},project/x",
            f"actor:{ada.user} type=UserCreated tag=user:{here}",
            "(not understood) type=(not understood)",
            "(not understood)",
            f"user/{here} (not understood)",
            f"1 2 user/{here}",
            "(not understood) now (not understood)",
            f"user/{here} administrator",
            f"user:{here}",
            "user:(nobody)",
            "project:(nobody)",
        ]
        if not erased:
            boss = await town.person("boss", administrator=True)
            for asker in (boss, town.admin):
                await asker.do("POST", f"/api/audit/subjects/user/{ada.user}/erasure", {})


async def test_what_nobody_could_be_called_is_neither_held_nor_erased_nor_filed(town: Town) -> None:
    before = town.head
    for name in ("user/usr_jane-canary", "user/jane-canary", "project/jane.canary", "group/jane_canary"):
        for method, path, body in (
            ("PUT", f"/api/audit/holds/{name}", {"reason": {"text": "a case"}}),
            ("POST", f"/api/audit/holds/{name}/lifting", None),
            ("POST", f"/api/audit/subjects/{name}/erasure", {}),
        ):
            assert (await town.admin.ask(method, path, body)).status_code == 404
    assert [record.position for record in await town.since(before) if b"canary" in record.octets] == []


async def test_whether_there_is_a_user_is_not_told_to_who_may_not_know(town: Town) -> None:
    eve = await town.person("eve")
    for name in ("admin", "nobody"):
        held = await eve.ask("PUT", f"/api/audit/holds/user/{name}", {"reason": {"text": "a case"}})
        lifted = await eve.ask("POST", f"/api/audit/holds/user/{name}/lifting")
        assert (held.status_code, lifted.status_code) == (403, 403)


async def test_what_waits_is_not_what_a_removed_administrator_asked_for(town: Town) -> None:
    boss, ada = await town.person("boss", administrator=True), await town.person("ada")
    await boss.ask("POST", f"/api/audit/subjects/user/{ada.user}/erasure", {})
    assert len((await town.admin.get("/api/audit/approvals"))["items"]) == 1
    await town.admin.do("PUT", f"/api/users/{boss.user}/roles", {"administrator": False, "auditor": False})
    assert (await town.admin.get("/api/audit/approvals"))["items"] == []

"""Passwords: changed by whoever knows them, reset by whoever has the machine, and never the end of an installation."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.domain.passwords import PasswordChanged, PasswordReset
from app.identity import hashing
from app.identity.throttle import Throttle
from tests.questions.platform import PASSWORD, Person, Town

ROOT = Path(__file__).parents[2]
ANOTHER = "another long password"
CHANGE = ("PUT", "/api/session/password")


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town.open(dsn, tmp_path / "server") as town:
        yield town


async def may_log_in(town: Town, username: str, password: str) -> bool:
    answer = await town.guest.ask("POST", "/api/session", {"username": username, "password": password})
    town.client.cookies.clear()
    return answer.status_code == 200


async def is_logged_in(person: Person) -> bool:
    return (await person.ask("GET", "/api/session")).status_code == 200


async def reset(town: Town, *words: str, given: str = "") -> tuple[int, str, str]:
    """Run the command beside the server; give its exit code, what it printed and what it said."""
    environment = {
        **os.environ,
        "SOPHON_DATABASE_URL": town.platform.log._dsn,  # pyright: ignore[reportPrivateUsage]
        "SOPHON_SECRET": "k" * 32,
        "SOPHON_DATA": str(town.platform.settings.data),
        "COLUMNS": "200",
    }
    command = (sys.executable, "-m", "app", "admin", "password", *words)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    printed, said = await asyncio.wait_for(process.communicate(given.encode()), 60)
    return process.returncode or 0, printed.decode(), said.decode()


async def test_a_first_password_that_was_lost_is_reset_on_the_machine_and_the_log_says_so(town: Town) -> None:
    before = town.head
    code, printed, said = await reset(town)
    assert code == 0, said
    password = printed.strip()
    assert len(password) >= 12
    assert not await may_log_in(town, "admin", PASSWORD)
    assert await may_log_in(town, "admin", password)
    assert not await is_logged_in(town.admin), "the sessions of the lost password end, in the server that is running"
    (found,) = await town.since(before, "PasswordReset")
    assert (found.event, found.entry.actor.kind) == (PasswordReset(user=town.admin.user), "system")
    assert password.encode() not in b"".join(record.octets for record in await town.since(0))


async def test_a_password_is_reset_to_what_comes_from_standard_input_for_the_account_that_is_named(town: Town) -> None:
    ada = await town.person("ada")
    code, printed, said = await reset(town, "ada", "--stdin", given=f"{ANOTHER}\n")
    assert (code, printed) == (0, ""), said
    assert ANOTHER not in said
    assert await may_log_in(town, "ada", ANOTHER)
    assert not await is_logged_in(ada)
    assert await is_logged_in(town.admin)


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [(("nobody",), "", "Nobody is called 'nobody'"), (("--stdin",), "short\n", "12 to 1024 characters")],
)
async def test_a_password_that_cannot_be_reset_is_told_in_a_sentence(
    town: Town, words: tuple[str, ...], given: str, said: str
) -> None:
    before = town.head
    code, printed, told = await reset(town, *words, given=given)
    assert (code, printed) == (2, "")
    assert said in told
    assert "Traceback" not in told
    assert not await town.since(before, "PasswordReset")
    assert await may_log_in(town, "admin", PASSWORD)


async def test_a_user_changes_their_password_and_their_other_sessions_end(town: Town) -> None:
    ada = await town.person("ada")
    elsewhere = await town.log_in("ada")
    program = await town.bearer(ada)
    before = town.head
    answer = await ada.ask(*CHANGE, {"old": PASSWORD, "new": ANOTHER})
    assert (answer.status_code, answer.headers["Sophon-Position"]) == (204, str(before + 1))
    assert await is_logged_in(ada)
    assert not await is_logged_in(elsewhere)
    assert await is_logged_in(program)
    assert not await may_log_in(town, "ada", PASSWORD)
    assert await may_log_in(town, "ada", ANOTHER)
    (changed,) = await town.since(before, "PasswordChanged")
    assert isinstance(changed.event, PasswordChanged)
    assert (changed.event.user, changed.entry.actor.id) == (ada.user, ada.user)
    everything = b"".join(record.octets for record in await town.since(0))
    assert not [secret for secret in (PASSWORD, ANOTHER) if secret.encode() in everything]


async def test_a_password_is_changed_only_by_who_knows_it_and_guesses_are_bounded_and_recorded(town: Town) -> None:
    ada = await town.person("ada")
    before = town.head
    answers = [await ada.ask(*CHANGE, {"old": f"guess {n}", "new": ANOTHER}) for n in range(Throttle.PER_NAME + 1)]
    problems = [answer.json()["type"] for answer in answers]
    assert problems == ["/problems/wrong-password"] * Throttle.PER_NAME + ["/problems/too-many-attempts"]
    assert (await ada.ask(*CHANGE, {"old": PASSWORD, "new": ANOTHER})).status_code == 429
    refused = [record.entry for record in await town.since(before)]
    assert {(entry.type, entry.reason) for entry in refused} == {("RequestRefused", "wrong-password")}
    assert {entry.actor.id for entry in refused} == {ada.user}
    assert await may_log_in(town, "ada", PASSWORD)
    assert answers[0].json()["errors"][0]["field"] == "old"


async def test_a_token_changes_no_password(town: Town) -> None:
    ada = await town.person("ada")
    program = await town.bearer(ada, "read", "write")
    answer = await program.ask(*CHANGE, {"old": PASSWORD, "new": ANOTHER})
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/not-by-token")
    assert await may_log_in(town, "ada", PASSWORD)


async def test_no_password_is_hashed_for_who_may_make_no_account(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await town.person("ada")
    hashed = list[str]()

    async def hash_none(password: str) -> str:
        hashed.append(password)
        raise AssertionError

    monkeypatch.setattr(town.platform.identity.hashing, "hash", hash_none)
    before = town.head
    answer = await ada.ask("POST", "/api/users", {"username": "may", "password": ANOTHER})
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/administrators-only")
    taken = await town.admin.ask("POST", "/api/users", {"username": "ada", "password": ANOTHER})
    assert (taken.status_code, taken.json()["type"]) == (409, "/problems/username-taken")
    assert not hashed
    assert [record.entry.reason for record in await town.since(before)] == ["administrators-only", "username-taken"]


async def test_more_logins_at_once_than_can_wait_are_sent_away_for_a_moment(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "WAITING", 0)
    answer = await town.guest.ask("POST", "/api/session", {"username": "admin", "password": PASSWORD})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/too-many-passwords")
    assert answer.headers["Retry-After"] == "1"


async def test_a_new_password_that_is_too_short_changes_nothing(town: Town) -> None:
    answer = await town.admin.ask(*CHANGE, {"old": PASSWORD, "new": "short"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "new")
    assert await may_log_in(town, "admin", PASSWORD)

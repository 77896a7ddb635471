"""Identity: passwords, sessions, tokens and tickets open what they should, as long as they should."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import argon2
import pytest

from app.audit.entry import Context
from app.audit.log import Log
from app.audit.sealing.vault import Vault
from app.domain.event import Event
from app.domain.names import Personal
from app.domain.passwords import PasswordChanged, PasswordReset
from app.domain.tokens import Scope, TokenIssued, TokenRevoked
from app.domain.users import LoggedOut, UserCreated
from app.identity import hashing as hashing_module
from app.identity import identity as identity_module
from app.identity import throttle as throttle_module
from app.identity.hashing import Hashing, TooManyPasswords, decoy
from app.identity.identity import BadCredentials, Identity
from app.identity.throttle import Throttle, TooManyAttempts
from app.keys import Keys
from tests.database import SEALER, end
from tests.domain.cast import ADA, BOB, GRACE, PLOTS, an_id

KEYS = Keys(b"k" * 32)
PASSWORD = "correct horse battery staple"
TOKEN = an_id("tok", 1)
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


def quick(log: Log) -> Identity:
    """An identity whose hashes are quick to make, and as quick to guess."""
    identity = Identity(log, Vault(log.pool), KEYS)
    identity.hashing = Hashing(argon2.PasswordHasher(1, 8, 1))
    return identity


@pytest.fixture
async def identity(log: Log) -> AsyncIterator[Identity]:
    """An identity that follows the log; Ada, Bob and Grace, who administers, have accounts with one password."""
    identity = quick(log)
    for user, name in ((ADA, "ada"), (BOB, "bob"), (GRACE, "grace")):
        created = UserCreated(
            user=user, username=Personal(name), digest=KEYS.username_digest(name), administrator=user == GRACE
        )
        await log.append([Context().draft(created)])
        await identity.set_password(user, PASSWORD)
    following = asyncio.create_task(identity.run())
    yield identity
    await end(following)


async def issue(identity: Identity, *scopes: Scope, expires: timedelta = timedelta(days=1)) -> str:
    secret, _ = await identity.open(GRACE, "token", TOKEN, scopes, datetime.now(UTC) + expires)
    return secret


async def test_the_right_password_opens_a_session(identity: Identity) -> None:
    secret, principal = await identity.log_in("ada", PASSWORD, HOME)
    assert (principal.user, principal.username, principal.administrator) == (ADA, "ada", False)
    assert principal.scopes == frozenset(Scope)
    assert await identity.who(secret, "session") == principal
    assert (principal.actor.id, principal.actor.via) == (ADA, "session")


async def test_only_an_administrator_administers(identity: Identity) -> None:
    _, ada = await identity.log_in("ada", PASSWORD, HOME)
    _, grace = await identity.log_in("grace", PASSWORD, HOME)
    assert not ada.caller.administering
    assert grace.caller.administering


async def test_a_wrong_password_opens_nothing_and_says_for_the_log_whose_it_was_not(identity: Identity) -> None:
    with pytest.raises(BadCredentials) as refusal:
        await identity.log_in("ada", "wrong", HOME)
    assert refusal.value.user == ADA
    assert ADA not in str(refusal.value)


async def test_a_name_that_is_nobodys_is_answered_like_a_wrong_password(identity: Identity) -> None:
    with pytest.raises(BadCredentials) as refusal:
        await identity.log_in("mallory", PASSWORD, HOME)
    with pytest.raises(BadCredentials) as other:
        await identity.log_in("ada", "wrong", HOME)
    assert refusal.value.user is None
    assert str(refusal.value) == str(other.value)


@pytest.mark.parametrize("hasher", [argon2.PasswordHasher(), argon2.PasswordHasher(1, 8, 1, 24, 12)])
def test_what_a_password_is_held_to_where_there_is_none_costs_as_much_as_a_hash(hasher: argon2.PasswordHasher) -> None:
    nobodys = decoy(hasher)
    assert argon2.extract_parameters(nobodys) == argon2.extract_parameters(hasher.hash(PASSWORD))
    with pytest.raises(argon2.exceptions.VerifyMismatchError):  # it was computed, and is another
        hasher.verify(nobodys, PASSWORD)


async def test_an_account_without_a_password_is_not_logged_in_to(identity: Identity) -> None:
    await identity.forget_password(BOB)
    with pytest.raises(BadCredentials):
        await identity.log_in("bob", PASSWORD, HOME)


async def test_the_old_password_opens_nothing_once_there_is_a_new_one(identity: Identity) -> None:
    await identity.set_password(ADA, "new")
    with pytest.raises(BadCredentials):
        await identity.log_in("ada", PASSWORD, HOME)
    await identity.log_in("ada", "new", HOME)


async def test_another_password_ends_every_session_of_its_user_but_the_one_that_is_kept(identity: Identity) -> None:
    (one, kept), (two, _), (bobs, _) = [await identity.log_in(name, PASSWORD, HOME) for name in ("ada", "ada", "bob")]
    token, _ = await identity.open(ADA, "token", TOKEN, (Scope.READ,), datetime.now(UTC) + timedelta(days=1))
    for secret in (one, two, bobs):
        assert await identity.who(secret, "session") is not None
    assert await identity.is_open(kept.key)
    await identity.replace_password(ADA, await identity.hashing.hash("another one"), keeping=kept.key)
    assert await identity.who(two, "session") is None
    assert await identity.who(one, "session") == kept
    assert await identity.who(bobs, "session") is not None
    assert await identity.who(token, "token") is not None
    await identity.replace_password(ADA, await identity.hashing.hash("a third"))
    assert await identity.who(one, "session") is None
    assert not await identity.is_open(kept.key)
    await identity.log_in("ada", "a third", HOME)


@pytest.mark.parametrize("event", [PasswordReset(user=ADA), PasswordChanged(user=ADA, session="ses_1")])
async def test_a_session_that_ends_with_its_password_in_another_process_opens_nothing_from_then_on(
    identity: Identity, log: Log, dsn: str, event: Event
) -> None:
    async with Log.open(dsn, SEALER) as other_log:
        other = quick(other_log)
        following = asyncio.create_task(other.run())
        secret, principal = await identity.log_in("ada", PASSWORD, HOME)
        await log.append([Context().draft(event)])
        async with asyncio.timeout(5):
            while not other._unsure_until:  # pyright: ignore[reportPrivateUsage]
                await asyncio.sleep(0.01)
        assert await other.who(secret, "session") is not None  # the entry is there, and the vault does not know yet
        assert await other.is_open(principal.key)
        await identity.replace_password(ADA, await identity.hashing.hash("another one"))
        assert await other.who(secret, "session") is None
        assert not await other.is_open(principal.key)
        await end(following)


async def test_a_login_that_is_under_way_while_the_password_is_replaced_opens_nothing(identity: Identity) -> None:
    verify = identity.hashing.verify

    async def verify_slowly(kept: str | None, password: str) -> bool:
        is_right = await verify(kept, password)
        await identity.replace_password(ADA, await identity.hashing.hash("another one"))
        return is_right

    identity.hashing.verify = verify_slowly
    with pytest.raises(BadCredentials):
        await identity.log_in("ada", PASSWORD, HOME)
    async with identity._log.pool.connection() as connection:  # pyright: ignore[reportPrivateUsage]
        assert await (await connection.execute("SELECT FROM vault.keys")).fetchall() == []


async def test_who_was_erased_is_given_no_password(identity: Identity, log: Log) -> None:
    async with log.pool.connection() as connection:
        await connection.execute("INSERT INTO vault.erased VALUES (%s, 1)", (f"user:{BOB}",))
    await identity.forget_password(BOB)
    await identity.replace_password(BOB, await identity.hashing.hash("another one"))
    with pytest.raises(BadCredentials):
        await identity.log_in("bob", "another one", HOME)


async def fail(identity: Identity, name: str, source: str, times: int) -> None:
    for _ in range(times):
        with pytest.raises(BadCredentials):
            await identity.log_in(name, "wrong", source)


async def test_after_ten_wrong_passwords_the_right_one_has_to_wait(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fail(identity, "ada", HOME, 10)
    with pytest.raises(TooManyAttempts):
        await identity.log_in("ada", PASSWORD, HOME)
    await identity.log_in("ada", PASSWORD, ELSEWHERE)
    await identity.log_in("bob", PASSWORD, HOME)
    now = identity_module.time.monotonic()
    monkeypatch.setattr(throttle_module.time, "monotonic", lambda: now + Throttle.WINDOW + 1)
    await identity.log_in("ada", PASSWORD, HOME)


async def test_an_address_that_tries_many_names_has_to_wait_too(identity: Identity) -> None:
    for n in range(10):
        await fail(identity, f"name-{n}", HOME, 10)
    with pytest.raises(TooManyAttempts):
        await identity.log_in("ada", PASSWORD, HOME)
    await identity.log_in("ada", PASSWORD, ELSEWHERE)


async def test_wrong_passwords_that_are_tried_all_at_once_are_bounded_too(identity: Identity) -> None:
    attempts = [identity.log_in("ada", f"guess {n}", HOME) for n in range(100)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(outcome, BadCredentials) for outcome in outcomes) <= Throttle.PER_NAME + 2
    assert {type(outcome) for outcome in outcomes} == {BadCredentials, TooManyAttempts}


async def test_only_so_many_passwords_wait_to_be_checked_and_who_is_sent_away_has_not_tried(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(argon2.PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
            time.sleep(0.05)
            return super().verify(hash, password)

    monkeypatch.setattr(hashing_module, "WAITING", 5)
    identity.hashing = Hashing(Slow(1, 8, 1))
    sent_away = 0
    while sent_away <= Throttle.PER_NAME:
        logins = [identity.log_in("ada", PASSWORD, HOME) for _ in range(Throttle.PER_NAME)]
        outcomes = await asyncio.gather(*logins, return_exceptions=True)
        assert {type(one) for one in outcomes if isinstance(one, Exception)} == {TooManyPasswords}
        sent_away += sum(isinstance(one, TooManyPasswords) for one in outcomes)
    await identity.log_in("ada", PASSWORD, HOME)


async def test_sessions_that_have_expired_are_dropped_when_another_begins(identity: Identity, log: Log) -> None:
    await identity.log_in("ada", PASSWORD, HOME)
    async with log.pool.connection() as connection:
        await connection.execute("UPDATE vault.keys SET expires = now() - interval '1 second'")
    _, newer = await identity.log_in("ada", PASSWORD, HOME)
    async with log.pool.connection() as connection:
        assert await (await connection.execute("SELECT id FROM vault.keys")).fetchall() == [(newer.key,)]


async def test_right_passwords_are_not_bounded(identity: Identity) -> None:
    for _ in range(2 * Throttle.PER_NAME):
        await identity.log_in("ada", PASSWORD, HOME)


def test_a_throttle_forgets_names_that_nobody_tries_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle_module, "REMEMBERED", 50)
    clock = [0.0]
    monkeypatch.setattr(throttle_module.time, "monotonic", lambda: clock[0])
    throttle = Throttle()
    for n in range(500):
        clock[0] += Throttle.WINDOW / 20
        throttle.attempt(f"name-{n}", f"source-{n}")
    assert len(throttle._failures) < 100  # pyright: ignore[reportPrivateUsage]


def test_a_throttle_keeps_no_name_and_no_address() -> None:
    throttle = Throttle()
    throttle.attempt("ada-canary", "192.0.2.77")
    kept = repr(vars(throttle))
    assert len(throttle._failures) == 2  # pyright: ignore[reportPrivateUsage]
    assert "canary" not in kept
    assert "192.0.2.77" not in kept
    throttle.succeeded("ada-canary", "192.0.2.77")
    throttle.succeeded("somebody-else", "192.0.2.78")
    assert not throttle._failures  # pyright: ignore[reportPrivateUsage]


async def test_a_token_opens_with_its_scopes_only(identity: Identity) -> None:
    reading = await identity.who(await issue(identity, Scope.READ), "token")
    assert reading is not None
    assert (reading.scopes, reading.key, reading.actor.via) == (frozenset({Scope.READ}), TOKEN, "token")
    assert reading.administrator
    assert not reading.caller.administering
    administering = await identity.who(await issue(identity, Scope.ADMIN), "token")
    assert administering is not None
    assert administering.caller.administering


async def test_a_token_is_no_session_and_a_session_no_token(identity: Identity) -> None:
    token = await issue(identity, Scope.READ)
    session, _ = await identity.log_in("ada", PASSWORD, HOME)
    for _ in range(2):
        assert await identity.who(token, "session") is None
        assert await identity.who(session, "token") is None
        assert await identity.who(token, "token") is not None
        assert await identity.who(session, "session") is not None


@pytest.mark.parametrize("secret", ["", "x", "é", "a" * 1000])
async def test_what_is_no_key_opens_nothing(identity: Identity, secret: str) -> None:
    assert await identity.who(secret, "session") is None


async def test_a_key_opens_nothing_once_it_has_expired_even_if_it_is_remembered(identity: Identity) -> None:
    secret = await issue(identity, Scope.READ, expires=timedelta(seconds=0.3))
    assert await identity.who(secret, "token") is not None
    await asyncio.sleep(0.35)
    assert await identity.who(secret, "token") is None


async def test_a_key_that_was_ended_opens_nothing_at_once(identity: Identity) -> None:
    secret, principal = await identity.log_in("ada", PASSWORD, HOME)
    assert await identity.who(secret, "session") is not None
    assert await identity.is_open(principal.key)
    await identity.end(principal.key)
    assert await identity.who(secret, "session") is None
    assert not await identity.is_open(principal.key)


async def test_ending_one_key_leaves_the_others_open(identity: Identity) -> None:
    one, principal = await identity.log_in("ada", PASSWORD, HOME)
    other, _ = await identity.log_in("ada", PASSWORD, HOME)
    await identity.end(principal.key)
    assert await identity.who(one, "session") is None
    assert await identity.who(other, "session") is not None


@pytest.mark.parametrize("kind", ["session", "token"])
async def test_a_key_that_was_ended_in_another_process_opens_nothing_as_soon_as_the_log_says_so(
    identity: Identity, log: Log, dsn: str, kind: str
) -> None:
    async with Log.open(dsn, SEALER) as other_log:
        other = quick(other_log)
        following = asyncio.create_task(other.run())
        await asyncio.sleep(0)
        if kind == "session":
            secret, principal = await identity.log_in("grace", PASSWORD, HOME)
            known, ended = await other.who(secret, "session"), LoggedOut(user=GRACE, session=principal.key)
        else:
            secret = await issue(identity, Scope.READ)
            known, ended = await other.who(secret, "token"), TokenRevoked(token=TOKEN, user=GRACE)
        assert known is not None
        assert await other.is_open(known.key)
        await log.append([Context().draft(ended)])
        async with asyncio.timeout(5):
            while await other.who(secret, known.kind) is not None:
                await asyncio.sleep(0.01)
        assert not await other.is_open(known.key)
        await end(following)


async def test_a_key_that_the_log_says_was_ended_stays_ended_when_the_process_died_before_the_vault_knew(
    identity: Identity, log: Log
) -> None:
    secret = await issue(identity, Scope.READ)
    issued = TokenIssued(token=TOKEN, user=GRACE, title="t", scopes=(Scope.READ,), expires=datetime.now(UTC))
    await log.append([Context().draft(issued), Context().draft(TokenRevoked(token=TOKEN, user=GRACE))])
    restarted = quick(log)
    await restarted.catch_up()
    assert await restarted.who(secret, "token") is None
    assert not await restarted.is_open(TOKEN)


async def test_a_session_that_the_log_says_was_ended_stays_ended_when_the_process_died_before_the_vault_knew(
    identity: Identity, log: Log
) -> None:
    secret, principal = await identity.log_in("ada", PASSWORD, HOME)
    other, _ = await identity.log_in("ada", PASSWORD, HOME)
    await log.append([Context().draft(LoggedOut(user=ADA, session=principal.key))])
    restarted = quick(log)
    await restarted.catch_up()
    assert await restarted.who(secret, "session") is None
    assert not await restarted.is_open(principal.key)
    assert await restarted.who(other, "session") is not None


async def test_a_ticket_leads_to_its_notebook_once(identity: Identity) -> None:
    _, ada = await identity.log_in("ada", PASSWORD, HOME)
    ticket = identity.passes.ticket(ada, PLOTS)
    found = await identity.passes.spend(ticket, PLOTS)
    assert found is not None
    assert (found.user, found.username, found.session, found.notebook) == (ADA, "ada", ada.key, PLOTS)
    assert await identity.passes.spend(ticket, PLOTS) is None


async def test_a_ticket_that_many_spend_at_once_is_spent_once(identity: Identity, dsn: str) -> None:
    _, ada = await identity.log_in("ada", PASSWORD, HOME)
    ticket = identity.passes.ticket(ada, PLOTS)
    async with Log.open(dsn, SEALER) as other_log:
        doors = [identity, quick(other_log)] * 10
        found = await asyncio.gather(*(door.passes.spend(ticket, PLOTS) for door in doors))
    assert sum(one is not None for one in found) == 1


async def test_a_ticket_to_one_notebook_opens_no_other_and_is_not_spent_by_trying(identity: Identity) -> None:
    _, ada = await identity.log_in("ada", PASSWORD, HOME)
    ticket = identity.passes.ticket(ada, PLOTS)
    assert await identity.passes.spend(ticket, "other") is None
    assert await identity.passes.spend(ticket, PLOTS) is not None


async def test_a_ticket_lasts_half_a_minute_and_a_pass_longer(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ada = await identity.log_in("ada", PASSWORD, HOME)
    ticket, late = identity.passes.ticket(ada, PLOTS), identity.passes.ticket(ada, PLOTS)
    found = await identity.passes.spend(ticket, PLOTS)
    assert found is not None
    signed = identity.passes.signed(found)
    now = identity_module.time.time()
    monkeypatch.setattr(identity_module.time, "time", lambda: now + 31)
    assert await identity.passes.spend(late, PLOTS) is None
    assert identity.passes.read(signed, PLOTS) is not None
    monkeypatch.setattr(identity_module.time, "time", lambda: now + identity_module.SESSION.total_seconds() + 1)
    assert identity.passes.read(signed, PLOTS) is None


async def test_a_ticket_is_no_pass_and_a_pass_no_ticket(identity: Identity) -> None:
    _, ada = await identity.log_in("ada", PASSWORD, HOME)
    ticket = identity.passes.ticket(ada, PLOTS)
    assert identity.passes.read(ticket, PLOTS) is None
    found = await identity.passes.spend(ticket, PLOTS)
    assert found is not None
    assert await identity.passes.spend(identity.passes.signed(found), PLOTS) is None


async def test_a_ticket_that_was_tampered_with_opens_nothing(identity: Identity) -> None:
    _, ada = await identity.log_in("ada", PASSWORD, HOME)
    ticket = identity.passes.ticket(ada, PLOTS)
    text, _, mark = ticket.partition(".")
    forged = Identity(identity._log, identity._vault, Keys(b"o" * 32)).passes.ticket(ada, PLOTS)  # pyright: ignore[reportPrivateUsage]
    for wrong in (
        "",
        ".",
        text,
        f"{text}.",
        f"{text}=.{mark}",
        f"A{ticket}",
        f"{ticket}0",
        f"{ticket}.",
        forged,
        "é.é",
        "x" * 3_000,
    ):
        assert await identity.passes.spend(wrong, PLOTS) is None
    assert await identity.passes.spend(ticket, PLOTS) is not None


async def test_a_page_of_one_session_sends_no_change_in_another(identity: Identity) -> None:
    _, one = await identity.log_in("ada", PASSWORD, HOME)
    _, other = await identity.log_in("ada", PASSWORD, HOME)
    assert identity.csrf_token(one) == identity.csrf_token(one) != identity.csrf_token(other)


async def test_no_secret_stands_in_the_log_or_in_plain_in_the_vault(identity: Identity, log: Log) -> None:
    session, principal = await identity.log_in("grace", PASSWORD, HOME)
    token, ticket = await issue(identity, Scope.READ), identity.passes.ticket(principal, PLOTS)
    await identity.passes.spend(ticket, PLOTS)
    with pytest.raises(BadCredentials):
        await identity.log_in("ada", "a password typed wrong", HOME)
    async with log.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT bytes::text FROM audit.entries UNION ALL SELECT p::text FROM vault.passwords AS p"
            " UNION ALL SELECT k::text FROM vault.keys AS k"
        )
        rows = await cursor.fetchall()
    everything = "\n".join(text for (text,) in rows)
    assert "$argon2id$" in everything
    for secret in (PASSWORD, session, token, ticket, "a password typed wrong", HOME):
        assert secret not in everything
        assert secret.encode().hex() not in everything


async def test_only_so_many_keys_are_remembered(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_module, "REMEMBERED", 3)
    secrets = [await issue(identity, Scope.READ) for _ in range(6)]
    for secret in secrets * 2:
        assert await identity.who(secret, "token") is not None
    assert len(identity._remembered) <= 3  # pyright: ignore[reportPrivateUsage]

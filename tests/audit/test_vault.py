"""The vault: keys open once they are kept, until they expire or are dropped."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import AsyncConnection
from psycopg.errors import ReadOnlySqlTransaction
from psycopg_pool import AsyncConnectionPool

from app.audit.log import Log
from app.audit.sealing.vault import Key, KeyKind, Vault
from app.domain.subjects import SubjectErased
from tests.audit.signed import superuser
from tests.database import SEALER
from tests.domain.cast import ADA, accounts
from tests.projections.test_read_models import happen

SECRET, OTHER = b"s" * 32, b"o" * 32


@pytest.fixture
def vault(log: Log) -> Vault:
    return Vault(log.pool)


def key(kind: KeyKind = "session", id_: str = "ses_1", seconds: float = 60) -> Key:
    return Key(kind, id_, "usr_1", ("read", "write"), datetime.now(UTC) + timedelta(seconds=seconds))


async def test_a_key_that_is_kept_is_found(vault: Vault) -> None:
    kept = key()
    await vault.keep(SECRET, kept)
    assert await vault.find(SECRET, "session") == kept
    left = await vault.seconds_left("ses_1")
    assert left is not None
    assert 0 < left <= 60


async def test_a_key_that_was_not_kept_is_not_found(vault: Vault) -> None:
    await vault.keep(SECRET, key())
    assert await vault.find(OTHER, "session") is None
    assert await vault.seconds_left("ses_2") is None


async def test_a_key_of_one_kind_is_none_of_another(vault: Vault) -> None:
    await vault.keep(SECRET, key())
    assert await vault.find(SECRET, "token") is None
    assert await vault.find(SECRET, "ticket") is None
    assert await vault.find(SECRET, "session") is not None


async def test_a_key_that_has_expired_opens_nothing_and_is_let_go_of(vault: Vault, log: Log) -> None:
    await vault.keep(SECRET, key(seconds=-1))
    assert await vault.find(SECRET, "session") is None
    assert await vault.seconds_left("ses_1") is None
    await vault.keep(OTHER, key(id_="ses_2"))
    async with log.pool.connection() as connection:
        cursor = await connection.execute("SELECT id FROM vault.keys")
        assert await cursor.fetchall() == [("ses_2",)]


async def test_it_names_the_sessions_and_tokens_that_expire_soon_and_no_ticket(vault: Vault) -> None:
    kept = [
        key(id_="ses_1", seconds=5),
        key("token", "tok_1", 9),
        key("ticket", "plots", 5),
        key(id_="ses_2"),
        key(id_="ses_3", seconds=-1),
    ]
    for number, one in enumerate(kept):
        await vault.keep(bytes([number]) * 32, one)
    soon = await vault.expiring(10)
    assert sorted((id_, user) for id_, user, _ in soon) == [("ses_1", "usr_1"), ("tok_1", "usr_1")]
    assert all(0 < seconds <= 10 for _, _, seconds in soon)


async def test_a_key_is_kept_once(vault: Vault) -> None:
    assert await vault.keep(SECRET, key("ticket"))
    assert not await vault.keep(SECRET, key("ticket"))
    assert sorted(await asyncio.gather(*(vault.keep(OTHER, key("ticket")) for _ in range(10)))) == [False] * 9 + [True]


async def test_dropping_a_session_drops_nothing_else(vault: Vault) -> None:
    await vault.keep(SECRET, key())
    await vault.keep(b"t" * 32, key("token", "tok_1"))
    await vault.drop("ses_1")
    await vault.drop("ses_1")
    assert await vault.find(SECRET, "session") is None
    assert await vault.find(b"t" * 32, "token") is not None


async def test_a_password_is_kept_replaced_and_forgotten(vault: Vault) -> None:
    assert await vault.password("usr_1") is None
    await vault.set_password("usr_1", "$argon2id$1")
    await vault.set_password("usr_2", "$argon2id$2")
    await vault.set_password("usr_1", "$argon2id$3")
    assert await vault.password("usr_1") == "$argon2id$3"
    await vault.forget_password("usr_1")
    assert await vault.password("usr_1") is None
    assert await vault.password("usr_2") == "$argon2id$2"


@contextlib.asynccontextmanager
async def read_only(dsn: str) -> AsyncGenerator[Vault]:
    """Give a vault whose every connection takes no changes."""
    options = {"autocommit": True, "options": "-c default_transaction_read_only=on"}
    async with AsyncConnectionPool(
        dsn, connection_class=AsyncConnection, kwargs=options, min_size=1, open=False
    ) as pool:
        yield Vault(pool)


async def test_where_the_database_takes_no_changes_what_should_be_gone_is_named(dsn: str, vault: Vault) -> None:
    await vault.keep(OTHER, key("token", "tok_1"))
    async with read_only(dsn) as unchanging:
        assert await unchanging.drop_ended(["tok_1", "tok_2"]) == ["tok_1"]
    assert await vault.drop_ended(["tok_1"]) == []
    assert await vault.find(OTHER, "token") is None


async def test_where_the_database_takes_no_changes_nothing_goes_on_with_what_was_to_be_erased(dsn: str) -> None:
    async with Log.open(dsn, SEALER) as log:
        await happen(log, *accounts, SubjectErased(subject=f"user:{ADA}"))
    async with read_only(dsn) as vault:
        await vault.erase_again()
        with superuser(dsn) as connection:
            connection.execute("INSERT INTO vault.passwords VALUES (%s, 'from a backup')", (ADA,))
        with pytest.raises(ReadOnlySqlTransaction):
            await vault.erase_again()

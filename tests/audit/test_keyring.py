"""What is sealed goes into the vault with its entry, both or neither; and what was erased is never read again."""

import asyncio
import gc
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.audit import writer
from app.audit.database.provision import create_schema
from app.audit.entry import GUEST, Actor, Context, Record
from app.audit.log import Log
from app.audit.query import language
from app.audit.sealing import keyring as keyring_module
from app.audit.sealing.keyring import Keyring
from app.audit.sealing.sealer import Sealer, digest_of
from app.audit.sealing.sweeping import Sweeper
from app.audit.sealing.vault import Vault
from app.audit.writer import LogUnavailable
from app.domain.event import Event
from app.domain.names import ERASED
from app.domain.projects import ProjectCreated
from app.domain.subjects import SubjectErased
from app.domain.users import LoggedOut, UserCreated
from app.settings import BadSetting
from tests.database import SEALER, PrivateServer, end
from tests.domain.cast import ADA, APOLLO, LAB, account, accounts, plots

ROOT = Path(__file__).parents[2]
HOME = "192.0.2.1"
ADAS = f"user:{ADA}"
BY_ADA = Context(actor=Actor(kind="user", id=ADA, via="session"))
AT_HOME = Context(actor=Actor(kind="user", id=ADA, via="session"), source=HOME)
APOLLO_11 = ProjectCreated(project=APOLLO, group=LAB, title="Apollo 11", visibility="private")


async def happen(log: Log, *events: Event, context: Context = BY_ADA) -> int:
    return await log.append([context.draft(event) for event in events])


async def erase(log: Log, subject: str = ADAS) -> int:
    return await happen(log, SubjectErased(subject=subject))


async def revealed(log: Log) -> Sequence[Record]:
    page = await log.read()
    async with log.pool.connection() as connection:
        return await log.reveal(connection, page.records)


async def rows(log: Log, query: str) -> list[tuple[Any, ...]]:
    async with log.pool.connection() as connection:
        return await (await connection.execute(query.encode())).fetchall()


async def names(log: Log) -> list[str]:
    return [event.username.text for record in await revealed(log) if isinstance(event := record.event, UserCreated)]


async def test_what_was_sealed_is_revealed_and_otherwise_reads_as_erased(log: Log) -> None:
    await happen(log, *plots)
    assert [record.event for record in await revealed(log)] == list(plots)
    unrevealed = [record.event for record in (await log.read()).records]
    assert [event.username.text for event in unrevealed if isinstance(event, UserCreated)] == [ERASED] * 4


async def test_an_event_without_anything_personal_costs_no_row_and_no_question(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keyring, "open", pytest.fail)
    await happen(log, LoggedOut(user=ADA, session="s"))
    await revealed(log)
    assert await rows(log, "SELECT FROM vault.disclosures UNION ALL SELECT FROM vault.subject_keys") == []


async def test_each_subject_has_one_key_in_all_processes(log: Log, dsn: str) -> None:
    async with Log.open(dsn, SEALER) as other:
        await asyncio.gather(*(happen(one, account(ADA, "ada")) for one in [log, other] * 20))
        assert await names(log) == await names(other) == ["ada"] * 40
    assert len(await rows(log, "SELECT FROM vault.subject_keys")) == 1


async def test_one_address_of_one_user_is_disclosed_once_a_day_and_process(log: Log, dsn: str) -> None:
    for _ in range(3):
        await happen(log, LoggedOut(user=ADA, session="s"), context=AT_HOME)
        await happen(log, LoggedOut(user=ADA, session="s"), context=Context(actor=GUEST, source=HOME))
    assert sorted(await rows(log, "SELECT subject, name, position FROM vault.disclosures")) == [
        ("guest", "address", 2),
        (ADAS, "address", 1),
    ]
    records = await revealed(log)
    assert len({record.digests[0] for record in records}) == 2
    assert {bytes(record.disclosures[0].value) for record in records} == {b'"192.0.2.1"'}
    assert all(json.loads(record.octets)["source"] == {"_sd": record.digests} for record in records)
    found = await rows(
        log,
        "SELECT count(*) FROM audit.entries WHERE bytes #>> '{source,_sd,0}' IN (SELECT digest FROM vault.disclosures"
        f" WHERE lookup = '\\x{SEALER.lookup('address', HOME).hex()}' AND subject = '{ADAS}')",
    )
    assert found == [(3,)]


async def test_what_was_erased_is_read_nowhere_and_its_bytes_stay(log: Log, dsn: str) -> None:
    await happen(log, *plots, context=AT_HOME)
    before = [record.octets for record in (await log.read()).records]
    async with Log.open(dsn, SEALER) as other:
        await revealed(other)
        position = await erase(log)
        for one in (log, other):
            assert await names(one) == [ERASED, "bob", "eve", "grace"]
    assert [record.octets for record in (await log.read(limit=position - 1)).records] == before
    kept = await rows(log, f"SELECT sealed, lookup, key FROM vault.disclosures WHERE subject = '{ADAS}'")
    assert [row[:2] for row in kept] == [(None, None)] * 2
    assert await rows(log, f"SELECT FROM vault.subject_keys WHERE subject = '{ADAS}'") == []


async def test_what_is_said_later_of_an_erased_user_is_kept_nowhere(log: Log, dsn: str) -> None:
    async with Log.open(dsn, SEALER) as other:
        await happen(other, account(ADA, "ada"))
        await erase(log)
        for one in (other, log, other):
            await happen(one, account(ADA, "ada"), context=AT_HOME)
        assert await names(other) == [ERASED] * 4
    assert await rows(log, "SELECT FROM vault.subject_keys") == []
    assert await rows(log, "SELECT DISTINCT sealed, lookup FROM vault.disclosures") == [(None, None)]


async def test_a_thing_that_was_erased_gets_a_new_key(log: Log, dsn: str) -> None:
    async with Log.open(dsn, SEALER) as other:
        await happen(other, APOLLO_11)
        await erase(log, f"project:{APOLLO}")
        await happen(other, APOLLO_11)
        await happen(log, APOLLO_11)
    titles = [event.title for record in await revealed(log) if isinstance(event := record.event, ProjectCreated)]
    assert titles == [ERASED, "Apollo 11", "Apollo 11"]
    await Vault(log.pool).erase_again()
    assert [r.event.title for r in await revealed(log) if isinstance(r.event, ProjectCreated)] == titles


@pytest.mark.parametrize("subject", [ADAS, f"project:{APOLLO}"])
async def test_what_is_sealed_while_another_process_erases_is_erased_or_comes_after_it(
    log: Log, dsn: str, subject: str
) -> None:
    """Many seal with a key that is in memory, while another process erases it again and again."""
    async with Log.open(dsn, SEALER) as other:
        event = account(ADA, "ada") if subject == ADAS else APOLLO_11
        await happen(other, event)
        stop, last = asyncio.Event(), 0

        async def keep_sealing() -> None:
            while not stop.is_set():
                await happen(other, event)

        sealing = [asyncio.create_task(keep_sealing()) for _ in range(8)]
        for _ in range(10):
            last = await erase(log, subject)
            await asyncio.sleep(0.02)
        stop.set()
        await asyncio.gather(*sealing)
    for record in await revealed(log):
        assert not record.disclosures or (record.position > last and subject != ADAS)
    orphans = "SELECT FROM vault.disclosures d WHERE sealed IS NOT NULL AND NOT EXISTS"
    assert await rows(log, f"{orphans} (SELECT FROM vault.subject_keys k WHERE k.id = d.key)") == []


async def test_a_query_that_names_somebody_is_in_no_memory_once_they_are_erased(log: Log) -> None:
    await happen(log, APOLLO_11)
    asked = "subject:a-name-that-nothing-else-has"
    assert str(language.parse(asked, datetime.now(UTC))) == asked
    await erase(log)
    assert not [one for one in gc.get_objects() if isinstance(one, language.Query) and str(one) == asked]
    assert language._lasting.cache_info().currsize == 0  # pyright: ignore[reportPrivateUsage]


async def test_a_key_that_goes_again_and_again_makes_an_append_fail_and_not_leak(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> int:
        return writer.KEY_GONE

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_insert", gone)
        with pytest.raises(LogUnavailable):
            await happen(log, APOLLO_11)
    assert await happen(log, APOLLO_11) == 1


@pytest.mark.parametrize("table", ["audit.entries", "vault.disclosures", "vault.subject_keys"])
async def test_an_entry_and_what_it_discloses_are_there_together_or_not_at_all(log: Log, table: str) -> None:
    """Whatever statement of an append fails."""
    await _execute(
        log,
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$",
        f"CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION public.fail()",
    )
    with pytest.raises(Exception, match="no"):
        await happen(log, APOLLO_11)
    everything = (
        "SELECT FROM audit.entries UNION ALL SELECT FROM vault.disclosures UNION ALL SELECT FROM vault.subject_keys"
    )
    assert await rows(log, everything) == []
    await _execute(log, f"DROP TRIGGER fail ON {table}")
    await happen(log, APOLLO_11)
    assert [record.event for record in await revealed(log)] == [APOLLO_11]


async def _execute(log: Log, *statements: str) -> None:
    async with log.pool.connection() as connection:
        for statement in statements:
            await connection.execute(statement.encode())


@pytest.mark.parametrize("lines", [1, 200])
async def test_killing_the_process_leaves_no_digest_without_its_disclosure(dsn: str, lines: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.audit.sealers", dsn, cwd=ROOT, stdout=PIPE
    )
    assert process.stdout is not None
    for _ in range(lines):
        await process.stdout.readline()
    process.kill()
    await process.stdout.read()
    await process.wait()
    async with Log.open(dsn, SEALER) as log:
        records = await revealed(log)
        assert len(records) >= lines
        for record in records:
            assert [one.digest for one in record.disclosures] == record.digests
        kept = await rows(log, "SELECT digest FROM vault.disclosures")
        assert {digest for (digest,) in kept} == {digest for record in records for digest in record.digests}


async def test_a_vault_that_was_sealed_with_another_secret_is_not_opened(log: Log, dsn: str) -> None:
    await happen(log, APOLLO_11)
    with pytest.raises(BadSetting, match="another secret"):
        async with Log.open(dsn, Sealer(b"o" * 32)):
            pass


async def test_a_value_that_was_tampered_with_reads_as_erased_and_the_others_as_they_are(log: Log) -> None:
    await happen(log, *accounts)
    await _execute(log, f"UPDATE vault.disclosures SET sealed = sealed || '\\x00' WHERE subject = '{ADAS}'")
    assert await names(log) == [ERASED, "bob", "eve", "grace"]


async def test_a_value_is_read_in_the_field_that_it_was_sealed_in_whatever_stands_beside_it(log: Log) -> None:
    """Else a superuser could have one field of an entry read as another."""
    await happen(log, *plots)
    await rows(log, "UPDATE vault.disclosures SET name = 'reason' RETURNING 1")
    assert [record.event for record in await revealed(log)] == list(plots)


async def test_an_erasure_that_a_backup_undid_is_carried_out_again(log: Log) -> None:
    await happen(log, *accounts)
    saved = [await rows(log, f"SELECT * FROM vault.{table}") for table in ("subject_keys", "disclosures")]
    await Vault(log.pool).set_password(ADA, "$argon2id$")
    await erase(log)
    vault = Vault(log.pool)
    await vault.sweep(log.head)
    await _execute(log, "TRUNCATE vault.subject_keys, vault.disclosures, vault.erased")
    async with log.pool.connection() as connection, connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO vault.subject_keys VALUES (%s, %s, %s, %s)", saved[0])
        await cursor.executemany("INSERT INTO vault.disclosures VALUES (%s, %s, %s, %s, %s, %s, %s)", saved[1])
        await cursor.execute("INSERT INTO vault.passwords VALUES (%s, '$argon2id$')", (ADA,))
    assert "ada" in await names(log)
    assert await vault.unswept() == 0
    for _ in range(2):
        await vault.erase_again()
        assert await names(log) == [ERASED, "bob", "eve", "grace"]
        assert await vault.password(ADA) is None
    assert await vault.unswept() == log.head
    await vault.sweep(log.head)
    await vault.erase_again()
    assert await vault.unswept() == 0


async def test_a_disclosure_proves_one_field_to_somebody_else(log: Log) -> None:
    """All that they need: the entry, which is in the tree, the disclosure, and SHA-256."""
    await happen(log, *accounts)
    record = (await revealed(log))[0]
    disclosure = record.disclosures[0].text
    assert digest_of(disclosure) in json.loads(record.octets)["data"]["_sd"]
    assert digest_of(disclosure[:-1] + "A") not in json.loads(record.octets)["data"]["_sd"]


async def test_a_frozen_log_appends_nothing_and_says_why(log: Log) -> None:
    await happen(log, APOLLO_11)
    assert log.frozen is None
    log.freeze("The database is older than what was signed.")
    assert log.frozen == "The database is older than what was signed."
    with pytest.raises(LogUnavailable, match="older than what was signed"):
        await happen(log, APOLLO_11)
    assert len((await log.read()).records) == 1


async def test_only_so_many_keys_and_addresses_are_remembered(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_module, "REMEMBERED", 3)
    for number in range(10):
        event = ProjectCreated(project=f"p{number}", group=LAB, title=f"T{number}", visibility="private")
        await happen(log, event, context=Context(actor=GUEST, source=f"192.0.2.{number}"))
    keyring = log._keyring  # pyright: ignore[reportPrivateUsage]
    assert len(keyring._keys) <= 3  # pyright: ignore[reportPrivateUsage]
    assert len(keyring._sources) <= 3  # pyright: ignore[reportPrivateUsage]
    await happen(log, ProjectCreated(project="p0", group=LAB, title="again", visibility="private"))
    records = await revealed(log)
    assert [len(record.disclosures) for record in records] == [2] * 10 + [1]


async def test_nothing_of_an_erased_subject_stays_in_memory(log: Log) -> None:
    await happen(log, *accounts, context=AT_HOME)
    following = log.follow()
    records = await anext(following)
    async with log.pool.connection() as connection:
        await log.reveal(connection, records)
    assert records[0].disclosures
    await erase(log)
    assert records[0].disclosures == ()
    assert [r.event.username.text for r in records if isinstance(r.event, UserCreated)] == [
        ERASED,
        "bob",
        "eve",
        "grace",
    ]
    keyring = log._keyring  # pyright: ignore[reportPrivateUsage]
    assert ADAS not in keyring._keys  # pyright: ignore[reportPrivateUsage]


async def newest(log: Log) -> Record:
    return (await log.read(after=log.head - 1)).records[0]


async def test_what_was_just_sealed_is_recalled_once_as_the_vault_would_reveal_it(log: Log, dsn: str) -> None:
    async with Log.open(dsn, SEALER) as other:
        for event, context in ((APOLLO_11, AT_HOME), (LoggedOut(user=ADA, session="s"), AT_HOME)):
            await happen(log, event, context=context)
            recalled = await newest(log)
            assert log.recall(recalled)
            assert recalled.event == event
            assert (log.recall(await newest(log)), other.recall(await newest(log))) == (event != APOLLO_11,) * 2


async def test_what_a_user_is_called_is_recalled_once_the_vault_has_shown_their_key(log: Log) -> None:
    """Nobody tells an append that the vault keeps nothing of somebody: they may have been erased long ago."""
    await happen(log, account(ADA, "ada"))
    assert not log.recall(await newest(log))
    assert await names(log) == ["ada"]
    await happen(log, account(ADA, "ada"))
    recalled = await newest(log)
    assert log.recall(recalled)
    assert recalled.event == account(ADA, "ada")
    await erase(log)
    await happen(log, account(ADA, "ada"))
    assert not log.recall(await newest(log))


@pytest.mark.parametrize("in_another", [False, True])
async def test_nothing_of_an_erased_subject_is_recalled(log: Log, dsn: str, *, in_another: bool) -> None:
    await happen(log, APOLLO_11)
    record = await newest(log)
    async with Log.open(dsn, SEALER) as other:
        await erase(other if in_another else log, f"project:{APOLLO}")
        while log.head == record.position:
            await asyncio.sleep(0.01)
    assert not log.recall(record)
    assert isinstance(record.event, ProjectCreated)
    assert record.event.title == ERASED


async def test_only_so_much_is_there_to_be_recalled(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_module, "RECALLED", 3)
    for number in range(10):
        await happen(log, ProjectCreated(project=f"p{number}", group=LAB, title="T", visibility="private"))
    assert [log.recall(record) for record in (await log.read()).records] == [False] * 7 + [True] * 3


async def test_a_sweep_waits_for_a_transaction_that_is_prepared() -> None:
    with PrivateServer("max_prepared_transactions = 1") as server:
        server.kill()
        server.start()
        await create_schema(server.dsn)
        async with Log.open(server.dsn, SEALER) as log:
            await happen(log, *accounts)
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                connection.execute("BEGIN")
                connection.execute("SELECT pg_current_xact_id()")
                connection.execute("PREPARE TRANSACTION 'somebody'")
                position = await erase(log)
                sweeping = asyncio.create_task(Vault(log.pool).sweep(position))
                await asyncio.sleep(1)
                assert not sweeping.done()
                connection.execute("ROLLBACK PREPARED 'somebody'")
            async with asyncio.timeout(20):
                await sweeping


async def test_a_sweep_that_a_crash_interrupted_is_done_at_the_next_start(log: Log) -> None:
    await happen(log, *accounts)
    position = await erase(log)
    vault, reached = Vault(log.pool), list[int]()

    async def reach(upto: int) -> bool:
        reached.append(upto)
        return len(reached) > 1  # read models may need a while

    assert await vault.unswept() == position
    sweeper = Sweeper(log, vault, reach)
    sweeping = asyncio.create_task(sweeper.run())
    async with asyncio.timeout(20):
        while sweeper.swept < position:
            await asyncio.sleep(0.01)
    assert await vault.unswept() == 0
    assert reached == [position] * 2
    await erase(log, "guest")
    later = await erase(log, f"project:{APOLLO}")
    async with asyncio.timeout(20):
        while sweeper.swept < later:
            await asyncio.sleep(0.01)
    await end(sweeping)

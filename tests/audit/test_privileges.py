"""Who may do what to the log: every statement tried out as every role, and the triggers that stop its owner."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import InsufficientPrivilege, RaiseException

from app.audit.database.connecting import connect
from app.audit.database.provision import SchemaMissing, application, create_schema, login_name, prepare
from app.audit.log import Log
from app.keys import Keys
from app.projections.rebuild import rebuild_to
from tests.audit.drafts import draft
from tests.database import SEALER, Databases, PrivateServer

KEYS = Keys(b"the secret of a test")
ID = "018f0000-0000-7000-8000-000000000000"
BYTES = f"""'{{"at":"2026-11-23T00:00:00Z","id":"{ID}","outcome":"success","tags":[],"type":"T"}}'"""
HASH = "decode(repeat('00', 32), 'hex')"
KEPT = ("audit.entries", "audit.tiles", "audit.checkpoints", "audit.signer")
SECRETS = ("vault.passwords", "vault.keys")
STREAMS = ("stream.bookmarks", "stream.dead")
SEALED = ("vault.subject_keys", "vault.disclosures", "vault.erased", "vault.unswept")

NEW = {
    "audit.entries": f"(position, bytes, leaf_hash) VALUES (9, {BYTES}, {HASH})",
    "audit.tiles": f"VALUES (0, 0, decode(repeat('00', 8192), 'hex'), {HASH})",
    "audit.checkpoints": f"(size, root, note) VALUES (1, {HASH}, '')",
    "audit.signer": "(said) VALUES ('{}')",
    "stream.bookmarks": "VALUES ('t', 1)",
    "stream.dead": "(target, position, tries, error) VALUES ('t', 1, 1, '')",
    "vault.passwords": "VALUES ('usr_1', '')",
    "vault.keys": "VALUES ('', 'token', '', '', '{}', now())",
    "vault.subject_keys": "VALUES ('user:1', gen_random_uuid(), '', 1)",
    "vault.disclosures": "VALUES ('d', 1, 'user:1', 'username', gen_random_uuid(), NULL, NULL)",
    "vault.erased": "VALUES ('user:1', 1)",
    "vault.unswept": "VALUES (1)",
    "read.users": "DEFAULT VALUES",
}
SET = {
    "audit.entries": "leaf_hash = ''",
    "audit.tiles": "root = ''",
    "audit.checkpoints": "note = ''",
    "audit.signer": "said = '{}'",
    "stream.bookmarks": "position = 0",
    "stream.dead": "tries = 0",
    "vault.passwords": "hash = ''",
    "vault.keys": "scopes = '{}'",
    "vault.subject_keys": "since = 0",
    "vault.disclosures": "sealed = NULL",
    "vault.erased": "position = 0",
    "vault.unswept": "position = 0",
    "read.users": "name = ''",
}


def on(table: str) -> dict[str, str]:
    return {
        f"SELECT {table}": f"SELECT * FROM {table}",
        f"INSERT {table}": f"INSERT INTO {table} {NEW[table]}",
        f"UPDATE {table}": f"UPDATE {table} SET {SET[table]}",
        f"DELETE {table}": f"DELETE FROM {table}",
        f"TRUNCATE {table}": f"TRUNCATE {table}",
        f"ALTER {table}": f"ALTER TABLE {table} ADD COLUMN more text",
        f"DISABLE TRIGGER {table}": f"ALTER TABLE {table} DISABLE TRIGGER USER",
        f"TRIGGER {table}": f"CREATE TRIGGER mine BEFORE INSERT ON {table} EXECUTE FUNCTION audit.refuse_change()",
        f"DROP {table}": f"DROP TABLE {table}",
    }


STATEMENTS = {
    **{name: text for table in NEW for name, text in on(table).items()},
    "append": f"SELECT audit.append(0, {BYTES}, {HASH}, NULL)",
    "prune": "SELECT audit.prune(1)",
    "erase": "SELECT vault.erase('user:usr_1', 1)",
    "replace append": "CREATE OR REPLACE FUNCTION"
    " audit.append(believed bigint, lines text, hashes bytea, disclosures json) RETURNS bigint"
    " LANGUAGE sql AS 'SELECT 1::bigint'",
    "replace refuse_change": "CREATE OR REPLACE FUNCTION audit.refuse_change() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN RETURN NULL; END'",
    "drop append": "DROP FUNCTION audit.append",
    "create a table in audit": "CREATE TABLE audit.mine ()",
    "create a table in vault": "CREATE TABLE vault.mine ()",
    "create a table in stream": "CREATE TABLE stream.mine ()",
    "drop the schema": "DROP SCHEMA audit CASCADE",
    "create a read model": "CREATE SCHEMA read_next CREATE TABLE mine ()",
    "swap read models": "ALTER SCHEMA read RENAME TO read_old",
    "change the publication": "ALTER PUBLICATION sophon_audit SET (publish = 'insert, update')",
    "be a replica": "SET session_replication_role = replica",
    "change what commits mean": "ALTER DATABASE postgres SET synchronous_commit = off",
    "create a role": "CREATE ROLE mine",
    "become the owner": "SET ROLE sophon_owner",
    "run a program": "COPY audit.entries TO PROGRAM 'true'",
}

READS_LOG = {f"SELECT {table}" for table in KEPT}
APPENDS = {"append", "prune"}
SIGNS = {"INSERT audit.tiles", "INSERT audit.checkpoints", "INSERT audit.signer"}
PROJECTS = {name for name in STATEMENTS if name.endswith(" read.users")} | {
    *("create a read model", "swap read models"),
    *(f"{verb} {table}" for table in STREAMS for verb in ("SELECT", "INSERT", "UPDATE", "DELETE")),
}
KEEPS = {f"{verb} {table}" for table in SECRETS for verb in ("SELECT", "INSERT", "UPDATE", "DELETE")} | {
    *(f"SELECT {table}" for table in SEALED),
    *("DELETE vault.unswept", "erase"),
}
STOPPED = {f"{verb} {table}" for table in KEPT for verb in ("UPDATE", "DELETE", "TRUNCATE")}
OWNS = ({name for name in STATEMENTS if name.split()[-1].startswith(("audit.", "vault.", "stream."))} - STOPPED) | {
    *("append", "replace append", "replace refuse_change", "drop append", "drop the schema", "become the owner"),
    *("create a table in audit", "create a table in vault", "create a table in stream", "prune", "erase"),
}

MAY = {
    "sophon_reader": READS_LOG,
    "sophon_appender": READS_LOG | APPENDS,
    "sophon_projector": READS_LOG | PROJECTS,
    "sophon_signer": READS_LOG | SIGNS,
    "sophon_keeper": KEEPS,
    "sophon_owner": OWNS,
    "the application": READS_LOG | APPENDS | PROJECTS | SIGNS | KEEPS,
    "somebody else": set[str](),
}
"""Role -> which of the statements it may do; none of the others."""


@pytest.fixture(scope="module")
async def installed(databases: Databases) -> AsyncIterator[str]:
    """A database that is set up as an installation's, with an entry and read models."""
    with databases.fresh() as dsn:
        await prepare(dsn)
        own = await application(dsn, KEYS)
        async with Log.open(own, SEALER) as log:
            await log.append([draft()])
        with psycopg.connect(own) as connection:
            connection.execute("CREATE SCHEMA read")
            connection.execute("CREATE TABLE read.users (name text DEFAULT '' PRIMARY KEY)")
        await prepare(dsn)
        yield dsn


@pytest.fixture(scope="module")
def stranger(installed: str) -> Iterator[str]:
    """A role that can log in and was granted nothing."""
    with psycopg.connect(installed, autocommit=True) as connection:
        connection.execute("CREATE ROLE sophon_test_stranger LOGIN")
        yield "sophon_test_stranger"
        connection.execute("DROP ROLE sophon_test_stranger")


def outcome(connection: Connection, statement: str) -> str:
    """Try a statement out, and undo it: may, may not, or is stopped by a trigger."""
    with connection.transaction(force_rollback=True):
        try:
            connection.execute(statement.encode())
        except InsufficientPrivilege:
            return "may not"
        except RaiseException as error:
            if "The log does not say" in str(error):
                return "may"  # it ran, and found nothing that it were to do
            return "is stopped" if "only grows" in str(error) else str(error)
    return "may"


@pytest.mark.parametrize("role", MAY)
def test_each_role_may_do_its_duty_and_nothing_else(role: str, installed: str, stranger: str) -> None:
    user = {"the application": login_name(KEYS), "somebody else": stranger}.get(role, role)
    with psycopg.connect(installed, autocommit=True) as connection:
        connection.execute(f"SET SESSION AUTHORIZATION {user}".encode())
        found = {name: outcome(connection, statement) for name, statement in STATEMENTS.items()}
    assert found == {
        name: "may" if name in MAY[role] else "is stopped" if role == "sophon_owner" and name in STOPPED else "may not"
        for name in STATEMENTS
    }


def test_a_superuser_is_stopped_until_they_pass_for_a_replica(installed: str) -> None:
    """Prevention ends here; `audit verify` has to find it."""
    with psycopg.connect(installed, autocommit=True) as connection:
        assert {outcome(connection, STATEMENTS[name]) for name in STOPPED} == {"is stopped"}
        connection.execute("SET session_replication_role = replica")
        changed = "UPDATE audit.entries SET leaf_hash = sha256('')"
        assert outcome(connection, changed) == outcome(connection, "TRUNCATE audit.entries") == "may"


def test_what_is_refused_says_why_and_what_to_do_instead(installed: str) -> None:
    with psycopg.connect(installed) as connection, pytest.raises(RaiseException) as refused:
        connection.execute("DELETE FROM audit.entries WHERE false")
    assert refused.value.diag.message_primary == (
        "audit.entries only grows: DELETE is refused, to its owner as to everybody"
    )
    assert "record what is right" in str(refused.value.diag.message_hint)


def test_the_append_takes_nothing_from_the_search_path_of_its_caller(installed: str) -> None:
    with psycopg.connect(installed, autocommit=True) as connection:
        connection.execute(f"SET SESSION AUTHORIZATION {login_name(KEYS)}".encode())
        with connection.transaction(force_rollback=True):
            connection.execute("CREATE TEMP TABLE entries (position bigint)")
            connection.execute(
                "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE plpgsql AS 'BEGIN RAISE ''mine''; END'"
            )
            connection.execute("SET LOCAL search_path = pg_temp, pg_catalog")
            head = connection.execute(f"SELECT audit.append(1, {BYTES}, {HASH}, NULL)".encode()).fetchone()
            assert head == (1,)
            assert connection.execute("SELECT count(*) FROM pg_temp.entries").fetchone() == (0,)


async def test_the_application_logs_in_as_nobody_special_and_keeps_the_log(installed: str) -> None:
    own = await application(installed, KEYS)
    assert conninfo_to_dict(own)["user"] == login_name(KEYS)
    async with Log.open(own, SEALER) as log:
        position = await log.append([draft()])
        assert log.head == position


def test_the_application_cannot_change_how_the_server_keeps_what_is_committed(installed: str) -> None:
    with psycopg.connect(installed, autocommit=True) as connection:
        connection.execute(f"SET SESSION AUTHORIZATION {login_name(KEYS)}".encode())
        with pytest.raises(InsufficientPrivilege):
            connection.execute("ALTER SYSTEM SET fsync = off")


async def test_two_installations_on_one_server_have_logins_of_their_own(databases: Databases) -> None:
    with databases.fresh() as one, databases.fresh() as other:
        await asyncio.gather(prepare(one), prepare(other))
        mine, theirs = await asyncio.gather(application(one, Keys(b"one")), application(other, Keys(b"other")))
        assert conninfo_to_dict(mine)["user"] != conninfo_to_dict(theirs)["user"]
        for dsn in (mine, theirs):
            async with Log.open(dsn, SEALER) as log:
                assert await log.append([draft()]) == 1


async def test_processes_that_start_at_once_set_up_a_new_server_once() -> None:
    with PrivateServer("fsync = off") as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE other")
        other = make_conninfo(server.dsn, dbname="other")
        await asyncio.gather(*(prepare(dsn) for dsn in [server.dsn, other] * 4))
        logins = await asyncio.gather(*(application(dsn, KEYS) for dsn in [server.dsn, other] * 4))
        assert {conninfo_to_dict(dsn)["user"] for dsn in logins} == {login_name(KEYS)}


@pytest.fixture
def managed(databases: Databases, dsn: str) -> Iterator[str]:
    """The DSN of somebody who owns an empty database and may create nothing on its server."""
    name = "sophon_test_owner"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN".encode())
        connection.execute(f"CREATE DATABASE sophon_managed OWNER {name}".encode())
        yield make_conninfo(dsn, dbname="sophon_managed", user=name)
        connection.execute("DROP DATABASE sophon_managed WITH (FORCE)")
        connection.execute(f"DROP ROLE {name}".encode())


async def test_where_no_role_can_be_made_everything_works_with_what_there_is(managed: str) -> None:
    await prepare(managed)
    assert await application(managed, KEYS) == await application(managed, Keys(b"of a new one")) == managed
    async with Log.open(managed, SEALER) as log:
        assert await log.append([draft()]) == 1
    with psycopg.connect(managed, autocommit=True) as connection:
        assert outcome(connection, "UPDATE audit.entries SET leaf_hash = ''") == "is stopped"


async def test_an_administrator_who_is_no_superuser_can_set_it_all_up() -> None:
    with PrivateServer("fsync = off") as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE ROLE dba LOGIN CREATEROLE")
            connection.execute("CREATE DATABASE lab OWNER dba")
        dsn = make_conninfo(server.dsn, dbname="lab", user="dba")
        await prepare(dsn)
        own = await application(dsn, KEYS)
        assert conninfo_to_dict(own)["user"] == login_name(KEYS)
        async with Log.open(own, SEALER) as log:
            assert await log.append([draft()]) == 1
        await prepare(dsn)
        assert await application(dsn, KEYS) == own


async def test_who_may_not_create_the_tables_is_told_when_they_are_another_releases(installed: str) -> None:
    own = await application(installed, KEYS)
    with psycopg.connect(installed, autocommit=True) as connection:
        connection.execute("COMMENT ON SCHEMA audit IS 'sophon of another day'")
        with pytest.raises(SchemaMissing, match="another release"):
            await prepare(own)
    await prepare(installed)
    await prepare(own)


async def test_read_models_are_made_as_those_of_nobody_who_can_log_in(installed: str) -> None:
    async with Log.open(await application(installed, KEYS), SEALER) as log:
        schema = await rebuild_to(log, 0)
    with psycopg.connect(installed) as connection:
        found = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = %s", (schema,))
        assert found.fetchall() == [("sophon_projector",)]


async def test_setting_up_again_waits_for_an_append_before_it_holds_anything_that_the_append_needs(dsn: str) -> None:
    async with await AsyncConnection.connect(dsn) as appending, asyncio.timeout(20):
        await appending.execute("SELECT pg_advisory_xact_lock(7305796)")
        await appending.execute("LOCK TABLE vault.disclosures IN ROW EXCLUSIVE MODE")
        setting_up = asyncio.create_task(create_schema(dsn))
        waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not (await appending.execute(waiting)).rowcount:
            assert not setting_up.done()
            await asyncio.sleep(0.01)
        await appending.execute("LOCK TABLE audit.entries IN ROW EXCLUSIVE MODE NOWAIT")
        await appending.commit()
        await setting_up


async def test_a_replica_elsewhere_keeps_what_a_superuser_changes_here() -> None:
    with PrivateServer("fsync = off", "wal_level = logical") as primary, PrivateServer("fsync = off") as replica:
        primary.kill()
        primary.start()  # so that wal_level holds
        await create_schema(primary.dsn)
        await create_schema(replica.dsn)
        async with Log.open(primary.dsn, SEALER) as log:
            await log.append([draft(), draft(), draft()])
            with psycopg.connect(replica.dsn, autocommit=True) as kept:
                kept.execute(
                    f"CREATE SUBSCRIPTION elsewhere CONNECTION '{primary.dsn}' PUBLICATION sophon_audit".encode()
                )
                before = await rows(kept, 3)
                with psycopg.connect(primary.dsn, autocommit=True) as superuser:
                    superuser.execute("SET session_replication_role = replica")
                    superuser.execute("UPDATE audit.entries SET leaf_hash = sha256('') WHERE position = 1")
                    superuser.execute("DELETE FROM audit.entries WHERE position = 2")
                await log.append([draft()])
                after = await rows(kept, 4)
                with psycopg.connect(primary.dsn, autocommit=True) as superuser:
                    superuser.execute("SET session_replication_role = replica")
                    superuser.execute("TRUNCATE audit.entries")
                await asyncio.sleep(0.5)
                assert after[:3] == before
                assert await rows(kept, 4) == after
                kept.execute("DROP SUBSCRIPTION elsewhere")


async def rows(connection: Connection, wanted: int) -> list[tuple[object, ...]]:
    """Wait until there are as many rows; give them."""
    for _ in range(200):
        found = connection.execute("SELECT position, bytes::text, leaf_hash FROM audit.entries ORDER BY position")
        if len(entries := found.fetchall()) >= wanted:
            return entries
        await asyncio.sleep(0.05)
    raise AssertionError(f"There are not {wanted} rows.")


async def test_nothing_is_erased_that_the_log_does_not_say_is_erased(installed: str) -> None:
    with (
        psycopg.connect(await application(installed, KEYS), autocommit=True) as connection,
        pytest.raises(RaiseException, match="does not say at 1"),
    ):
        connection.execute("SELECT vault.erase('user:usr_1', 1)")


async def test_the_application_may_have_old_versions_of_what_was_erased_given_up(installed: str) -> None:
    with psycopg.connect(await application(installed, KEYS), autocommit=True) as connection:
        notices: list[str] = []
        connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        connection.execute("VACUUM vault.disclosures, vault.keys, pg_catalog.pg_statistic")
        connection.execute("VACUUM (FULL, ANALYZE) vault.subject_keys")
        assert notices == []


async def test_no_connection_of_ours_finds_what_somebody_puts_before_the_databases_own_functions(dsn: str) -> None:
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("CREATE SCHEMA before")
        await connection.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = before, pg_catalog', current_database());"
            " END $$"
        )
    async with await connect(dsn) as ours, Log.open(dsn, SEALER) as log, log.pool.connection() as pooled:
        for one in (ours, pooled):
            cursor = await one.execute("SELECT current_schemas(true)")
            assert await cursor.fetchone() == (["pg_catalog"],)
        assert await log.append([draft()]) == 1

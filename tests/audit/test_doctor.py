"""The doctor: each fault is made, found under its code, mended as the doctor says, and gone."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from click.testing import CliRunner
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.audit.database.doctor import CannotLook, Finding, examine
from app.audit.database.provision import application, prepare
from app.audit.log import Log
from app.cli.doctor import premises
from app.cli.groups import main
from app.keys import Keys
from app.projections.rebuild import rebuild
from app.projections.standing import standing
from app.settings import Settings
from tests.audit.drafts import draft
from tests.database import SEALER, PrivateServer

KEYS = Keys(b"k" * 32)
REPLICA = "SET session_replication_role = replica;"


class Installed(Struct, frozen=True):
    administrator: str
    application: str

    def run(self, statements: str) -> None:
        with psycopg.connect(self.administrator, autocommit=True) as connection:
            for statement in re.split(r";(?! END)", statements):
                connection.execute(statement.replace("@login", self.login).encode())

    @property
    def login(self) -> str:
        return str(conninfo_to_dict(self.application)["user"])

    async def faults(self) -> dict[str, Finding]:
        found = await examine(self.administrator, self.application)
        assert [one.unknown for one in found if one.unknown] == []
        return {one.code: one for one in found if one.faults}


@pytest.fixture(scope="module")
async def installed() -> AsyncIterator[Installed]:
    """A server of its own, since roles and settings are the whole server's; durable, so that nothing is found."""
    with PrivateServer("log_error_verbosity = terse") as server:
        await prepare(server.dsn)
        own = await application(server.dsn, KEYS)
        async with Log.open(own, SEALER) as log:
            await log.append([draft("ProjectCreated", ["project:apollo"]), draft("B"), draft("C")])
        yield Installed(server.dsn, own)


START_AGAIN = ""
BODY = "RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
TRIGGER = (
    "CREATE TRIGGER only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.entries FOR EACH STATEMENT EXECUTE FUNCTION"
)
FAULTS = [
    ("SPH-DB-002", "ALTER ROLE @login SUPERUSER", START_AGAIN, "who is a superuser"),
    ("SPH-DB-002", "ALTER ROLE @login CREATEROLE", START_AGAIN, "may create roles"),
    ("SPH-DB-002", "GRANT sophon_owner TO @login", "REVOKE sophon_owner FROM @login", "owns what the log is kept in"),
    ("SPH-DB-003", "ALTER ROLE sophon_owner LOGIN", "ALTER ROLE sophon_owner NOLOGIN", "sophon_owner can log in"),
    (
        "SPH-DB-003",
        "ALTER ROLE sophon_reader BYPASSRLS",
        "ALTER ROLE sophon_reader NOBYPASSRLS",
        "rights over the server",
    ),
    ("SPH-DB-004", "ALTER TABLE audit.entries OWNER TO @login", START_AGAIN, "audit.entries belongs to sophon_app_"),
    (
        "SPH-DB-004",
        "ALTER TABLE stream.bookmarks OWNER TO @login",
        START_AGAIN,
        "stream.bookmarks belongs to sophon_app_",
    ),
    ("SPH-DB-004", "ALTER SCHEMA vault OWNER TO postgres", START_AGAIN, "vault belongs to postgres"),
    ("SPH-DB-005", "GRANT UPDATE ON audit.entries TO sophon_appender", START_AGAIN, "sophon_appender may UPDATE"),
    (
        "SPH-DB-005",
        "GRANT UPDATE (leaf_hash) ON audit.entries TO @login",
        "REVOKE UPDATE (leaf_hash) ON audit.entries FROM @login",
        "may UPDATE on the table audit.entries",
    ),
    (
        "SPH-DB-005",
        "GRANT UPDATE ON stream.bookmarks TO sophon_reader",
        START_AGAIN,
        "sophon_reader may UPDATE on the table stream.bookmarks",
    ),
    ("SPH-DB-005", "GRANT TRUNCATE ON stream.dead TO sophon_projector", START_AGAIN, "sophon_projector may TRUNCATE"),
    ("SPH-DB-005", "GRANT INSERT ON audit.signer TO sophon_appender", START_AGAIN, "sophon_appender may INSERT"),
    ("SPH-DB-005", "GRANT SELECT ON vault.passwords TO PUBLIC", START_AGAIN, "Everybody may SELECT"),
    ("SPH-DB-005", "GRANT CREATE ON SCHEMA audit TO @login", "REVOKE CREATE ON SCHEMA audit FROM @login", "may CREATE"),
    ("SPH-DB-005", "GRANT EXECUTE ON FUNCTION audit.append TO PUBLIC", START_AGAIN, "Everybody may EXECUTE"),
    ("SPH-DB-006", "REVOKE SELECT ON audit.entries FROM sophon_reader", START_AGAIN, "sophon_reader may not SELECT"),
    ("SPH-DB-006", "REVOKE ALL ON FUNCTION audit.append FROM sophon_appender", START_AGAIN, "may not append"),
    (
        "SPH-DB-007",
        "ALTER TABLE audit.entries DISABLE TRIGGER only_grows",
        "ALTER TABLE audit.entries ENABLE TRIGGER only_grows",
        "is switched off",
    ),
    ("SPH-DB-007", "DROP TRIGGER only_grows ON audit.tiles", START_AGAIN, "audit.tiles is missing"),
    (
        "SPH-DB-007",
        f"DROP TRIGGER only_grows ON audit.entries; {TRIGGER.replace('OR TRUNCATE', '')} audit.refuse_change()",
        "DROP TRIGGER only_grows ON audit.entries",
        "does not do what it should",
    ),
    (
        "SPH-DB-007",
        "CREATE TRIGGER mine BEFORE INSERT ON audit.entries EXECUTE FUNCTION audit.refuse_change()",
        "DROP TRIGGER mine ON audit.entries",
        "mine of audit.entries is not ours",
    ),
    (
        "SPH-DB-007",
        "CREATE TRIGGER mine BEFORE UPDATE ON stream.bookmarks EXECUTE FUNCTION audit.refuse_change()",
        "DROP TRIGGER mine ON stream.bookmarks",
        "mine of stream.bookmarks is not ours",
    ),
    ("SPH-DB-007", "DROP TRIGGER only_grows ON audit.signer", START_AGAIN, "audit.signer is missing"),
    (
        "SPH-DB-007",
        "CREATE RULE mine AS ON INSERT TO audit.entries DO ALSO NOTIFY mine",
        "DROP RULE mine ON audit.entries",
        "rule mine",
    ),
    (
        "SPH-DB-007",
        f"CREATE FUNCTION public.mine() {BODY.replace('RETURN NEW; END', 'RETURN NULL; END')};"
        "CREATE TRIGGER mine BEFORE UPDATE ON vault.disclosures FOR EACH ROW EXECUTE FUNCTION public.mine()",
        "DROP FUNCTION public.mine CASCADE",
        "mine of vault.disclosures is not ours: it runs public.mine()",
    ),
    (
        "SPH-DB-007",
        "CREATE TRIGGER only_grows BEFORE DELETE ON vault.subject_keys EXECUTE FUNCTION audit.refuse_change()",
        "DROP TRIGGER only_grows ON vault.subject_keys",
        "only_grows of vault.subject_keys is not ours",
    ),
    (
        "SPH-DB-007",
        "CREATE TRIGGER mine BEFORE UPDATE ON stream.bookmarks EXECUTE FUNCTION audit.refuse_change()",
        "DROP TRIGGER mine ON stream.bookmarks",
        "mine of stream.bookmarks is not ours",
    ),
    ("SPH-DB-007", "DROP TRIGGER only_grows ON audit.signer", START_AGAIN, "audit.signer is missing"),
    (
        "SPH-DB-007",
        "CREATE RULE mine AS ON DELETE TO vault.keys DO INSTEAD NOTHING",
        "DROP RULE mine ON vault.keys",
        "The rule mine of vault.keys",
    ),
    (
        "SPH-DB-016",
        "ALTER TABLE audit.entries ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE audit.entries DISABLE ROW LEVEL SECURITY",
        "switched on for audit.entries",
    ),
    (
        "SPH-DB-016",
        "ALTER TABLE vault.disclosures FORCE ROW LEVEL SECURITY",
        "ALTER TABLE vault.disclosures NO FORCE ROW LEVEL SECURITY",
        "switched on for vault.disclosures",
    ),
    (
        "SPH-DB-016",
        "ALTER TABLE stream.dead ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE stream.dead DISABLE ROW LEVEL SECURITY",
        "switched on for stream.dead",
    ),
    (
        "SPH-DB-016",
        "CREATE POLICY mine ON audit.checkpoints USING (false)",
        "DROP POLICY mine ON audit.checkpoints",
        "The policy mine of audit.checkpoints",
    ),
    (
        "SPH-DB-016",
        "CREATE TABLE public.more () INHERITS (audit.tiles)",
        "DROP TABLE public.more",
        "The rows of public.more are read as if they stood in audit.tiles",
    ),
    (
        "SPH-DB-016",
        "CREATE CAST (json AS text) WITH INOUT",
        "DROP CAST (json AS text)",
        "A cast from json to text is not PostgreSQL's own",
    ),
    (
        "SPH-DB-008",
        f"CREATE OR REPLACE FUNCTION audit.refuse_change() {BODY}",
        START_AGAIN,
        "refuse_change() is not ours",
    ),
    ("SPH-DB-008", f"CREATE FUNCTION audit.mine() {BODY}", "DROP FUNCTION audit.mine", "audit.mine() is not ours"),
    ("SPH-DB-008", "ALTER FUNCTION audit.append SECURITY INVOKER", START_AGAIN, "nobody can append"),
    ("SPH-DB-008", "ALTER FUNCTION audit.append RESET search_path", START_AGAIN, "search path of its caller's"),
    (
        "SPH-DB-009",
        "ALTER TABLE audit.entries ALTER outcome DROP EXPRESSION",
        'ALTER TABLE audit.entries DROP outcome; ALTER TABLE audit.entries ADD outcome text COLLATE "C" NOT NULL'
        " GENERATED ALWAYS AS (bytes ->> 'outcome') STORED",
        "The column outcome of audit.entries",
    ),
    (
        "SPH-DB-009",
        "ALTER TABLE audit.entries DROP CONSTRAINT entries_position_check",
        "ALTER TABLE audit.entries ADD CONSTRAINT entries_position_check CHECK (position > 0)",
        "has lost a rule",
    ),
    (
        "SPH-DB-009",
        "ALTER TABLE stream.dead ALTER error DROP NOT NULL",
        "ALTER TABLE stream.dead ALTER error SET NOT NULL",
        "The column error of stream.dead",
    ),
    ("SPH-DB-010", "DROP PUBLICATION sophon_audit", START_AGAIN, "is missing"),
    (
        "SPH-DB-010",
        "ALTER PUBLICATION sophon_audit SET (publish = 'insert, delete')",
        "DROP PUBLICATION sophon_audit",
        "passes on more",
    ),
    (
        "SPH-DB-010",
        "ALTER PUBLICATION sophon_audit ADD TABLE vault.passwords",
        "DROP PUBLICATION sophon_audit",
        "is not of audit.entries",
    ),
    ("SPH-DB-011", "CREATE ROLE mine IN ROLE sophon_appender", "DROP ROLE mine", "mine is a member of sophon_appender"),
    ("SPH-DB-012", "CREATE ROLE sophon_app_other LOGIN", "DROP ROLE sophon_app_other", "sophon_app_other"),
    (
        "SPH-DB-013",
        "ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf()",
        "ALTER SYSTEM RESET fsync; SELECT pg_reload_conf()",
        "fsync is off",
    ),
    (
        "SPH-DB-013",
        "ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf()",
        "ALTER SYSTEM RESET full_page_writes; SELECT pg_reload_conf()",
        "full_page_writes is off",
    ),
    (
        "SPH-DB-013",
        "ALTER ROLE @login SET synchronous_commit = off",
        "ALTER ROLE @login RESET synchronous_commit",
        "synchronous_commit=off",
    ),
    ("SPH-DB-013", "ALTER TABLE vault.keys SET UNLOGGED", "ALTER TABLE vault.keys SET LOGGED", "a crash empties it"),
    (
        "SPH-DB-015",
        "ALTER SYSTEM SET log_error_verbosity = verbose; SELECT pg_reload_conf()",
        "ALTER SYSTEM SET log_error_verbosity = terse; SELECT pg_reload_conf()",
        "may quote a row",
    ),
    ("SPH-DB-014", "COMMENT ON SCHEMA audit IS 'sophon of another day'", START_AGAIN, "Another release"),
    (
        "SPH-LOG-001",
        f"{REPLICA} UPDATE audit.entries SET position = 9 WHERE position = 2",
        f"{REPLICA} UPDATE audit.entries SET position = 2 WHERE position = 9",
        "the first of them 2",
    ),
    (
        "SPH-LOG-001",
        f"{REPLICA} UPDATE audit.entries SET position = 9 WHERE position = 1",
        f"{REPLICA} UPDATE audit.entries SET position = 1 WHERE position = 9",
        "the first of them 1",
    ),
    (
        "SPH-LOG-001",
        f"{REPLICA} ALTER TABLE audit.entries DROP CONSTRAINT entries_position_check;"
        "INSERT INTO audit.entries (position, bytes, leaf_hash) SELECT -7,"
        " replace(bytes::text, id::text, gen_random_uuid()::text)::json, leaf_hash FROM audit.entries"
        " WHERE position = 3",
        f"{REPLICA} DELETE FROM audit.entries WHERE position = -7;"
        "ALTER TABLE audit.entries ADD CONSTRAINT entries_position_check CHECK (position > 0)",
        "There is an entry at position -7",
    ),
    (
        "SPH-LOG-002",
        f"{REPLICA} UPDATE audit.entries SET bytes = replace(bytes::text, 'apollo', 'apolla')::json WHERE position = 1",
        f"{REPLICA} UPDATE audit.entries SET bytes = replace(bytes::text, 'apolla', 'apollo')::json WHERE position = 1",
        "at position 1 is not the one that was hashed",
    ),
    (
        "SPH-LOG-003",
        "ALTER TABLE audit.entries ALTER outcome DROP EXPRESSION;"
        f"{REPLICA} UPDATE audit.entries SET outcome = 'refused' WHERE position = 3",
        'ALTER TABLE audit.entries DROP outcome; ALTER TABLE audit.entries ADD outcome text COLLATE "C" NOT NULL'
        " GENERATED ALWAYS AS (bytes ->> 'outcome') STORED",
        "at position 3 is searched for",
    ),
]


@pytest.mark.parametrize(("code", "fault", "mend", "sentence"), FAULTS)
async def test_a_fault_is_named_and_its_mend_mends_it(
    code: str, fault: str, mend: str, sentence: str, installed: Installed
) -> None:
    await prepare(installed.administrator)
    assert await installed.faults() == {}
    installed.run(fault)
    await asyncio.sleep(0.1)  # a setting of the server is read again a moment later
    found = await installed.faults()
    assert code in found
    assert any(sentence in one for one in found[code].faults)
    assert found[code].mend.endswith((".", ";", ")"))
    if mend:
        installed.run(mend)
    await prepare(installed.administrator)
    await application(installed.administrator, KEYS)
    await asyncio.sleep(0.1)
    assert await installed.faults() == {}


async def test_an_entry_from_the_future_is_named(installed: Installed) -> None:
    found = await examine(installed.administrator, installed.application)
    assert "SPH-LOG-004" in {one.code for one in found}
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    installed.run(
        f"{REPLICA} CREATE TABLE kept AS SELECT bytes::text FROM audit.entries WHERE position = 3;"
        f"UPDATE audit.entries SET bytes = jsonb_set(bytes::jsonb, '{{at}}', '\"{later}\"')::json WHERE position = 3"
    )
    assert "yet to come" in (await installed.faults())["SPH-LOG-004"].faults[0]
    installed.run(
        f"{REPLICA} UPDATE audit.entries SET bytes = (SELECT bytes FROM kept)::json WHERE position = 3; DROP TABLE kept"
    )


async def test_what_is_missing_of_a_server_that_knows_no_roles_is_named() -> None:
    with PrivateServer() as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE ROLE tenant LOGIN")
            connection.execute("CREATE DATABASE managed OWNER tenant")
        dsn = make_conninfo(server.dsn, dbname="managed", user="tenant")
        assert (await examine(dsn, dsn))[0].faults == ("There is no log here.",)
        await prepare(dsn)
        found = await Installed(dsn, await application(dsn, KEYS)).faults()
        assert {"SPH-DB-001", "SPH-DB-002", "SPH-DB-004"} <= set(found)
        assert "The role sophon_appender is missing." in found["SPH-DB-001"].faults
        assert "WITH CREATEROLE" in found["SPH-DB-001"].mend


async def test_a_database_that_does_not_answer_is_no_finding(installed: Installed) -> None:
    nowhere = make_conninfo(installed.administrator, host="/nowhere")
    with pytest.raises(CannotLook, match="does not answer"):
        await examine(nowhere, nowhere)


async def test_a_log_that_is_shorter_than_what_was_signed_is_named(installed: Installed) -> None:
    for signed, lost in ((3, []), (4, ["The log ends at 3, and 4 entries were signed: it has lost its end."])):
        found = await examine(installed.administrator, installed.application, signed)
        assert [sentence for one in found for sentence in one.faults if one.code == "SPH-LOG-005"] == lost


async def test_read_models_that_are_missing_or_behind_or_stopped_are_named(dsn: str) -> None:
    async def faults() -> dict[str, str]:
        return {one.code: one.faults[0] for one in await standing(dsn) if one.faults}

    async with Log.open(dsn, SEALER) as log:
        assert await faults() == {"SPH-READ-003": "There are no read models."}
        await rebuild(log)
        assert await faults() == {}
        await log.append([draft("OfAnotherDay")])
    found = await faults()
    assert found["SPH-READ-001"] == "The read models stand at 0, and the log ends at 1."
    assert "OfAnotherDay" in found["SPH-READ-002"]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE read.bookmark SET shape = 'another'")
    assert "another release" in (await faults())["SPH-READ-003"]


def nearly_full(_: Path) -> SimpleNamespace:
    return SimpleNamespace(free=1 << 20)


def test_secrets_that_others_can_read_and_a_full_disk_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    settings = Settings(data=data)
    (data / "signer").mkdir(parents=True, mode=0o700)
    data.chmod(0o700)
    files = {"SPH-HOST-001": data / "secret", "SPH-HOST-002": data / "signer" / "keys.json"}
    for path in files.values():
        path.touch(0o600)

    def faults() -> list[str]:
        return [one.code for one in premises(settings) if one.faults]

    assert faults() == []
    for code, path in files.items():
        path.chmod(0o640)
        assert faults() == [code]
        path.chmod(0o600)
    data.chmod(0o770)
    assert faults() == ["SPH-HOST-003"]
    data.chmod(0o755)  # as PostgreSQL needs it where another user runs it
    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    assert faults() == ["SPH-HOST-004"]


def test_the_command_tells_codes_and_mends_and_exits_by_what_it_found(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOPHON_DATA", str(tmp_path))
    monkeypatch.setenv("SOPHON_DATABASE_URL", installed.administrator)
    monkeypatch.setenv("SOPHON_SECRET", "k" * 32)
    told = CliRunner().invoke(main, ["state", "doctor"])
    assert told.exit_code == 1  # there are no read models in this database
    assert "SPH-READ-003  fault" in told.stdout
    assert "-> Start Sophon: it rebuilds them." in told.stdout
    found = json.loads(CliRunner().invoke(main, ["state", "doctor", "-o", "json"]).stdout)
    assert [one["code"] for one in found if one["faults"]] == ["SPH-READ-003"]
    monkeypatch.setenv("SOPHON_DATABASE_URL", "host=/nowhere")
    told = CliRunner().invoke(main, ["state", "doctor"])
    assert told.exit_code == 2
    assert "does not answer" in told.stderr


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("ALTER TABLE audit.entries ALTER position TYPE numeric", "SPH-DB-009"),
        (
            "ALTER TABLE audit.entries ALTER at DROP EXPRESSION; DROP INDEX audit.entries_at;"
            "ALTER TABLE audit.entries ALTER at TYPE text",
            "SPH-DB-009",
        ),
        (
            "ALTER TABLE audit.entries ALTER leaf_hash DROP NOT NULL; UPDATE audit.entries SET leaf_hash = NULL",
            "SPH-LOG-002",
        ),
        (
            "ALTER TABLE audit.entries ALTER bytes DROP NOT NULL, ALTER id DROP NOT NULL, ALTER type DROP NOT NULL,"
            " ALTER tags DROP NOT NULL, ALTER outcome DROP NOT NULL, ALTER at DROP NOT NULL;"
            "UPDATE audit.entries SET bytes = NULL",
            "SPH-DB-009",
        ),
        ("UPDATE audit.entries SET position = 1000000000000 WHERE position = 2", "SPH-LOG-001"),
        ("UPDATE audit.entries SET position = 9223372036854775807 WHERE position = 2", "SPH-LOG-001"),
    ],
)
async def test_what_a_superuser_makes_of_a_table_does_not_keep_the_doctor_from_looking(
    dsn: str, log: Log, change: str, code: str
) -> None:
    await log.append([draft("A"), draft("B")])
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"{REPLICA} {change}".encode())
    async with asyncio.timeout(10):
        found = {one.code: one for one in await examine(dsn, dsn)}
    assert found[code].faults


async def test_the_first_of_the_positions_that_are_empty_is_told(dsn: str, log: Log) -> None:
    await log.append([draft("A") for _ in range(9)])
    for gone, says in (("7, 4", "2 positions up to 9 are empty, the first of them 4."), ("1", "the first of them 1.")):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"{REPLICA} DELETE FROM audit.entries WHERE position IN ({gone})".encode())
        found = {one.code: one for one in await examine(dsn, dsn)}
        assert says in found["SPH-LOG-001"].faults[0]


@pytest.mark.parametrize(
    ("index", "making"),
    [
        ("entries_id", "UNIQUE INDEX entries_id ON audit.entries (id)"),
        ("entries_type", "INDEX entries_type ON audit.entries (type, position)"),
        ("entries_actor", "INDEX entries_actor ON audit.entries (actor, position)"),
        ("entries_tags", "INDEX entries_tags ON audit.entries USING gin (tags)"),
        ("entries_keys", "INDEX entries_keys ON audit.entries USING gin (audit.keys(type, tags))"),
    ],
)
async def test_an_index_that_lacks_an_entry_is_found_though_it_looks_like_ours(
    dsn: str, log: Log, index: str, making: str
) -> None:
    await log.append([draft("A", ["x:1"]), draft("B", ["x:2"])])

    async def faults() -> tuple[str, ...]:
        return {one.code: one for one in await examine(dsn, dsn)}["SPH-LOG-006"].faults

    assert await faults() == ()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DROP INDEX audit.{index}".encode())
        assert await faults() == (f"The index {index} is not there, or not in use.",)
        connection.execute(f"CREATE {making} WHERE position <> 2".encode())
        connection.execute("SET allow_system_table_mods = on")
        connection.execute("UPDATE pg_index SET indpred = NULL WHERE indexrelid = %s::regclass", (f"audit.{index}",))
    assert await faults() == (f"The index {index} finds 1 of 2 entries.",)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"REINDEX INDEX CONCURRENTLY audit.{index}".encode())
    assert await faults() == ()

"""What a superuser did to the database, and what neither `audit verify` nor the doctor said of it."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import psycopg
import pytest
from msgspec import Struct

from app.audit.database.doctor import examine
from app.audit.database.provision import application, prepare
from app.audit.evidence.findings import Tampered
from app.audit.evidence.trust import trust_of
from app.audit.evidence.verify import connected, verify_log
from tests.database import Databases, PrivateServer, memory
from tests.questions.platform import KEYS, Person, Town, lab


class Place(Struct):
    town: Town
    ada: Person
    bob: Person
    administrator: str
    application: str
    data: Path

    def run(self, *statements: str) -> None:
        with psycopg.connect(self.administrator, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("SET allow_system_table_mods = on")
            for statement in statements:
                connection.execute(statement.encode())

    async def faults(self) -> list[str]:
        found = await examine(self.administrator, self.application)
        return [fault for one in found for fault in one.faults if one.code != "SPH-DB-015"]

    async def is_whole(self) -> bool:
        return await self.kind() is None

    async def kind(self) -> str | None:
        """Say what `audit verify` finds."""
        trust = trust_of(self.data / "signer")
        assert trust is not None
        try:
            async with connected(self.administrator) as connection:
                await verify_log(connection, trust)
        except Tampered as error:
            return error.finding.kind
        return None


@pytest.fixture(scope="module")
async def durable() -> AsyncIterator[Databases]:
    """Databases in which the doctor finds nothing: those of all other tests are not durable."""
    with PrivateServer(below=memory()) as server:
        databases = Databases(server.dsn)
        await databases.prepare()
        yield databases


@contextlib.asynccontextmanager
async def _place(durable: Databases, data: Path) -> AsyncGenerator[Place]:
    with durable.fresh() as dsn:
        await prepare(dsn)
        own = await application(dsn, KEYS)
        async with Town.open(own, data) as town:
            ada, bob = await lab(town)
            await town.signed()
            yield Place(town, ada, bob, dsn, own, data)


@pytest.fixture
async def place(durable: Databases, tmp_path: Path) -> AsyncIterator[Place]:
    """An installation whose application is no superuser, and whose log is signed and in order."""
    async with _place(durable, tmp_path) as place:
        assert await place.is_whole()
        assert await place.faults() == []
        yield place


@pytest.mark.parametrize(
    "change",
    [
        "type = 'Heartbeat', actor = 'sophon'",
        "type = 'Heartbeat'",
        "type = type || E'\\x1f' || outcome, outcome = ''",
        "actor = NULL",
        "outcome = 'refused'",
        "tags = tags[2:]",
        "tags = ARRAY[array_to_string(tags, ',')]",
        "tags = ('[0:' || cardinality(tags) - 1 || ']=' || tags::text)::text[]",
        "at = at + interval '1 microsecond'",
        "at = 'infinity'",
        "id = gen_random_uuid()",
    ],
)
async def test_verify_finds_an_entry_that_is_searched_for_under_other_words_than_it_has(
    place: Place, change: str
) -> None:
    columns = "WHERE attrelid = 'audit.entries'::regclass AND attname = ANY('{type,actor,outcome,tags,at,id}')"
    place.run(
        f"UPDATE pg_attribute SET attgenerated = '' {columns}",
        f"UPDATE audit.entries SET {change} WHERE type = 'ProjectCreated'",
        f"UPDATE pg_attribute SET attgenerated = 's' {columns}",
    )
    assert await place.kind() == "columns"


async def test_verify_calls_no_function_that_somebody_put_before_those_of_the_database(place: Place) -> None:
    """What it is given would be what was signed, and what everybody else reads is not."""
    place.run(
        'UPDATE audit.entries SET bytes = replace(bytes::text, \'"kind":"user"\', \'"kind":"uses"\')::json'
        " WHERE type = 'ProjectCreated'",
        "CREATE SCHEMA before",
        "CREATE FUNCTION before.convert_to(text, name) RETURNS bytea LANGUAGE sql IMMUTABLE AS"
        ' $$ SELECT pg_catalog.convert_to(replace($1, \'"kind":"uses"\', \'"kind":"user"\'), $2) $$',
        "GRANT USAGE ON SCHEMA before TO PUBLIC",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = before, pg_catalog', current_database());"
        " END $$",
    )
    assert await place.kind() == "edited"


def _setting(name: str, value: str) -> str:
    return f"DO $do$ BEGIN EXECUTE format($$ALTER DATABASE %I SET {name} = '{value}'$$, current_database()); END $do$"


async def test_what_hides_is_found_whatever_names_are_quoted_by_default(place: Place) -> None:
    """With quotation marks around them, `audit` would be none of the schemas that are looked at."""
    place.run(
        _setting("quote_all_identifiers", "on"),
        "ALTER TABLE audit.entries RENAME TO true_ones",
        "CREATE VIEW audit.entries AS SELECT * FROM audit.true_ones",
    )
    assert await place.kind() == "hidden"
    assert any("is no table" in fault for fault in await place.faults())


@pytest.mark.parametrize(
    ("name", "value"),
    [("client_encoding", "SQL_ASCII"), ("DateStyle", "German"), ("standard_conforming_strings", "off")],
)
async def test_a_database_that_spells_otherwise_is_read_as_any_other(place: Place, name: str, value: str) -> None:
    place.run(_setting(name, value))
    assert await place.is_whole()
    assert await place.faults() == []


async def test_a_constraint_that_is_not_true_keeps_no_entry_from_whoever_asks(place: Place) -> None:
    place.run(
        _setting("constraint_exclusion", "on"),
        "ALTER TABLE audit.entries ADD CONSTRAINT none CHECK (type <> 'ProjectCreated') NOT VALID",
        "UPDATE pg_constraint SET convalidated = true WHERE conname = 'none'",
    )
    async with connected(place.administrator) as connection:
        cursor = await connection.execute("SELECT FROM audit.entries WHERE type = 'ProjectCreated'")
        assert await cursor.fetchall() != []
    assert any("rule that is not ours" in fault for fault in await place.faults())


async def test_somebody_finds_an_entry_before_the_first_position(place: Place) -> None:
    place.run(
        "ALTER TABLE audit.entries DROP CONSTRAINT entries_position_check",
        "INSERT INTO audit.entries (position, bytes, leaf_hash) SELECT -7,"
        " replace(bytes::text, id::text, gen_random_uuid()::text)::json, leaf_hash FROM audit.entries"
        " WHERE position = 3",
    )
    assert await place.faults(), "or the doctor stumbles"
    assert await place.kind() == "inserted"


async def test_the_doctor_finds_row_security_that_hides_a_person_from_the_application(place: Place) -> None:
    place.run(
        "ALTER TABLE audit.entries ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY hide ON audit.entries FOR SELECT USING (actor IS DISTINCT FROM '{place.bob.user}'"
        f" AND NOT ('user:{place.bob.user}' = ANY (tags)))",
    )
    report = await place.town.admin.get(f"/api/audit/subjects/user/{place.bob.user}")
    assert report["extent"]["entries"] == 0, "the application does not see him"
    assert await place.faults() != []
    assert await place.kind() == "hidden"


async def test_a_cast_that_shows_verification_the_bytes_of_before_is_found(place: Place) -> None:
    """Whoever edits an entry has its old text given to all who read it, the verifier among them."""
    with psycopg.connect(place.administrator) as connection:
        ((was, id_),) = connection.execute(
            "SELECT bytes::text, id::text FROM audit.entries WHERE position = 3"
        ).fetchall()
    place.run(
        """UPDATE audit.entries SET bytes = replace(bytes::text, '"outcome":"success"', '"outcome":"refused"')::json"""
        " WHERE position = 3",
        "CREATE FUNCTION public.shown(json) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT"
        f" CASE WHEN $1 ->> 'id' = '{id_}' THEN $was${was}$was$"
        " ELSE textin(json_out($1)) END $$",
        "CREATE CAST (json AS text) WITH FUNCTION public.shown(json)",
    )
    assert await place.kind() == "hidden"
    assert any("cast from json to text" in fault for fault in map(str, await place.faults()))


async def test_the_doctor_finds_triggers_that_keep_what_is_erased(place: Place) -> None:
    place.run(
        "SET session_replication_role = origin",
        "CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER keep BEFORE UPDATE ON vault.disclosures FOR EACH ROW EXECUTE FUNCTION public.keep()",
        "CREATE TRIGGER keep BEFORE DELETE ON vault.subject_keys FOR EACH ROW EXECUTE FUNCTION public.keep()",
    )
    assert await place.faults() != []


async def test_an_erasure_that_erased_nothing_is_not_answered_as_one(place: Place) -> None:
    place.run(
        "CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER keep BEFORE DELETE ON vault.subject_keys FOR EACH ROW EXECUTE FUNCTION public.keep()",
        "CREATE TRIGGER keep BEFORE UPDATE ON vault.disclosures FOR EACH ROW EXECUTE FUNCTION public.keep()",
    )
    boss = await place.town.person("boss", administrator=True)
    path = f"/api/audit/subjects/user/{place.ada.user}/erasure"
    await boss.do("POST", path, {})
    answer = await place.town.admin.ask("POST", path, {})
    page = answer.json()
    assert (answer.status_code, page["type"]) == (409, "/problems/not-erased")
    report = await place.town.admin.get(path.removesuffix("/erasure"))
    assert report["extent"]["erased_at"] is None, "nothing is said to have happened that did not"

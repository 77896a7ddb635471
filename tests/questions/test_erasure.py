"""Questions 24, 25, 26 and 29 of the auditor's: what is personal, where it is, and that erasing it is for ever."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg import AsyncConnection

from app.audit.entry import Context
from app.audit.sealing.sealer import digest_of
from app.domain.names import ERASED, Personal
from app.domain.reports import ReportNotebookFailed
from app.main import create_app
from app.projections.generation import Generation
from app.projections.guarded import alone
from app.projections.leftovers import NEXT
from app.projections.rebuild import rebuild
from app.projections.replay import Replay
from tests.questions.canary import ADDRESS, connected, files, sightings
from tests.questions.looking import CANARY, DOCUMENT, PAGES, SEALED, disclosed, write_canaries
from tests.questions.platform import PASSWORD, Person, Town, lab


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town.open(dsn, tmp_path) as town:
        yield town


async def second_administrator(town: Town) -> Person:
    return await town.person("grace", administrator=True)


async def asks_to_erase(who: Person, subject: str, **body: bool) -> httpx.Response:
    return await who.ask("POST", f"/api/audit/subjects/{subject}/erasure", body)


async def erase(town: Town, by: Person, *subjects: str) -> None:
    """Have two administrators erase subjects, and wait until old versions of rows are gone too."""
    for subject in subjects:
        asked = await asks_to_erase(town.admin, subject)
        assert (asked.status_code, asked.json()["status"]) == (202, "requested"), asked.text
        done = await asks_to_erase(by, subject)
        assert (done.status_code, done.json()["status"]) == (200, "erased"), done.text
    async with asyncio.timeout(30):
        await town.platform.swept(max(r.position for r in await town.since(0, "SubjectErased")))


async def everything_about(town: Town, subject: str) -> dict[str, Any]:
    return await town.admin.get(f"/api/audit/subjects/{subject}?limit=200")


async def canaries(town: Town, auditor: Person, keeper: Person) -> Person:
    """Put a canary into everything that is sealed; give whose user name it is."""
    who = await town.person(CANARY)
    who.headers |= {"X-Forwarded-For": ADDRESS}
    await write_canaries(who, auditor, keeper)
    await who.do("POST", "/api/notebooks/plots/start")
    run = (await who.get("/api/notebooks/plots"))["run"]
    failed = ReportNotebookFailed(notebook="plots", run=run, reason="exited", log=Personal(f"no {CANARY}"))
    await town.platform.dispatch(failed, Context())
    wrong = {"username": CANARY, "password": "wrong"}
    assert (await town.guest.ask("POST", "/api/session", wrong, headers=who.headers)).status_code == 401
    fields, places = await disclosed(town.admin)
    assert fields == SEALED, "a field that is sealed, and has no canary"
    assert ADDRESS in places
    return who


async def test_question_24_erased_means_unreadable_in_exports_backups_projections_caches_logs(
    town: Town, capfd: pytest.CaptureFixture[str]
) -> None:
    grace, auditor = await second_administrator(town), await town.person("eve", auditor=True)
    keeper = await town.person("may", administrator=True)
    who, bob = await canaries(town, auditor, keeper), await town.person("bob")
    await who.do("PUT", f"/api/groups/lab/members/{bob.user}")
    town.people = (bob,)
    assert (await auditor.ask("GET", f"/api/audit/subjects/user/{CANARY}")).status_code == 200
    assert (await auditor.ask("GET", f"/api/audit/subjects/user/not-{CANARY}")).status_code == 404
    before = [record.octets for record in await town.since(0)]
    seen = await sightings(town)
    for where in (
        *("read.users", "read.projects", "read.notebooks", "base/", "/api/users", "/api/audit/subjects/user"),
        *("/api/audit/state/project/", "/api/audit/diff", "/api/audit/blame/", "/explain", "/progress"),
    ):
        assert any(where in one for one in seen), f"a canary is not even found where it is: {where}, {seen}"
    await town.admin.do("PUT", f"/api/users/{keeper.user}/roles", {"administrator": False, "auditor": False})
    await erase(
        town,
        grace,
        *(f"user/{one.user}" for one in (who, auditor, keeper)),
        *("group/lab", "project/apollo", "notebook/plots", "guest/all"),
    )
    assert await sightings(town) == []
    written = capfd.readouterr()
    for canary in (CANARY, ADDRESS):
        assert canary not in written.out + written.err
    assert [record.octets for record in (await town.since(0))[: len(before)]] == before
    report = await everything_about(town, f"user/{who.user}")
    assert report["entries"]
    assert {(one["disclosure"], one["value"]) for one in report["values"]} == {(None, None)}
    assert (await town.admin.get("/api/projects/apollo"))["title"] == ERASED


async def test_what_was_erased_leaves_the_files_when_the_last_transaction_has_ended_that_may_see_it(town: Town) -> None:
    grace, who = await second_administrator(town), await town.person(CANARY)
    async with connected(town) as reading:
        await reading.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await reading.execute("SELECT count(*) FROM audit.entries")
        for administrator in (town.admin, grace):
            await asks_to_erase(administrator, f"user/{who.user}")
        [erased] = await town.since(0, "SubjectErased")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(town.platform.swept(erased.position), 1)
    async with asyncio.timeout(30):
        await town.platform.swept(erased.position)
    assert [path for path, octets in (await files(town)).items() if CANARY.encode() in octets] == []


async def test_what_was_erased_during_a_rebuild_leaves_the_files_too(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new read models hold it for as long as they have not come to the erasure, and its old rows after that."""
    grace, who = await second_administrator(town), await town.person(CANARY)
    kept, may_go_on, keep = asyncio.Event(), asyncio.Event(), Generation.keep

    async def keep_and_wait(generation: Generation, connection: AsyncConnection) -> None:
        await keep(generation, connection)
        kept.set()
        await may_go_on.wait()

    monkeypatch.setattr(Generation, "keep", keep_and_wait)
    rebuilding = asyncio.create_task(rebuild(town.platform.log, keep_old=False))
    await kept.wait()
    for administrator in (town.admin, grace):
        await asks_to_erase(administrator, f"user/{who.user}")
    [erased] = await town.since(0, "SubjectErased")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(town.platform.swept(erased.position), 2)
    may_go_on.set()
    await rebuilding
    async with asyncio.timeout(30):
        await town.platform.swept(erased.position)
    assert [path for path, octets in (await files(town)).items() if CANARY.encode() in octets] == []


async def test_what_a_rebuild_left_that_was_killed_before_an_erasure_does_not_keep_it(town: Town) -> None:
    grace, who = await second_administrator(town), await town.person(CANARY)
    log = town.platform.log
    async with alone(log), log.pool.connection() as connection:
        replay = Replay(log, Generation(log, NEXT), connection)
        await replay.begin()
        await replay.go_on(log.head)
        for administrator in (town.admin, grace):
            await asks_to_erase(administrator, f"user/{who.user}")
        [erased] = await town.since(0, "SubjectErased")
    async with asyncio.timeout(30):
        await town.platform.swept(erased.position)
    assert [path for path, octets in (await files(town)).items() if CANARY.encode() in octets] == []


async def test_every_address_that_is_there_is_looked_at(town: Town) -> None:
    routes = {route.path_format for route in create_app(town.platform).routes if "GET" in getattr(route, "methods", ())}
    documented = set((await town.admin.get(DOCUMENT))["paths"])
    assert routes - documented - {"/schema/assets/{file_path}", "/schema/{path}"} == {
        page.replace("plots", "{notebook}") for page in PAGES
    }


async def test_question_25_no_personal_data_in_leaves_by_canary_strings(town: Town) -> None:
    await canaries(town, await town.person("eve", auditor=True), await town.person("may", administrator=True))
    entries = [record.octets for record in await town.since(0)]
    assert len(entries) > 8
    for octets in entries:
        assert CANARY.encode() not in octets
        assert ADDRESS.encode() not in octets
        assert b"192.0.2.1" not in octets


async def test_question_26_everything_about_one_person_on_demand(town: Town) -> None:
    ada, bob = await lab(town)
    report = await everything_about(town, "user/bob")
    assert report["subject"] == f"user:{bob.user}"
    entries = [json.loads(json.dumps(one["entry"])) for one in report["entries"]]
    for one, entry in zip(report["entries"], entries, strict=True):
        assert one["mine"] is (entry["actor"].get("id") == bob.user)
        assert one["mine"] or f"user:{bob.user}" in entry["tags"]
    assert {"UserCreated", "LoggedIn", "MemberAdded"} <= {entry["type"] for entry in entries}
    values = {(one["name"], json.dumps(one["value"])) for one in report["values"]}
    assert ("username", '{"text": "bob"}') in values
    assert ("address", '"192.0.2.1"') in values
    by_position = {one["position"]: one["entry"] for one in report["entries"]}
    name = next(one for one in report["values"] if one["name"] == "username")
    assert digest_of(name["disclosure"]) == name["digest"]
    assert name["digest"] in by_position[name["position"]]["data"]["_sd"]
    await_next = await town.admin.get(f"/api/audit/subjects/user/{ada.user}?limit=2")
    found = [one["position"] for one in await_next["entries"]]
    while await_next["next"] is not None:
        await_next = await town.admin.get(f"/api/audit/subjects/user/{ada.user}?limit=2&after={await_next['next']}")
        found += [one["position"] for one in await_next["entries"]]
    everything = await everything_about(town, f"user/{ada.user}")
    assert found == [one["position"] for one in everything["entries"]]


async def test_question_29_nobody_erases_alone(town: Town) -> None:
    _, bob = await lab(town)
    grace, auditor = await second_administrator(town), await town.person("eve", auditor=True)
    subject, before = f"user/{bob.user}", town.head
    for who in (bob, auditor):
        assert (await asks_to_erase(who, subject)).status_code == 403
    assert (await town.guest.ask("POST", f"/api/audit/subjects/{subject}/erasure", {})).status_code == 401
    assert (await asks_to_erase(town.admin, subject)).status_code == 202
    again = await asks_to_erase(town.admin, subject)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/second-administrator-needed")
    reader = await town.bearer(grace, "read", "write", "audit")
    assert (await asks_to_erase(reader, subject)).status_code == 403
    assert "SubjectErased" not in await town.kinds(before)
    assert (await asks_to_erase(grace, subject)).status_code == 200
    kinds = await town.kinds(before)
    assert [kind for kind in kinds if kind in ("ApprovalRequested", "ApprovalGiven", "SubjectErased")] == [
        "ApprovalRequested",
        "ApprovalGiven",
        "SubjectErased",
    ]
    once_more = await asks_to_erase(town.admin, subject)
    assert (once_more.status_code, once_more.json()["status"]) == (200, "erased-before")


async def test_who_was_erased_is_out_at_once_and_does_not_come_back(town: Town) -> None:
    _, bob = await lab(town)
    grace = await second_administrator(town)
    token = await town.bearer(bob)
    for key in (bob, token):
        assert (await key.ask("GET", "/api/session")).status_code == 200
    await erase(town, grace, f"user/{bob.user}")
    for key in (bob, token):
        assert (await key.ask("GET", "/api/session")).status_code == 401
    wrong = {"username": "bob", "password": PASSWORD}
    assert (await town.guest.ask("POST", "/api/session", wrong)).status_code == 401
    await town.platform.identity.set_password(bob.user, PASSWORD)
    assert (await town.guest.ask("POST", "/api/session", wrong)).status_code == 401
    names = {row["user"]: row["username"] for row in (await town.admin.get("/api/users"))["items"]}
    assert names[bob.user] == ERASED
    assert (await everything_about(town, f"user/{bob.user}"))["extent"]["sessions_and_tokens"] == 0
    taken = await town.admin.ask("POST", "/api/users", {"username": "bob", "password": PASSWORD})
    assert taken.status_code == 409, "a name is never given to somebody else"


async def test_a_dry_run_says_what_there_is_and_changes_nothing(town: Town) -> None:
    _, bob = await lab(town)
    before = town.head
    page = (await asks_to_erase(town.admin, "user/bob", dry_run=True)).raise_for_status().json()
    assert (page["subject"], page["status"]) == (f"user:{bob.user}", "dry-run")
    assert page["extent"]["readable"] == page["extent"]["values"] >= 2
    assert page["extent"]["sessions_and_tokens"] == 1
    assert await town.kinds(before) == ["AuditQueried"]


async def test_an_administrator_is_not_erased_and_a_stranger_is_not_found(town: Town) -> None:
    grace = await second_administrator(town)
    refused = await asks_to_erase(town.admin, f"user/{grace.user}")
    assert refused.json()["type"] == "/problems/administrators-are-not-erased"
    for name in ("nobody", "usr_" + "0" * 26):
        assert (await asks_to_erase(town.admin, f"user/{name}")).status_code == 404
    for bad in ("planet/x", "user/a%20b", "user/" + "x" * 64):
        assert (await asks_to_erase(town.admin, bad)).status_code in (400, 404)


async def test_only_auditors_read_what_there_is_about_people(town: Town) -> None:
    ada, bob = await lab(town)
    assert (await ada.ask("GET", f"/api/audit/subjects/user/{bob.user}")).status_code == 403
    assert (await ada.ask("GET", f"/api/audit/subjects/user/{ada.user}")).status_code == 403
    assert (await asks_to_erase(ada, "user/bob", dry_run=True)).status_code == 403

"""Questions 2, 8, 21, 22 and 23 of the auditor's: state and the log, each held against the other."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app.domain.states import StateRebuilt, StateRepaired
from app.projections.differences import find_differences
from app.projections.generation import MODELS
from app.projections.projects import Projects
from app.projections.rebuild import rebuild
from app.projections.seals import seal_generation, verify_seals
from tests.questions.platform import Person, Town, lab

READ = (
    *("/api/users", "/api/tokens", "/api/groups", "/api/groups/lab", "/api/projects", "/api/projects/apollo"),
    *("/api/notebooks", "/api/notebooks/plots", "/api/projects?group=lab", "/api/notebooks?project=apollo"),
)


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town.open(dsn, tmp_path) as town:
        yield town


async def sql(town: Town, statement: str) -> None:
    """Do what somebody with the database's password does by hand."""
    async with town.platform.log.pool.connection() as connection:
        await connection.execute(statement.encode())


async def answers(town: Town, *who: Person) -> dict[tuple[int, str], bytes]:
    found: dict[tuple[int, str], bytes] = {}
    for number, person in enumerate(who):
        for path in READ:
            answer = await person.ask("GET", path)
            found[number, path] = f"{answer.status_code} ".encode() + answer.content
    return found


async def test_question_2_no_change_of_state_without_an_entry_drop_every_read_model_replay_equal(town: Town) -> None:
    ada, bob = await lab(town)
    await town.bearer(ada)
    eyes = (town.admin, ada, bob, town.guest)
    before = await answers(town, *eyes)
    assert before[1, "/api/projects/apollo"].startswith(b"200 ")
    assert before[3, "/api/projects/apollo"].startswith(b"404 ")
    for model in MODELS:
        await sql(town, f"DROP TABLE read.{model.table()}")
        done = await rebuild(town.platform.log)
        assert done.counts[model.table()] == await count(town, model.table()) > 0
        assert await answers(town, *eyes) == before
    await sql(town, "DROP SCHEMA read CASCADE")
    await rebuild(town.platform.log)
    assert await answers(town, *eyes) == before


async def count(town: Town, table: str) -> int:
    async with town.platform.log.pool.connection() as connection:
        cursor = await connection.execute(f"SELECT count(*) FROM read.{table}".encode())
        row = await cursor.fetchone()
    return row[0] if row else 0


async def test_question_8_before_and_after_of_each_change(town: Town) -> None:
    ada, bob = await lab(town)
    position = town.head
    await ada.do("PUT", f"/api/groups/lab/members/{bob.user}", {"role": "owner"})
    [changed] = await town.since(position, "MemberAdded")
    told = await town.admin.get(f"/api/audit/entries/{changed.position}/explain")
    assert told["sentence"] == f"ada ({ada.user}) made bob ({bob.user}) owner of the group lab."
    [of_group] = told["changed"]
    assert of_group["resource"] == "group/lab"
    fields = {change["field"]: (change["before"], change["after"]) for change in of_group["changes"]}
    assert fields.pop("position")[1] == changed.position
    assert fields == {f"members.{bob.user}": ("member", "owner")}
    [blame] = (await town.admin.get(f"/api/audit/blame/group/lab?field=members.{bob.user}"))["fields"]
    assert (blame["value"], blame["by"]["position"]) == ("owner", changed.position)
    assert blame["by"]["actor"]["id"] == ada.user


async def test_question_21_state_as_of_a_position_or_a_time_the_difference_of_two(town: Town) -> None:
    ada, bob = await lab(town)
    before, noted = town.head, datetime.now(UTC)
    await ada.do("DELETE", f"/api/groups/lab/members/{bob.user}")
    await ada.do("DELETE", "/api/notebooks/plots")
    after = town.head

    async def state(what: str, as_of: int | str | None) -> Any:
        asked = "" if as_of is None else f"?as_of={quote(str(as_of))}"
        return (await town.admin.get(f"/api/audit/state/{what}{asked}"))["state"]

    assert (await state("group/lab", before))["members"] == {ada.user: "owner", bob.user: "member"}
    assert (await state("group/lab", noted.isoformat()))["members"] == {ada.user: "owner", bob.user: "member"}
    assert (await state("group/lab", None))["members"] == {ada.user: "owner"}
    assert (await state("notebook/plots", before))["title"] == "Plots"
    assert await state("notebook/plots", after) is None
    assert await state("group/lab", "2 hours ago") is None

    page = await town.admin.get(f"/api/audit/diff?from={before}&to={after}")
    told = {one["resource"]: {change["field"]: change for change in one["changes"]} for one in page["items"]}
    assert told["group/lab"][f"members.{bob.user}"] == {"field": f"members.{bob.user}", "before": "member"}
    assert told["notebook/plots"]["title"] == {"field": "title", "before": "Plots"}
    assert set(told) == {"group/lab", "notebook/plots"}
    back = await town.admin.get(f"/api/audit/diff?from={after}&to={before}")
    undone = {one["resource"]: {change["field"]: change for change in one["changes"]} for one in back["items"]}
    assert undone["notebook/plots"]["title"] == {"field": "title", "after": "Plots"}
    assert set(undone) == set(told)
    one = await town.admin.get(f"/api/audit/diff?from={before}&to={after}&resource=notebook/plots")
    assert [item["resource"] for item in one["items"]] == ["notebook/plots"]


async def test_question_21_only_auditors_travel_in_time_and_their_travels_are_recorded(town: Town) -> None:
    ada, _ = await lab(town)
    auditor = await town.person("audrey", auditor=True)
    position = town.head
    paths = (
        *("/api/audit/state/project/apollo", "/api/audit/diff?from=1", "/api/audit/blame/project/apollo"),
        "/api/audit/entries/3/explain",
    )
    for path in paths:
        assert (await auditor.ask("GET", path)).status_code == 200
        assert (await ada.ask("GET", path)).status_code == 403
        assert (await town.guest.ask("GET", path)).status_code == 401
    asked = await town.since(position, "AuditQueried")
    assert [record.entry.actor.id for record in asked] == [auditor.user, ada.user] * len(paths)
    assert [record.entry.outcome for record in asked] == ["success", "refused"] * len(paths)


@pytest.mark.parametrize(
    ("path", "status", "problem"),
    [
        ("/api/audit/state/project/apollo?as_of=yesterdayish", 400, "not-a-moment"),
        ("/api/audit/state/project/apollo?as_of=999999", 404, "no-such-position"),
        ("/api/audit/state/comet/halley", 404, "no-such-resource"),
        ("/api/audit/blame/project/never", 404, "no-such-resource"),
        ("/api/audit/entries/999999/explain", 404, "no-such-position"),
        ("/api/audit/diff?from=soon", 400, "not-a-moment"),
    ],
)
async def test_question_21_what_never_was_is_said_to_be_so(town: Town, path: str, status: int, problem: str) -> None:
    answer = await town.admin.ask("GET", path)
    assert answer.status_code == status, answer.text
    assert answer.json()["type"] == f"/problems/{problem}"


async def test_question_22_replay_gives_the_same_state_across_releases_state_seals(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab(town)
    log = town.platform.log
    async with log.pool.connection() as connection:
        position = await seal_generation(log, connection)
    assert position is not None
    checked = await verify_seals(log)
    assert (checked.seals, checked.mismatches) == (1, [])
    evolve = Projects.evolve

    def wrong(self: Projects, row: Any, event: Any, record: Any) -> Any:
        return None if event.project == "apollo" else evolve(self, row, event, record)

    monkeypatch.setattr(Projects, "evolve", wrong)
    checked = await verify_seals(log)
    assert [(one.table, one.position) for one in checked.mismatches] == [("projects", position)]


async def test_question_23_an_edited_read_model_is_found_and_repaired(town: Town) -> None:
    ada, bob = await lab(town)
    log = town.platform.log
    before = await answers(town, town.admin, ada)
    assert (await find_differences(log)).count == 0
    await sql(town, "UPDATE read.projects SET visibility = 'public' WHERE slug = 'apollo'")
    await sql(town, "DELETE FROM read.notebooks WHERE slug = 'plots'")
    await sql(
        town,
        'INSERT INTO read.users ("user", username, administrator, auditor, created_at, position)'
        " VALUES ('usr_mallory', 'mallory', true, false, now(), 1)",
    )
    found = await find_differences(log)
    seen = {(row.table, row.key): (row.expected is not None, row.found is not None) for row in found.rows}
    assert seen == {
        ("projects", "apollo"): (True, True),
        ("notebooks", "plots"): (True, False),
        ("users", "usr_mallory"): (False, True),
    }
    [project] = [row for row in found.rows if row.table == "projects"]
    assert b'"private"' in bytes(project.expected or b"")
    assert b'"public"' in bytes(project.found or b"")

    position = town.head
    await find_differences(log, repair=True)
    assert (await find_differences(log)).count == 0
    assert await answers(town, town.admin, ada) == before
    [repaired] = await town.since(position, StateRepaired.__name__)
    assert isinstance(repaired.event, StateRepaired)
    assert (repaired.event.rows, set(repaired.event.tables)) == (3, {"users", "projects", "notebooks"})
    assert bob.user in str(before)


async def test_question_23_a_rebuild_tells_what_had_been_edited(town: Town) -> None:
    await lab(town)
    await sql(town, "UPDATE read.projects SET visibility = 'public' WHERE slug = 'apollo'")
    position = town.head
    done = await rebuild(town.platform.log)
    assert {table: number for table, number in done.counts.items() if number} == {"projects": 1}
    [rebuilt] = await town.since(position, StateRebuilt.__name__)
    assert isinstance(rebuilt.event, StateRebuilt)
    assert rebuilt.event.differences == 1
    assert (await town.admin.get("/api/projects/apollo"))["visibility"] == "private"

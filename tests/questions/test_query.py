"""Question 20, asked of the platform as an auditor asks it: by every key, page by page, as it comes, and wrongly."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest

from app.api import audit
from tests.questions.platform import HOME, Person, Town, lab

DOCUMENTATION = Path(__file__).parents[2] / "docs/query-language.md"
PRESENT = 'time:"1 hour ago"'


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with Town.open(dsn, tmp_path) as town:
        yield town


async def types(who: Person, q: str, **parameters: object) -> list[str]:
    """Name what a query finds."""
    more = "".join(f"&{name}={value}" for name, value in parameters.items())
    page = await who.get(f"/api/audit/entries?limit=200&q={quote(q)}{more}")
    return [item["entry"]["type"] for item in page["items"]]


async def test_question_20_search_by_actor_resource_action_outcome_time_request_address_subject(town: Town) -> None:
    ada, bob = await lab(town)
    refused = await bob.ask("POST", "/api/projects", {"slug": "apollo", "group": "lab", "title": "Again"})
    assert refused.status_code == 409
    by_bob = await types(town.admin, "actor:bob outcome:refused")
    assert by_bob == ["CommandRefused"]
    assert await types(town.admin, f"actor:{ada.user} action:project.*") == ["ProjectCreated"]
    assert await types(town.admin, "resource:project/apollo -actor:bob changed:title") == [
        "ProjectCreated",
        "NotebookCreated",
    ]
    assert await types(town.admin, "resource:project/ap* reason:*-taken") == ["CommandRefused"]
    assert await types(town.admin, f"request:{refused.headers['X-Request-Id']}") == ["CommandRefused"]
    assert await types(town.admin, f"address:{HOME} actor:bob -action:session.*") == ["CommandRefused"]
    assert await types(town.admin, "address:203.0.113.9") == []
    assert await types(town.admin, "subject:user/bob changed:role") == ["MemberAdded"]
    assert set(await types(town.admin, "subject:bob")) == {"UserCreated", "LoggedIn", "MemberAdded", "CommandRefused"}
    assert await types(town.admin, f"actor:bob {PRESENT}") == await types(town.admin, "actor:bob")
    assert await types(town.admin, "actor:bob time:2025") == []


async def test_pages_go_on_where_the_one_before_ended_in_both_orders(town: Town) -> None:
    await lab(town)
    everything = range(1, town.head + 1)
    for order, cursor in (("oldest", "after"), ("newest", "before")):
        found: list[int] = []
        at = ""
        while len(found) < len(everything):
            page = await town.admin.get(f"/api/audit/entries?limit=3&order={order}&q=position:..{everything[-1]}{at}")
            found += [item["position"] for item in page["items"]]
            at = f"&{cursor}={page['next']}"
        assert found == sorted(everything, reverse=order == "newest")


async def test_a_page_may_be_short_though_there_is_more_and_going_on_misses_nothing(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lab(town)
    q = f"action:group.*,user.* -reason:nothing position:..{town.head}"
    expected = await types(town.admin, q)
    assert len(set(expected)) > 1
    for name, value in {"PATIENCE": 0, "FIRST": 2, "NARROW": 0}.items():
        monkeypatch.setattr(f"app.audit.query.search.{name}", value)
    for order, cursor in (("oldest", "after"), ("newest", "before")):
        found: list[str] = []
        lengths: list[int] = []
        at, more = "", True
        while more:
            page = await town.admin.get(f"/api/audit/entries?limit=3&order={order}&q={quote(q)}{at}")
            found += [item["entry"]["type"] for item in page["items"]]
            lengths.append(len(page["items"]))
            at, more = f"&{cursor}={page['next']}", page["more"]
        assert found == (expected if order == "oldest" else expected[::-1])
        assert min(lengths[:-1]) < 3


async def test_a_query_that_makes_no_sense_is_a_problem_of_the_field_q(town: Town) -> None:
    for q in ("acter:ada", "actor:eve"):
        answer = await town.admin.ask("GET", f"/api/audit/entries?q={q}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
        (error,) = answer.json()["errors"]
        assert error["field"] == "q"
        assert re.search("did you mean actor\\? \\(column 1\\)|There is no user 'eve'", error["message"])


async def test_reading_the_log_is_itself_logged_with_what_was_asked(town: Town) -> None:
    head = town.head
    await types(town.admin, "actor:admin")
    await town.admin.get("/api/audit/entries/1")
    first, second = await town.since(head, "AuditQueried")
    assert (first.entry.actor.id, first.entry.outcome) == (town.admin.user, "success")
    assert [b'"question":"entries"' in bytes(first.entry.data), b'"question":"entry"' in bytes(second.entry.data)] == [
        True
    ] * 2
    assert b"actor:admin" not in first.octets  # it may name people: it is sealed


async def test_who_is_no_auditor_learns_nothing_and_is_recorded(town: Town) -> None:
    ada, _ = await lab(town)
    auditor = await town.person("grace", auditor=True)
    for path in ("/api/audit/entries", "/api/audit/entries/1", "/api/audit/tail"):
        assert (await ada.ask("GET", path)).status_code == 403
    assert await types(auditor, "actor:ada action:audit.queried") == ["AuditQueried"] * 3
    assert await types(auditor, "actor:ada reason:auditors-only") == ["AuditQueried"] * 3


async def test_one_entry_is_given_to_the_byte_and_none_beyond_the_end(town: Town) -> None:
    (record,) = (await town.platform.log.read(limit=1)).records
    answer = await town.admin.ask("GET", "/api/audit/entries/1")
    assert answer.content == b'{"position":1,"entry":%b}' % record.octets
    assert (await town.admin.ask("GET", "/api/audit/entries/1000000")).status_code == 404


async def test_a_follower_is_told_what_it_asks_for_from_where_it_was_until_its_right_ends(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "HEARTBEAT", 0.05)
    auditor = await town.person("grace", auditor=True)
    begin = town.head
    await town.admin.do("POST", "/api/groups", {"slug": "before", "title": "Before"})
    stream = asyncio.create_task(
        auditor.ask("GET", "/api/audit/tail?q=action:group.*", headers={"Last-Event-ID": str(begin)})
    )
    await asyncio.sleep(0.2)
    await town.admin.do("POST", "/api/groups", {"slug": "meanwhile", "title": "Meanwhile"})
    await town.admin.do("POST", "/api/projects", {"slug": "not-asked-for", "group": "meanwhile", "title": "No"})
    await asyncio.sleep(0.3)
    assert not stream.done()
    await auditor.do("DELETE", "/api/session")
    answer = await asyncio.wait_for(stream, 10)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    events = [part for part in answer.text.split("\n\n") if "\ndata: " in part]
    assert [re.findall('"group:([a-z]+)"', event) for event in events] == [["before"], ["meanwhile"]]
    assert [int(event.split()[1]) for event in events] == [
        record.position for record in await town.since(begin, "GroupCreated")
    ]
    assert ": heartbeat" in answer.text


def examples() -> list[str]:
    """Give the examples of the documentation."""
    return DOCUMENTATION.read_text().split("```\n")[1].splitlines()


async def test_every_example_of_the_documentation_is_answered(town: Town) -> None:
    await lab(town)
    assert len(examples()) == 10
    for example in examples():
        assert isinstance(await types(town.admin, example), list)
    assert await types(town.admin, "changed:role resource:group/lab") == ["MemberAdded"]

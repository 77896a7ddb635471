"""Every act is an entry: what an auditor asks about who did what, and what was only looked at or refused."""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from litestar.routes import HTTPRoute
from psycopg.conninfo import conninfo_to_dict

import app.acts as acts_module
from app.acts import AGAIN, Acts
from app.api.auth import Asker
from app.audit import writer
from app.audit.entry import Context, Record
from app.dispatch import GUESTS, REFUSALS, Dispatch
from app.domain.audits import AuditorsOnly, AuditQueried, GuestsRefused, RequestRefused
from app.domain.names import NotebookName, Personal
from app.domain.runs import RunId
from app.domain.users import UserRolesChanged
from app.main import create_app
from app.runtime.engine import EngineError, Instance
from app.runtime.supervisor import Supervisor
from app.telemetry import UNRECORDED, WRITABLE
from tests.database import end
from tests.questions.platform import HOME, KEYS, PASSWORD, Person, Town, lab

SAFE = ("GET", "HEAD", "OPTIONS")


@pytest.fixture
async def town(dsn: str, tmp_path: Path) -> AsyncIterator[Town]:
    """A platform with its administrator."""
    async with Town.open(dsn, tmp_path) as town:
        yield town


async def the_one(town: Town, position: int, type_: str) -> Record:
    """Give the one entry of a type after a position."""
    (found,) = await town.since(position, type_)
    return found


async def test_question_1_who_what_when_where_outcome_on_every_entry(town: Town) -> None:
    ada, _ = await lab(town)
    assert (await ada.ask("POST", "/api/groups", {"slug": "lab", "title": "Again"})).status_code == 409
    for record in (await town.since(0))[1:]:
        entry = record.entry
        assert entry.actor.kind == "user"
        assert re.fullmatch("usr_[0-9a-v]{26}", entry.actor.id or "")
        assert entry.actor.via == "session"
        assert entry.type
        assert entry.outcome == ("refused" if entry.type == "CommandRefused" else "success")
        assert abs(datetime.now(UTC) - entry.at) < timedelta(minutes=1)
        assert entry.request
        assert entry.source, "where: the address is sealed, and stands as its digest"
        assert HOME.encode() not in record.octets
    first = (await town.since(0))[0].entry
    assert first.actor.kind == "system", "the account that an installation begins with is nobody's request"


CHANGES: dict[tuple[str, str], tuple[str, Any]] = {
    ("POST", "/api/session"): ("/api/session", {"username": "ada", "password": PASSWORD}),
    ("POST", "/sign-in"): ("/sign-in", None),
    ("POST", "/api/users"): ("/api/users", {"username": "may", "password": PASSWORD}),
    ("PUT", "/api/users/{user}/roles"): ("/api/users/{bob}/roles", {"administrator": False, "auditor": True}),
    ("POST", "/api/groups"): ("/api/groups", {"slug": "other", "title": "Other"}),
    ("PUT", "/api/groups/{group}/members/{user}"): ("/api/groups/lab/members/{admin}", {"role": "owner"}),
    ("DELETE", "/api/groups/{group}/members/{user}"): ("/api/groups/lab/members/{bob}", None),
    ("POST", "/api/projects"): ("/api/projects", {"slug": "gemini", "group": "lab", "title": "Gemini"}),
    ("POST", "/api/notebooks"): ("/api/notebooks", {"slug": "more", "project": "apollo", "title": "More"}),
    ("POST", "/api/notebooks/{notebook}/start"): ("/api/notebooks/plots/start", None),
    ("POST", "/api/notebooks/{notebook}/stop"): ("/api/notebooks/plots/stop", None),
    ("DELETE", "/api/notebooks/{notebook}"): ("/api/notebooks/plots", None),
    ("POST", "/api/audit/rotations"): ("/api/audit/rotations", None),
    ("POST", "/api/audit/subjects/{kind}/{name}/erasure"): ("/api/audit/subjects/user/{bob}/erasure", {}),
    ("PUT", "/api/audit/holds/{kind}/{name}"): ("/api/audit/holds/project/apollo", {"reason": {"text": "A case"}}),
    ("POST", "/api/audit/holds/{kind}/{name}/lifting"): ("/api/audit/holds/project/apollo/lifting", None),
    ("POST", "/api/tokens"): ("/api/tokens", {"title": "laptop"}),
    ("DELETE", "/api/tokens/{token}"): ("/api/tokens/{made}", None),
    ("PUT", "/api/session/password"): ("/api/session/password", {"old": PASSWORD, "new": "another long password"}),
    ("DELETE", "/api/session"): ("/api/session", None),
}
"""Method and route -> what to ask of it, so that it changes something, in this order. A new route is a line here."""

OWN = {
    ("POST", "/api/session"),
    ("POST", "/sign-in"),
    ("DELETE", "/api/session"),
    ("PUT", "/api/session/password"),
    ("POST", "/api/tokens"),
    ("DELETE", "/api/tokens/{token}"),
}
"""What an auditor may change: their own session, password and tokens."""


def routes_of(town: Town) -> set[tuple[str, str]]:
    """Name every method and route that there is."""
    routes = [route for route in create_app(town.platform).routes if isinstance(route, HTTPRoute)]
    return {(method, re.sub(":[a-z]+}", "}", route.path)) for route in routes for method in route.methods}


def mutating(town: Town) -> set[tuple[str, str]]:
    """Name every route that may change something."""
    return {(method, path) for method, path in routes_of(town) if method not in SAFE}


async def test_question_2_no_change_of_state_without_an_entry_every_mutating_route_appends(town: Town) -> None:
    assert mutating(town) == set(CHANGES)
    _, bob = await lab(town)
    names = {"bob": bob.user, "admin": town.admin.user}
    for (method, route), (path, body) in CHANGES.items():
        before = town.head
        if route == "/sign-in":
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = await town.client.post(path, content=f"username=bob&password={PASSWORD}", headers=form)
            town.client.cookies.clear()
        else:
            answer = await town.admin.ask(method, path.format(**names), body)
        assert answer.status_code in (200, 201, 202, 204, 303), f"{method} {path}: {answer.text}"
        if route == "/api/tokens":
            names["made"] = answer.json()["token"]
        appended = await town.since(before)
        assert [one.entry.outcome for one in appended] == ["success"], f"{method} {path}"


async def test_question_4_refused_and_failed_attempts_with_the_reason(town: Town) -> None:
    ada, _ = await lab(town)
    eve = await town.person("eve")
    reader = await town.bearer(ada, "read")
    csrf = {**eve.headers, "X-CSRF-Token": "0" * 64}
    asked: list[tuple[Person, str, str, Any, str]] = [
        (eve, "GET", "/api/projects/apollo", None, "no-such-project"),
        (eve, "GET", "/api/notebooks/plots", None, "no-such-notebook"),
        (eve, "POST", "/api/notebooks/plots/start", None, "members-only"),
        (eve, "GET", "/api/projects/apollo/visits", None, "no-such-project"),
        (eve, "GET", "/metrics", None, "administrators-only"),
        (eve, "PUT", f"/api/users/{eve.user}/roles", {"administrator": True, "auditor": True}, "administrators-only"),
        (reader, "POST", "/api/groups", {"slug": "more", "title": "More"}, "scope-missing"),
        (Person(town.client, eve.user, csrf), "POST", "/api/groups", {"slug": "x", "title": "X"}, "csrf-token-missing"),
        (
            Person(town.client, eve.user, {**eve.headers, "Origin": "http://evil.example"}),
            "POST",
            "/api/groups",
            {"slug": "x", "title": "X"},
            "cross-origin",
        ),
    ]
    for who, method, path, body, reason in asked:
        before = town.head
        answer = await who.ask(method, path, body)
        assert answer.status_code in (403, 404), path
        refused = [one.entry for one in await town.since(before) if one.entry.type != "TokenUsed"]
        assert [(one.outcome, one.reason, one.actor.id) for one in refused] == [("refused", reason, who.user)], path
        assert refused[0].request == answer.headers["X-Request-Id"]
    hidden = (await town.since(0, "RequestRefused"))[0]
    assert hidden.entry.tags == ("project:apollo",), "who looks for something that is hidden is filed under it"
    assert hidden.event == RequestRefused(method="GET", route="/api/projects/{project}")


async def test_question_4_a_wrong_password_is_recorded_and_the_throttle_that_follows_is_counted(town: Town) -> None:
    await town.person("eve")
    before = town.head
    for _ in range(12):
        await town.guest.ask("POST", "/api/session", {"username": "eve", "password": "guess"})
    found = await town.since(before)
    assert [(one.entry.type, one.entry.reason) for one in found] == [("LoginRefused", "bad-credentials")] * 10
    await town.platform.acts.tell()
    counted = await the_one(town, before, "GuestsRefused")
    assert isinstance(counted.event, GuestsRefused)
    assert (counted.event.reason, counted.event.count) == ("too-many-attempts", 2)


async def test_question_4_nobody_floods_the_log_with_refusals(town: Town) -> None:
    eve = await town.person("eve")
    await town.platform.acts.tell()
    before = town.head
    for _ in range(REFUSALS + 5):
        assert (await eve.ask("GET", "/api/projects/hidden")).status_code == 404
    for _ in range(20):
        assert (await town.guest.ask("GET", "/api/users")).status_code == 401
    forged = Person(town.client, "", {"Authorization": "Bearer nonsense"})
    assert (await forged.ask("GET", "/api/users")).status_code == 401
    assert await town.kinds(before) == ["RequestRefused"] * REFUSALS
    await town.platform.acts.tell()
    rest = (await town.since(before))[REFUSALS:]
    counts = {(one.entry.reason, one.entry.actor.id): getattr(one.event, "count", None) for one in rest}
    assert counts == {("not-authenticated", None): 20, ("bad-token", None): 1, ("no-such-project", eve.user): 5}
    await town.platform.acts.tell()
    assert len(await town.since(before)) == REFUSALS + 3, "what was told is not told again"


async def test_question_4_nobody_floods_the_log_from_many_addresses_or_with_commands(town: Town) -> None:
    eve = await town.person("eve")
    await town.platform.acts.tell()
    before = town.head
    for number in range(GUESTS + 20):
        asked = {"username": f"nobody{number}", "password": "guess"}
        answer = await town.guest.ask("POST", "/api/session", asked, headers={"X-Forwarded-For": f"2001:db8::{number}"})
        assert answer.status_code == 401
    for number in range(5):  # the form too
        form = {"Content-Type": "application/x-www-form-urlencoded", "X-Forwarded-For": f"2001:db8:1::{number}"}
        answer = await town.client.post("/sign-in", content=f"username=no{number}&password=guess", headers=form)
        assert answer.status_code == 401
    for _ in range(REFUSALS + 3):
        body = {"username": "may", "password": PASSWORD}
        assert (await eve.ask("POST", "/api/users", body)).status_code == 403
        assert (await eve.ask("GET", "/api/audit/entries")).status_code == 403
    half = REFUSALS // 2
    assert Counter(await town.kinds(before)) == {"LoginRefused": GUESTS, "CommandRefused": half, "AuditQueried": half}
    await town.platform.acts.tell()
    rest = (await town.since(before))[GUESTS + REFUSALS :]
    assert {(one.entry.reason, one.entry.actor.id): getattr(one.event, "count", None) for one in rest} == {
        ("bad-credentials", None): 25,
        ("administrators-only", eve.user): REFUSALS + 3 - half,
        ("auditors-only", eve.user): REFUSALS + 3 - half,
    }
    assert (await eve.ask("POST", "/api/users", {"username": "may", "password": PASSWORD})).status_code == 403
    assert (await town.kinds(before))[-1] == "CommandRefused", "in the next minute it is told by itself again"


async def test_question_5_login_logout_tokens_made_used_revoked_roles_changed(town: Town) -> None:
    before = town.head
    ada = await town.person("ada")
    holder = await town.bearer(ada)
    for _ in range(3):
        assert (await holder.ask("GET", "/api/session")).status_code == 200
    token = (await ada.get("/api/tokens"))["items"][0]["token"]
    await ada.do("DELETE", f"/api/tokens/{token}")
    await town.admin.do("PUT", f"/api/users/{ada.user}/roles", {"administrator": False, "auditor": True})
    await ada.do("DELETE", "/api/session")
    kinds = await town.kinds(before)
    acts = ["UserCreated", "LoggedIn", "TokenIssued", "TokenUsed", "TokenRevoked", "UserRolesChanged", "LoggedOut"]
    assert kinds == acts
    used = await the_one(town, before, "TokenUsed")
    assert (used.entry.actor.via, used.entry.tags) == ("token", (f"token:{token}", f"user:{ada.user}"))
    changed = await the_one(town, before, "UserRolesChanged")
    assert changed.event == UserRolesChanged(
        user=ada.user, administrator=False, auditor=True, was_administrator=False, was_auditor=False
    )
    assert (changed.entry.actor.id, changed.entry.actor.role) == (town.admin.user, "administrator")


async def test_question_5_a_token_that_is_used_after_an_hour_is_recorded_as_used_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = await town.bearer(await town.person("ada"))
    passed, before = 0.0, town.head
    monkeypatch.setattr(
        acts_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed, time=time.time)
    )
    for seconds, uses in ((0.0, 1), (AGAIN - 60, 1), (AGAIN + 1, 2), (2 * AGAIN - 60, 2)):
        passed = seconds
        assert (await holder.ask("GET", "/api/session")).status_code == 200
        assert len(await town.since(before, "TokenUsed")) == uses, f"after {seconds:.0f} s"


async def test_question_5_a_changed_role_is_in_force_with_the_next_request(town: Town) -> None:
    ada = await town.person("ada")
    path = f"/api/users/{ada.user}/roles"
    assert (await ada.get("/api/session"))["auditor"] is False
    for role in (True, False, True):
        await town.admin.do("PUT", path, {"administrator": role, "auditor": not role})
        page = await ada.get("/api/session")
        assert (page["administrator"], page["auditor"]) == (role, not role)
        assert (await ada.ask("GET", "/metrics")).status_code == (200 if role else 403)
    await ada.do("PUT", f"/api/users/{town.admin.user}/roles", {"administrator": False, "auditor": False})
    last = await ada.ask("PUT", path, {"administrator": False, "auditor": False})
    assert (last.status_code, last.json()["type"]) == (409, "/problems/last-administrator")


class Broken:
    """An engine that cannot create anything."""

    name = "process"

    async def instances(self, notebook: NotebookName | None = None) -> list[Instance]:
        return []

    async def create(self, notebook: NotebookName, run: RunId, token: str) -> None:
        raise EngineError("There is no room.")

    async def happenings(self) -> AsyncIterator[NotebookName | None]:
        yield None  # look at all of them
        await asyncio.Event().wait()


async def test_question_5_acting_on_behalf_as_the_runtime_does_of_whoever_asked_and_because_of_that(town: Town) -> None:
    ada, _ = await lab(town)
    log = town.platform.log
    supervisor = Supervisor(log, Broken(), KEYS, timedelta(seconds=5))  # pyright: ignore[reportArgumentType]
    running = asyncio.create_task(supervisor.run())
    try:
        before = town.head
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        asked = await ada.ask("POST", "/api/notebooks/plots/start", headers={"traceparent": trace})
        assert asked.status_code == 202
        async with asyncio.timeout(10):
            while not (await town.since(before, "NotebookFailed")):
                await asyncio.sleep(0.01)
    finally:
        await end(running)
    wish = (await the_one(town, before, "NotebookStartRequested")).entry
    reports = [(await the_one(town, before, type_)).entry for type_ in ("NotebookCreationBegan", "NotebookFailed")]
    for report in reports:
        assert (report.actor.kind, report.actor.id, report.actor.obo) == ("system", "sophon", ada.user)
        assert (report.cause, report.trace) == (wish.id, trace)


async def test_question_6_reads_of_secrets_and_of_private_things(town: Town) -> None:
    ada, bob = await lab(town)
    await ada.do("POST", "/api/projects", {"slug": "open", "group": "lab", "title": "Open", "visibility": "public"})
    eve, before = await town.person("eve"), town.head
    for _ in range(3):
        for path in ("projects/apollo", "notebooks/plots", "groups/lab", "users", "projects", "notebooks"):
            await bob.get(f"/api/{path}")
    seen = [one.entry for one in await town.since(before)]
    assert [one.type for one in seen] == [
        *("ProjectViewed", "NotebookViewed", "GroupViewed", "UsersListed", "ProjectsListed", "NotebooksListed")
    ], "each once in an hour"
    assert {(one.actor.id, one.actor.role, one.outcome) for one in seen} == {(bob.user, None, "success")}
    assert seen[4].tags == seen[5].tags == ("project:apollo",)
    before = town.head
    for who in (eve, town.guest):
        for path in ("projects/open", "projects", "notebooks"):
            await who.get(f"/api/{path}")
    assert await town.kinds(before) == [], "what is public is nobody's secret"


async def test_question_6_a_failure_log_of_a_notebook_is_private_whatever_its_project_is(town: Town) -> None:
    ada, bob = await lab(town)
    await ada.do("POST", "/api/projects", {"slug": "open", "group": "lab", "title": "O", "visibility": "public"})
    await ada.do("POST", "/api/notebooks", {"slug": "free", "project": "open", "title": "Free"})
    supervisor = Supervisor(town.platform.log, Broken(), KEYS, timedelta(seconds=5))  # pyright: ignore[reportArgumentType]
    running = asyncio.create_task(supervisor.run())
    await ada.do("POST", "/api/notebooks/free/start")
    async with asyncio.timeout(10):
        while (await town.guest.get("/api/notebooks/free"))["status"] != "failed":
            await asyncio.sleep(0.01)
    await end(running)
    before = town.head
    assert (await town.guest.get("/api/notebooks/free"))["log"] is None
    assert await town.kinds(before) == []
    assert (await bob.get("/api/notebooks/free"))["log"] == "There is no room."
    assert (await the_one(town, before, "NotebookViewed")).entry.actor.id == bob.user


async def test_question_6_what_an_administrator_does_in_a_project_of_others_its_members_see(town: Town) -> None:
    ada, bob = await lab(town)
    eve = await town.person("eve")
    assert await ada.get("/api/projects/apollo/visits") == {"items": [], "next": None}
    await town.admin.get("/api/projects")
    await town.admin.get("/api/projects/apollo")
    await town.admin.get("/api/notebooks/plots")
    await town.admin.do("POST", "/api/notebooks/plots/start")
    await town.admin.do("DELETE", "/api/notebooks/plots")
    await bob.do("POST", "/api/notebooks", {"slug": "mine", "project": "apollo", "title": "Mine"})
    page = await bob.get("/api/projects/apollo/visits")
    assert [item["action"] for item in page["items"]] == [
        *("NotebookDeleted", "NotebookStartRequested", "NotebookViewed", "ProjectViewed", "ProjectsListed")
    ]
    assert {(item["user"], item["username"]) for item in page["items"]} == {(town.admin.user, "admin")}
    assert "notebook:plots" in page["items"][1]["on"]
    first = await bob.get("/api/groups/lab/visits?limit=2")
    rest = await bob.get(f"/api/groups/lab/visits?before={first['next']}")
    assert first["items"] + rest["items"] == page["items"]
    assert (await eve.ask("GET", "/api/projects/apollo/visits")).status_code == 404
    assert (await eve.ask("GET", "/api/groups/lab/visits")).status_code == 403
    assert (await town.guest.ask("GET", "/api/groups/lab/visits")).status_code == 401


async def test_question_6_an_administrator_who_is_a_member_visits_nobody(town: Town) -> None:
    ada, _ = await lab(town)
    await ada.do("PUT", f"/api/groups/lab/members/{town.admin.user}")
    await town.admin.get("/api/projects/apollo")
    await town.admin.do("POST", "/api/notebooks/plots/start")
    assert (await ada.get("/api/projects/apollo/visits"))["items"] == []


async def asker_of(town: Town, person: Person) -> Asker:
    """Make what a route is given of whoever asks."""
    scheme = "token" if "Authorization" in person.headers else "session"
    secret = person.headers.get("Authorization", "").removeprefix("Bearer ")
    secret = secret or person.headers["Cookie"].partition("=")[2]
    principal = await town.platform.identity.who(secret, scheme)
    assert principal is not None
    return Asker(principal, Context(actor=principal.actor), town.platform.dispatch, town.platform.acts)


async def test_question_7_reading_the_log_is_itself_logged_each_time_and_refused_to_others(town: Town) -> None:
    ada, eve = await town.person("ada", auditor=True), await town.person("eve")
    query = AuditQueried(question="entries", about=Personal("actor:canary"))
    allowed = [
        *(town.admin, ada),
        *(
            await town.bearer(ada, "audit"),
            await town.bearer(town.admin, "audit"),
            await town.bearer(town.admin, "admin"),
        ),
    ]
    for who in allowed:
        before = town.head
        await (await asker_of(town, who)).audit(query)
        await (await asker_of(town, who)).audit(query)
        found = await town.since(before)
        assert [(one.entry.type, one.entry.actor.id, one.entry.outcome) for one in found] == [
            ("AuditQueried", who.user, "success")
        ] * 2
        assert not any(b"canary" in one.octets for one in found)
    for who in (eve, await town.bearer(ada, "read", "write"), await town.bearer(eve)):
        before = town.head
        with pytest.raises(AuditorsOnly) as refused:
            await (await asker_of(town, who)).audit(query)
        assert refused.value.recorded
        entry = (await the_one(town, before, "AuditQueried")).entry
        assert (entry.outcome, entry.reason, entry.actor.id) == ("refused", "auditors-only", who.user)


READS = {
    "/api/audit/entries": ("?q=actor:bob", "entries"),
    "/api/audit/entries/{position}": ("/api/audit/entries/1", "entry"),
    "/api/audit/entries/{position}/explain": ("/api/audit/entries/1/explain", "explain"),
    "/api/audit/entries/{position}/proof": ("/api/audit/entries/1/proof", "proof"),
    "/api/audit/tail": ("", "tail"),
    "/api/audit/state/{kind}/{name}": ("/api/audit/state/project/apollo", "state"),
    "/api/audit/diff": ("?from=1&to=2", "diff"),
    "/api/audit/blame/{kind}/{name}": ("/api/audit/blame/project/apollo", "blame"),
    "/api/audit/subjects/{kind}/{name}": ("/api/audit/subjects/user/{bob}", "subject"),
    "/api/audit/retention": ("", "holds"),
    "/api/audit/approvals": ("", "approvals"),
    "/audit/log/tile/entries/{path}": ("/audit/log/tile/entries/000.p/1", "export"),
}
"""Route that reads the log -> what to ask of it (or what to add to it), and as what that stands in the log."""

PUBLIC = {
    "/audit/log/checkpoint": "a signed size and root: it is for everybody, and says nothing of any entry",
    "/audit/log/vkeys": "public keys",
    "/audit/log/tile/{level}/{path}": "hashes, which say nothing of what was hashed",
}
"""Routes about the log of which no reading is recorded, and why."""


async def test_question_7_every_route_that_reads_the_log_says_who_asked_what(town: Town) -> None:
    _, bob = await lab(town)
    auditor = await town.person("may", auditor=True)
    about_the_log = {path for method, path in routes_of(town) if method == "GET" and "audit" in path}
    assert about_the_log == READS.keys() | PUBLIC.keys()
    await town.signed()
    for route, (asked, question) in READS.items():
        path = asked.format(bob=bob.user) if asked.startswith("/") else route + asked
        await town.platform.acts.tell()  # so that each refusal is told by itself
        before = town.head
        asking = asyncio.create_task(auditor.ask("GET", path))
        found = await until(town, before, "AuditQueried")
        if route.endswith("/tail"):
            asking.cancel()
            await asyncio.wait({asking})
        else:
            assert (await asking).status_code == 200, f"{path}: {asking.result().text}"
        assert (getattr(found.event, "question", ""), found.entry.outcome) == (question, "success"), path
        assert found.entry.actor.id == auditor.user
        assert (await bob.ask("GET", path)).status_code == 403, path
        refused = (await town.since(before, "AuditQueried"))[-1]
        assert (refused.entry.outcome, refused.entry.actor.id) == ("refused", bob.user), path
        assert (await town.guest.ask("GET", path)).status_code == 401, path


async def test_question_9_an_actors_id_is_stable_and_never_reused(town: Town) -> None:
    ada = await town.person("ada")
    token = await town.bearer(ada)
    await token.do("POST", "/api/groups", {"slug": "one", "title": "One"})
    again = await town.log_in("ada")
    await again.do("POST", "/api/groups", {"slug": "two", "title": "Two"})
    made = await town.since(0, "GroupCreated")
    assert {(one.entry.actor.id) for one in made} == {ada.user}
    taken = await town.admin.ask("POST", "/api/users", {"username": "ada", "password": PASSWORD})
    assert taken.status_code == 409
    others = [await town.person(name) for name in ("bob", "eve", "may")]
    assert len({ada.user, town.admin.user, *(one.user for one in others)}) == 5


async def test_question_10_all_entries_of_one_request_share_its_id(town: Town) -> None:
    ada, _ = await lab(town)
    holder = await town.bearer(ada)
    before = town.head
    answer = await holder.ask("GET", "/api/projects/apollo")
    found = await town.since(before)
    assert [one.entry.type for one in found] == ["TokenUsed", "ProjectViewed"]
    assert {one.entry.request for one in found} == {answer.headers["X-Request-Id"]}
    other = await holder.ask("POST", "/api/groups", {"slug": "more", "title": "More"})
    assert other.headers["X-Request-Id"] != answer.headers["X-Request-Id"]
    assert (await town.since(before))[-1].entry.request == other.headers["X-Request-Id"]


async def test_question_11_server_time_non_decreasing_whatever_the_clock_does(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await town.person("ada")

    class Back(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - timedelta(hours=1)

    for number, clock in enumerate((datetime, Back, datetime)):
        monkeypatch.setattr(writer, "datetime", clock)
        await ada.do("POST", "/api/groups", {"slug": f"g{number}", "title": "G"})
    times = [one.entry.at for one in await town.since(0)]
    assert times == sorted(times)


@contextlib.asynccontextmanager
async def going(town: Town, monkeypatch: pytest.MonkeyPatch, silence: float) -> AsyncGenerator[None]:
    """Have what looks after the log run every moment."""
    monkeypatch.setattr(acts_module, "TICK", 0.02)
    log = town.platform.log
    task = asyncio.create_task(Acts(town.platform.dispatch, lambda: log.head).run(silence))
    try:
        yield
    finally:
        await end(task)


async def until(town: Town, position: int, type_: str) -> Record:
    """Wait for an entry of a type."""
    async with asyncio.timeout(10):
        while not (found := await town.since(position, type_)):
            await asyncio.sleep(0.02)
    return found[0]


async def test_question_11_a_clock_that_steps_back_is_logged(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    before, shown = town.head, acts_module._clock()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(acts_module, "_clock", lambda: shown)
    async with going(town, monkeypatch, 0):
        await asyncio.sleep(0.1)
        assert await town.kinds(before) == []
        shown -= 90.5
        stepped = await until(town, before, "ClockSteppedBack")
        assert getattr(stepped.event, "seconds", None) == 90
        await asyncio.sleep(0.1)
        kinds = await town.kinds(before)
        assert kinds in (["ClockSteppedBack"], ["ClockSteppedBack"] * 2)  # the town itself may have looked, too


async def test_question_25_no_personal_data_in_leaves(town: Town) -> None:
    canary = "canary"
    ada = await town.person(f"{canary}-ada")
    headers = {"User-Agent": canary, "X-Forwarded-For": f"{canary}.example"}
    await ada.ask("POST", "/api/groups", {"slug": "lab", "title": f"{canary} lab"}, headers=headers)
    await ada.ask("GET", f"/api/users?after={canary}", headers=headers)
    await ada.ask("POST", "/api/tokens", {"title": canary}, headers=headers)
    await ada.ask("POST", "/api/projects", {"slug": "lab", "group": "lab", "title": canary}, headers=headers)
    await ada.ask("GET", "/api/projects/No%20Slug%20canary", headers=headers)
    await town.guest.ask("POST", "/api/session", {"username": canary, "password": canary}, headers=headers)
    await (await asker_of(town, town.admin)).audit(AuditQueried(question="subject", about=Personal(canary)))
    await town.platform.acts.tell()
    found = await town.since(0)
    assert {"UserCreated", "GroupCreated", "ProjectCreated", "TokenIssued", "LoginRefused", "AuditQueried"} <= {
        one.entry.type for one in found
    }
    assert [one.octets for one in found if canary.encode() in one.octets] == []


async def test_question_29_auditors_cannot_write(town: Town) -> None:
    """Not even those who were made auditors while they owned something: every route that there is says so."""
    ada, bob = await lab(town)
    auditor = await town.person("may")
    await ada.do("PUT", f"/api/groups/lab/members/{auditor.user}", {"role": "owner"})
    await town.admin.do("PUT", f"/api/users/{auditor.user}/roles", {"administrator": False, "auditor": True})
    token = await town.bearer(auditor, "audit")
    names = {"bob": bob.user, "admin": town.admin.user, "made": f"tok_{'0' * 26}"}
    before = town.head
    for method, route in sorted(mutating(town)):
        path, body = CHANGES[method, route]
        if (method, route) not in OWN:
            await town.platform.acts.tell()  # so that each is told by itself
            answer = await auditor.ask(method, path.format(**names), body)
            assert answer.status_code == 403, f"{method} {path}: {answer.text}"
            assert answer.json()["type"] in ("/problems/auditors-change-nothing", "/problems/administrators-only"), path
        if route != "/sign-in":
            answer = await token.ask(method, path.format(**names), body)
            assert (answer.status_code, answer.json()["type"]) == (403, "/problems/scope-missing"), path
    assert [one.entry.type for one in await town.since(before) if one.event.fact] == []
    left = await auditor.ask("DELETE", f"/api/groups/lab/members/{auditor.user}")
    assert left.json()["type"] == "/problems/auditors-change-nothing", "it is an owner who lets them go"
    made = await auditor.do("POST", "/api/tokens", {"title": "script", "scopes": ["audit"]})
    await auditor.do("DELETE", f"/api/tokens/{made['token']}")
    await auditor.do("DELETE", "/api/session")
    mine = [one.entry.type for one in await town.since(before) if one.entry.outcome == "success"]
    assert mine == ["TokenUsed", "TokenIssued", "TokenRevoked", "LoggedOut"]


def faults(answer: Any) -> str:
    return " ".join(answer.json()["faults"])


async def test_question_30_if_the_log_cannot_be_written_changes_are_refused_503_and_an_alarm_rises_and_reads_go_on(
    town: Town, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await lab(town)
    database = conninfo_to_dict(dsn)["dbname"]

    async def writable(yes: bool) -> None:
        async with await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, options="-c default_transaction_read_only=off"
        ) as connection:
            state = "off" if yes else "on"
            await connection.execute(
                f'ALTER DATABASE "{database}" SET default_transaction_read_only = {state}'.encode()
            )
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(psycopg.Error):
                    async with town.platform.log.pool.connection() as connection:
                        await connection.execute("SELECT")
                    if town.platform.log.is_reachable:
                        return
                await asyncio.sleep(0.05)

    unrecorded = UNRECORDED._value.get()  # pyright: ignore
    await writable(yes=False)
    refused = await ada.ask("POST", "/api/groups", {"slug": "late", "title": "Late"})
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/log-cannot-be-written")
    assert (await ada.ask("GET", "/api/projects/apollo")).json()["title"] == "Apollo"
    assert (await bob.ask("GET", "/api/groups/lab")).status_code == 200
    assert (await town.guest.ask("POST", "/api/session", {"username": "ada", "password": PASSWORD})).status_code == 503
    ready = await town.guest.ask("GET", "/health/ready")
    assert ready.status_code == 503
    assert "Not as it should be: log." in faults(ready)
    assert "cannot be written" not in faults(ready)
    assert "The log cannot be written" in faults(await town.admin.ask("GET", "/health/ready"))
    assert WRITABLE._value.get() == 0  # pyright: ignore
    assert UNRECORDED._value.get() >= unrecorded + 2, "what was read meanwhile is counted"  # pyright: ignore
    await (await asker_of(town, town.admin)).audit(AuditQueried(question="entries"))  # the log can be read

    await writable(yes=True)
    async with going(town, monkeypatch, 0), asyncio.timeout(20):
        while not town.platform.dispatch.can_write:
            await asyncio.sleep(0.02)
    await ada.do("POST", "/api/groups", {"slug": "late", "title": "Late"})
    assert "cannot be written" not in faults(await town.admin.ask("GET", "/health/ready"))
    before = town.head
    await ada.get("/api/projects/apollo")
    assert await town.kinds(before) == ["ProjectViewed"], "what was read unrecorded is recorded with the next reading"


async def test_why_something_is_not_as_it_should_be_is_told_to_those_who_may_read_the_log_only(
    dsn: str, tmp_path: Path
) -> None:
    hook = {"webhook_url": "http://siem.internal.example:1/hook", "webhook_secret": b"w" * 32}
    async with Town.open(dsn, tmp_path, **hook) as town:
        ada, may = await town.person("ada"), await town.person("may", auditor=True)
        reader = await town.bearer(may, "read")
        async with asyncio.timeout(10):
            while (await town.guest.ask("GET", "/health/ready")).status_code == 200:
                await asyncio.sleep(0.05)
        for who in (town.guest, ada, reader):
            assert faults(await who.ask("GET", "/health/ready")) == "Not as it should be: webhook."
        for who in (town.admin, may, await town.bearer(may, "audit", "read")):
            assert "siem.internal.example" in faults(await who.ask("GET", "/health/ready"))


async def test_question_30_silence_is_visible(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    before = town.head
    async with going(town, monkeypatch, 0):
        await asyncio.sleep(0.2)
        assert await town.kinds(before) == []
    async with going(town, monkeypatch, 0.3):
        await asyncio.sleep(0.15)
        await town.admin.do("POST", "/api/groups", {"slug": "busy", "title": "Busy"})
        beat = await until(town, before, "Heartbeat")
    busy = await the_one(town, before, "GroupCreated")
    assert beat.entry.at - busy.entry.at > timedelta(seconds=0.25), "it beats after a silence, and not before"
    assert beat.entry.actor.kind == "system"


async def test_a_read_whose_entry_takes_long_is_answered_and_recorded_late(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bob = await lab(town)
    before, may = town.head, asyncio.Event()
    record = Dispatch.record

    async def slow(*given: Any, **named: Any) -> None:
        await may.wait()
        await record(*given, **named)

    monkeypatch.setattr(acts_module, "WITHIN", 0.05)
    monkeypatch.setattr(Dispatch, "record", slow)
    assert (await bob.ask("GET", "/api/projects/apollo")).status_code == 200
    assert not town.platform.dispatch.can_write
    may.set()
    await until(town, before, "ProjectViewed")
    async with asyncio.timeout(5):  # whoever appended is told a moment after the entry is there
        while not town.platform.dispatch.can_write:
            await asyncio.sleep(0.01)

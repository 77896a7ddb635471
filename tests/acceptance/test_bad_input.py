"""Whatever is sent, the answer says what is wrong with which field, and nothing has changed."""

import asyncio
import importlib
import itertools
import pkgutil
import subprocess
import sys
from typing import Any, get_args, get_type_hints

import pytest
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from app import api
from app.domain.registry import EVENTS
from tests.acceptance.conftest import Lab, populate
from tests.installation import Visitor, installation

GROUP = {"slug": "not-made", "title": "Not made"}
NO_LABELS = (
    *("", "-", "a-", "-a", "A", "a_b", "a.b", "a b", "a/b", "ä", "a\n", "a\x00", "x" * 64, "../etc", "%61"),
    *("xn--é", "a\u200b", "\uff41", "<b>", "a;b", "a'--"),
)

BODIES: tuple[tuple[str, str, Any, str], ...] = (
    ("POST", "/api/groups", GROUP | {"colour": "red"}, "colour"),
    ("POST", "/api/groups", {"slug": "not-made"}, "title"),
    ("POST", "/api/users", {"username": "eve", "password": "correct horse battery", "auditor": 1}, "auditor"),
    ("POST", "/api/groups", {"title": "Not made"}, "slug"),
    ("POST", "/api/groups", GROUP | {"title": 7}, "title"),
    ("POST", "/api/groups", GROUP | {"title": None}, "title"),
    ("POST", "/api/groups", GROUP | {"title": ""}, "title"),
    ("POST", "/api/groups", GROUP | {"title": "x" * 201}, "title"),
    ("POST", "/api/groups", GROUP | {"title": "two\nlines"}, "title"),
    ("POST", "/api/groups", GROUP | {"title": "NUL\x00"}, "title"),
    ("POST", "/api/groups", GROUP | {"title": "bell\x07"}, "title"),
    ("POST", "/api/projects", {"slug": "p", "group": "g", "title": "P", "visibility": "secret"}, "visibility"),
    ("POST", "/api/projects", {"slug": "p", "group": "Not A Slug", "title": "P"}, "group"),
    ("POST", "/api/notebooks", {"slug": "n", "project": ["p"], "title": "N"}, "project"),
    ("POST", "/api/users", {"username": "Ada", "password": "long enough, I say"}, "username"),
    ("POST", "/api/users", {"username": "ada\x00", "password": "long enough, I say"}, "username"),
    ("POST", "/api/users", {"username": "ada", "password": "short"}, "password"),
    ("POST", "/api/users", {"username": "ada", "password": "long enough, I say", "administrator": "yes"}, "admin"),
    ("POST", "/api/tokens", {"title": "t", "scopes": ["everything"]}, "scopes"),
    ("POST", "/api/tokens", {"title": "t", "scopes": []}, "scopes"),
    ("POST", "/api/tokens", {"title": "t", "days": 367}, "days"),
    ("POST", "/api/tokens", {"title": "t", "days": 0}, "days"),
    ("POST", "/api/tokens", {"title": "t", "days": 1.5}, "days"),
    ("POST", "/api/session", {"username": "x" * 65, "password": "p"}, "username"),
    ("PUT", "/api/groups/g/members/usr_06dmq5v1c9t72r8k3f4g5h6j0n", {"role": "king"}, "role"),
)

ADDRESSES = (
    ("GET", "/api/groups?limit=0", "limit"),
    ("GET", "/api/groups?limit=201", "limit"),
    ("GET", "/api/groups?limit=-1", "limit"),
    ("GET", "/api/groups?limit=many", "limit"),
    ("GET", f"/api/groups?limit={10**30}", "limit"),
    ("GET", f"/api/groups?after={'x' * 101}", "after"),
    ("GET", "/api/groups?after=%00", "after"),
    ("GET", "/api/users?after=%00", "after"),
    ("GET", "/api/tokens?after=%00", "after"),
    ("GET", "/api/projects?after=%00", "after"),
    ("GET", "/api/projects?group=%00", "group"),
    ("GET", "/api/notebooks?after=%00", "after"),
    ("GET", "/api/notebooks?project=NOT_ONE", "project"),
    ("GET", "/api/audit/entries?after=-1", "after"),
    ("GET", f"/api/audit/entries?after={2**63}", "after"),
    ("GET", f"/api/audit/entries?type={'x' * 101}", "type"),
    ("GET", "/api/audit/entries?type=%00", "type"),
    ("GET", "/api/audit/entries?tag=%00", "tag"),
    ("GET", "/api/groups/NOT_ONE", "group"),
    ("GET", "/api/projects/a%00", "project"),
    ("GET", "/api/notebooks/-a-", "notebook"),
    ("POST", "/api/notebooks/a%0A/start", "notebook"),
    ("DELETE", "/api/notebooks/a%20b", "notebook"),
    ("DELETE", "/api/tokens/tok_1", "token"),
    ("PUT", "/api/groups/g/members/ada", "user"),
    ("DELETE", "/api/groups/g/members/usr_%00", "user"),
)


IN_A_LANGUAGE = ("/api/audit/entries", "/api/audit/diff", "/api/audit/state/{kind}/{name}")
"""Routes that take a query or a moment: text of which no schema says whether it makes sense."""


async def facts(lab: Lab) -> int:
    """Tell the position of the last entry that is a fact: no refusal, and no reading of the log itself."""
    after, last = 0, 0
    while True:
        page = await lab.administrator.get(f"/api/audit/entries?limit=200&after={after}")
        for item in page["items"]:
            after = item["position"]
            if EVENTS[item["entry"]["type"]].fact:
                last = after
        if len(page["items"]) < 200:  # whoever waits for none at all reads for ever, as each reading is an entry
            return last


IN_A_SESSION = ("/api/tokens", "/api/session/password", "/api/groups")
"""Routes that are asked for in a session once more: what a token may not do, and some that it may."""


@pytest.fixture
async def unchanged(lab: Lab) -> Any:
    before = await facts(lab)
    yield
    assert await facts(lab) == before


@pytest.mark.usefixtures("unchanged")
async def test_a_body_that_is_not_what_it_has_to_be_is_answered_with_the_name_of_the_field(lab: Lab) -> None:
    for method, path, body, field in BODIES:
        who = lab.administrator if "users" in path else lab.ada.session if "tokens" in path else lab.ada.token
        answer = await who.ask(method, path, body)
        problem = (method, path, body, answer.status, answer.text)
        assert answer.status == 400, problem
        assert answer.headers["Content-Type"].startswith("application/problem+json"), problem
        assert field in str([item["field"] for item in answer.page["errors"]]) + answer.page["detail"], problem


def test_every_body_refuses_fields_that_nobody_knows() -> None:
    bodies: set[type[Struct]] = set()
    for module in pkgutil.iter_modules(api.__path__, "app.api."):
        for handler in vars(importlib.import_module(module.name)).values():
            if isinstance(handler, HTTPRouteHandler) and (body := get_type_hints(handler.fn).get("data")):
                kinds = get_args(body) or (body,)
                bodies |= {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Struct)}
    assert len(bodies) >= 10
    assert {body.__name__ for body in bodies if not body.__struct_config__.forbid_unknown_fields} == set()


@pytest.mark.usefixtures("unchanged")
async def test_an_address_that_is_not_what_it_has_to_be_is_answered_with_the_name_of_the_part(lab: Lab) -> None:
    for method, path, field in ADDRESSES:
        answer = await lab.administrator.ask(method, path)
        problem = (method, path, answer.status, answer.text)
        assert answer.status == 400, problem
        assert answer.headers["Content-Type"].startswith("application/problem+json"), problem
        assert field in [item["field"] for item in answer.page["errors"]], problem


@pytest.mark.usefixtures("unchanged")
async def test_a_slug_that_is_no_dns_label_is_refused_in_words(lab: Lab) -> None:
    for slug in NO_LABELS:
        for path, body in (
            ("/api/groups", {"slug": slug, "title": "T"}),
            ("/api/projects", {"slug": slug, "title": "T", "group": lab.group}),
            ("/api/notebooks", {"slug": slug, "title": "T", "project": lab.project}),
        ):
            answer = await lab.ada.token.ask("POST", path, body)
            assert answer.status == 400, (slug, answer.text)
            (error,) = answer.page["errors"]
            assert error["field"] == "slug"
            assert "DNS label" in error["message"] or len(slug) > 63, error


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("kind", "data", "statuses"),
    [
        ("application/json", b'{"slug": "not-made", "title": "' + b"x" * 10_000_000 + b'"}', {413}),
        ("application/json", b"[" * 60_000, {400}),
        ("application/json", b'{"slug": "not-made",', {400}),
        ("application/json", b"", {400}),
        ("application/json", b"null", {400}),
        ("application/json", b"[]", {400}),
        ("application/json", b"NaN", {400}),
        ("application/json", b'{"slug": "not-made", "title": "\xff"}', {400}),
        ("application/json", b'{"slug": "not-made", "title": "\\ud800"}', {400}),
        ("application/json", b"\xff\xfe{\x00}\x00", {400}),
        ("text/plain", b'{"slug": "not-made", "title": "T"}', {415}),
        ("application/x-www-form-urlencoded", b"slug=not-made&title=T", {415}),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="slug"\r\n\r\na\r\n', {415}),
        ("", b'{"slug": "not-made", "title": "T"}', {415}),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_body_that_is_no_json_of_bearable_length_is_refused(
    lab: Lab, kind: str, data: bytes, statuses: set[int]
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = await lab.ada.token.ask("POST", "/api/groups", data=data, headers=headers)
    assert answer.status in statuses, answer.text
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.page["status"] == answer.status


@pytest.mark.usefixtures("unchanged")
async def test_what_is_nowhere_or_not_done_that_way_is_answered_as_a_problem(lab: Lab) -> None:
    for method, path, status in (
        ("GET", "/api/nothing", 404),
        ("GET", "/api/groups/nobodys", 404),
        ("PATCH", "/api/groups", 405),
        ("DELETE", "/api/groups", 405),
        ("POST", f"/api/groups/{lab.group}", 405),
        ("GET", f"/api/notebooks/{lab.notebook}/start", 405),
    ):
        answer = await lab.ada.token.ask(method, path)
        assert answer.status == status, (method, path, answer.text)
        assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_schemathesis_finds_no_answer_that_is_not_documented() -> None:
    async with installation(SOPHON_RUNTIME="process") as fresh:  # it starts many, of which the API says the same
        await fresh.start()
        lab = await populate(fresh)
        # By itself at the end: it finds the token that it is given itself, and ends it.
        # The tail has no end: it is followed in tests/questions/test_query.py.
        apart = ("/api/tokens/{token}", "/api/audit/tail", *IN_A_LANGUAGE)
        await schemathesis(lab, *itertools.chain(*(("--exclude-path", path) for path in apart)))
        in_a_language = itertools.chain(*(("--include-path", path) for path in IN_A_LANGUAGE))
        await schemathesis(lab, *in_a_language, checks="allow_header_conformance,positive_data_acceptance")
        await schemathesis(lab, "--include-path", "/api/tokens/{token}")
        in_session = itertools.chain(*(("--include-path", path) for path in IN_A_SESSION))
        await schemathesis(lab, *in_session, who=await fresh.log_in())
        (await fresh.guest.ask("GET", "/health/ready")).expect(200)
        assert "request.failed" not in fresh.output


async def schemathesis(
    lab: Lab, *which: str, checks: str = "allow_header_conformance", who: Visitor | None = None
) -> None:
    """Have it ask whatever it can think of, as an administrator, always the same."""
    sent = (who or lab.administrator).headers
    done = await asyncio.to_thread(
        subprocess.run,
        (
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{lab.installation.address}/schema/openapi.json"),
            *itertools.chain(*(("--header", f"{name}: {value}") for name, value in sent.items())),
            # Litestar's own answer to OPTIONS knows only of the route's first method.
            # And of several ways to prove who asks, `ignored_auth` takes away one and is surprised by the other.
            *("--checks", "all", "--exclude-checks", f"{checks},ignored_auth", "--mode", "all"),
            *("--max-examples", "15", "--seed", "1", "--phases", "examples,coverage,fuzzing"),
            *("--generation-database", "none", "--request-timeout", "20", "--no-color", *which),
        ),
        cwd=lab.installation.data,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    print(done.stdout[-1_000:])
    assert done.returncode == 0, done.stdout + done.stderr

"""Everybody at once: one of them is first, and the others are told so."""

import asyncio
import secrets
from collections import Counter

from tests.acceptance.conftest import Lab

AT_ONCE = 50


async def test_fifty_starts_of_one_notebook_make_one_container(lab: Lab) -> None:
    notebook = f"popular-{secrets.token_hex(3)}"
    await lab.ada.token.do("POST", "/api/notebooks", {"slug": notebook, "project": lab.project, "title": "Popular"})
    askers = (lab.ada.token, lab.bob.token, lab.ada.session, lab.administrator)
    answers = await asyncio.gather(
        *(askers[n % 4].ask("POST", f"/api/notebooks/{notebook}/start") for n in range(AT_ONCE))
    )
    assert Counter(answer.status for answer in answers) == {202: AT_ONCE}
    assert len({answer.page["run"] for answer in answers}) == 1
    await lab.ada.token.until(notebook, "ready")
    (container,) = lab.installation.containers(notebook)
    assert container["State"]["Running"]
    starts = await lab.administrator.get(f"/api/audit/entries?tag=notebook:{notebook}&type=NotebookStartRequested")
    assert len(starts["items"]) == 1

    answers = await asyncio.gather(
        *(askers[n % 4].ask("POST", f"/api/notebooks/{notebook}/stop") for n in range(AT_ONCE))
    )
    assert Counter(answer.status for answer in answers) == {202: AT_ONCE}
    await lab.ada.token.until(notebook, "stopped")
    assert lab.installation.containers(notebook) == []


async def test_of_fifty_creations_of_one_slug_one_is_made(lab: Lab) -> None:
    slug = f"wanted-{secrets.token_hex(3)}"
    for path, body in (
        ("groups", {"slug": slug, "title": "Wanted"}),
        ("projects", {"slug": slug, "title": "Wanted", "group": lab.group}),
        ("notebooks", {"slug": slug, "title": "Wanted", "project": lab.project}),
    ):
        askers = (lab.ada.token, lab.bob.token)
        answers = await asyncio.gather(*(askers[n % 2].ask("POST", f"/api/{path}", body) for n in range(AT_ONCE)))
        assert Counter(answer.status for answer in answers) == {201: 1, 409: AT_ONCE - 1}, path
        refused = next(answer.page for answer in answers if answer.status == 409)
        assert refused["type"].endswith("-slug-taken")
        assert refused["errors"][0]["field"] == "slug"


async def test_of_fifty_accounts_of_one_name_one_is_made(lab: Lab) -> None:
    account = {"username": f"twin-{secrets.token_hex(3)}", "password": "a password that is long"}
    answers = await asyncio.gather(*(lab.administrator.ask("POST", "/api/users", account) for _ in range(10)))
    assert Counter(answer.status for answer in answers) == {201: 1, 409: 9}

"""The volume of a deleted notebook: kept, until an administrator purges it at the command line."""

import secrets

import pytest

from tests.acceptance.conftest import Lab


async def test_the_volume_of_a_deleted_notebook_is_removed_by_an_administrator_and_no_other_is(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, who, notebook = lab.installation, lab.ada.token, f"purged-{secrets.token_hex(3)}"
    volume = f"sophon-{where.id}-{notebook}"

    async def purge(name: str) -> str:
        done = await where.command("volumes", "purge", name)
        assert (done.returncode == 0) == (name == notebook and "removed" in done.stderr), done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def names() -> set[str]:
        return {one["Name"] for one in where.volumes()}

    await who.do("POST", "/api/notebooks", {"slug": notebook, "project": lab.project, "title": "Purged"})
    await who.start(notebook)
    await who.do("POST", f"/api/notebooks/{notebook}/stop")
    await who.until(notebook, "stopped")
    before = names()
    assert volume in before

    monkeypatch.setitem(where.options, "SOPHON_TOKEN", lab.ada.token.headers["Authorization"].removeprefix("Bearer "))
    assert "Only administrators may do this" in await purge(notebook)
    secret = lab.administrator.headers["Authorization"].removeprefix("Bearer ")
    monkeypatch.setitem(where.options, "SOPHON_TOKEN", secret)
    assert "delete it first" in await purge(notebook)
    assert "There is no notebook" in await purge("never-was")
    assert names() == before

    await who.do("DELETE", f"/api/notebooks/{notebook}")
    assert f"The volume of {notebook} is removed." in await purge(notebook)
    assert names() == before - {volume}
    told = await lab.administrator.get(f"/api/audit/entries?type=NotebookPurged&tag=notebook:{notebook}")
    (entry,) = [item["entry"] for item in told["items"]]
    assert (entry["actor"]["id"], entry["data"]) == (lab.administrator.user, {"notebook": notebook})
    assert (await lab.ada.token.ask("GET", "/api/status", at=lab.notebook)).status == 200

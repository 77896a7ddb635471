"""What an auditor asks about who may touch the log: questions 13, 27 and 29."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import InsufficientPrivilege, RaiseException

from app.__main__ import main
from app.audit.database.provision import application, prepare
from app.audit.entry import Context, encode, leaf_hash
from app.audit.evidence.exported import open_exported
from app.domain.audits import ProjectViewed
from app.domain.users import LoginRefused
from tests.questions.platform import KEYS, Person, Town, lab

CHANGES = (
    "UPDATE audit.entries SET leaf_hash = sha256('') WHERE position = 1",
    "DELETE FROM audit.entries WHERE position = 1",
    "TRUNCATE audit.entries",
)


@pytest.mark.parametrize("change", CHANGES)
async def test_question_13_append_only_for_application_owner_and_dba(change: str, dsn: str, tmp_path: Path) -> None:
    """Neither the application, nor the owner of the table, nor a superuser changes what was recorded by mistake."""
    await prepare(dsn)
    own = await application(dsn, KEYS)
    async with Town.open(own, tmp_path / "data") as town:
        assert town.head > 0
    with psycopg.connect(own, autocommit=True) as connection, pytest.raises(InsufficientPrivilege):
        connection.execute(change.encode())
    for role in ("sophon_owner", conninfo_to_dict(dsn)["user"]):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"SET ROLE {role}".encode())
            with pytest.raises(RaiseException, match="only grows"):
                connection.execute(change.encode())


async def test_question_13_a_superuser_who_passes_for_a_replica_succeeds_and_is_located(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not prevented, but found: exit code 1, the position, and a file of evidence."""
    async with Town.open(dsn, tmp_path / "data") as town:
        await town.person("ada")
        await town.signed()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "UPDATE audit.entries SET bytes = replace(bytes::text, 'success', 'refused')::json WHERE position = 2"
        )
    monkeypatch.setenv("SOPHON_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SOPHON_DATABASE_URL", dsn)
    monkeypatch.setenv("SOPHON_SECRET", "k" * 32)
    told = await asyncio.to_thread(CliRunner().invoke, main, ["audit", "verify", "--evidence", str(tmp_path)])
    assert told.exit_code == 1, told.stderr
    assert "position: 2\n" in told.stdout
    evidence = Path(told.stdout.partition("evidence: ")[2].strip())
    assert evidence.is_relative_to(tmp_path)
    assert "refused" in evidence.read_text()


async def test_question_27_retention_per_class_legal_hold_pruning_logged(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under hold is not erased; one administrator places it, two lift it; each step is an entry.

    What was kept long enough, and is not held, two administrators have removed: that is an entry too, and all proofs
    and all state stay as they were.
    """
    await _long_ago(dsn)
    async with Town.open(dsn, tmp_path / "data", retention={"reads": 30}) as town:
        ada, auditor = await town.person("ada"), await town.person("carol", auditor=True)
        second = await town.person("eve", administrator=True)
        hold, start = f"/api/audit/holds/user/{ada.user}", town.head
        for nobody in (ada, auditor):
            assert (await nobody.ask("PUT", hold, {"reason": {"text": "mine"}})).status_code == 403
        placed = await town.admin.do("PUT", hold, {"reason": {"text": "An inquiry."}})
        assert placed == {"about": f"user:{ada.user}", "held": True, "until": None}
        report = await auditor.get("/api/audit/retention")
        assert report["holds"] == [f"user:{ada.user}"]
        assert {one["name"]: one["days"] for one in report["classes"]} == {
            **dict.fromkeys(("facts", "security", "pulse")),
            "reads": 30,
        }
        erasure = f"/api/audit/subjects/user/{ada.user}/erasure"
        assert (await town.admin.ask("POST", erasure, {})).status_code == 409
        assert (await auditor.ask("POST", f"{hold}/lifting")).status_code == 403
        assert (await town.admin.ask("POST", f"{hold}/lifting")).status_code == 202
        assert (await town.admin.ask("POST", f"{hold}/lifting")).status_code == 409
        assert (await second.do("POST", f"{hold}/lifting"))["held"] is False
        assert (await auditor.get("/api/audit/retention"))["holds"] == []
        kinds = await town.kinds(start)
        assert [one for one in kinds if "Hold" in one or "Approval" in one] == [
            *("LegalHoldPlaced", "ApprovalRequested", "ApprovalGiven", "LegalHoldLifted")
        ]
        await ada.do("POST", "/api/groups", {"slug": "lab", "title": "Lab"})
        await ada.do("POST", "/api/projects", {"slug": "gemini", "group": "lab", "title": "Gemini"})
        await town.admin.do("PUT", "/api/audit/holds/project/gemini", {"reason": {"text": "An inquiry."}})
        await town.signed()
        sophon = _Sophon(dsn, tmp_path / "data", monkeypatch, SOPHON_RETENTION="reads=30")
        await sophon.did("audit", "export", str(tmp_path / "export"))
        before, then = await town.since(0), f"/api/audit/state/user/{ada.user}?as_of={town.head}"
        state = await auditor.get(then)
        words = ("audit", "prune", "--before", str(town.head), "--export", str(tmp_path / "export"))
        tokens = [await _token(town, ada, "write"), await _token(town, town.admin), await _token(town, second)]
        assert (await sophon(*words, SOPHON_TOKEN=tokens[0])).exit_code == 2
        start = town.head
        words = ("audit", "prune", "--before", "1 day ago", *words[4:])
        assert "reads\t2\t" in (await sophon.did(*words, "--dry-run", SOPHON_TOKEN=tokens[1])).stdout
        await sophon.did(*words, SOPHON_TOKEN=tokens[1])
        assert (await sophon(*words, SOPHON_TOKEN=tokens[1])).exit_code == 2  # the same one again
        assert [one for one in await town.kinds(0) if one == "Pruned"] == []
        assert "2 entries up to 4 were pruned" in (await sophon.did(*words, SOPHON_TOKEN=tokens[2])).stdout
        kinds = [one for one in await town.kinds(start) if one in ("ApprovalRequested", "ApprovalGiven", "LogPruned")]
        assert kinds == ["ApprovalRequested", "ApprovalGiven", "LogPruned"]
        after = (await town.since(0))[: len(before)]
        changed = [old.position for old, new in zip(before, after, strict=True) if old.octets != new.octets]
        assert changed == [1, 3]  # 2 is about what is held, 4 is of a class that has no term
        assert [after[n - 1].entry.type for n in changed] == ["Pruned", "Pruned"]
        assert await auditor.get(then) == state
        await town.signed()
        told = await sophon.did("audit", "verify", "--evidence", str(tmp_path))
        assert "2 entries pruned" in told.stderr
        await sophon.did("audit", "export", str(tmp_path / "export"))
        await sophon.did("audit", "verify", "--export", str(tmp_path / "export"))
        assert (await sophon("audit", "export", str(tmp_path / "fresh"))).exit_code == 2


async def _long_ago(dsn: str) -> None:
    """Four entries of sixty days ago."""
    await prepare(dsn)
    seen = [ProjectViewed(project=project, group="lab") for project in ("apollo", "gemini", "apollo")]
    then = datetime.now(UTC) - timedelta(days=60)
    lines = [encode(Context().draft(one).entry(then)) for one in (*seen, LoginRefused())]
    with psycopg.connect(dsn) as connection:
        text, hashes = b"\n".join(lines).decode(), b"".join(map(leaf_hash, lines))
        connection.execute("SELECT audit.append(0, %s, %s, NULL)", (text, hashes))


async def _token(town: Town, person: Person, scope: str = "admin") -> str:
    return (await town.bearer(person, "read", scope)).headers["Authorization"].removeprefix("Bearer ")


class _Sophon:
    """The command, beside the platform and with its settings."""

    def __init__(self, dsn: str, data: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
        self._settings = {"SOPHON_DATA": str(data), "SOPHON_DATABASE_URL": dsn, "SOPHON_SECRET": "k" * 32, **settings}
        self._monkeypatch = monkeypatch

    async def __call__(self, *words: str, **settings: str) -> Result:
        for name in ("SOPHON_TOKEN", "SOPHON_SECOND_TOKEN"):
            self._monkeypatch.delenv(name, raising=False)
        for name, value in (self._settings | settings).items():
            self._monkeypatch.setenv(name, value)
        return await asyncio.to_thread(CliRunner().invoke, main, words)

    async def did(self, *words: str, **settings: str) -> Result:
        """Run it, and have it succeed."""
        told = await self(*words, **settings)
        assert told.exit_code == 0, told.stderr
        return told


async def test_question_29_auditors_cannot_write_nobody_erases_restores_or_rotates_keys_alone(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An auditor reads everything, and changes nothing of what others have; the rest takes two administrators."""
    async with Town.open(dsn, tmp_path / "data") as town:
        ada, _ = await lab(town)
        auditor = await town.person("carol", auditor=True)
        start = town.head
        for method, path, body in (
            ("POST", "/api/users", {"username": "mallory", "password": "correct horse battery staple"}),
            ("POST", "/api/projects", {"slug": "mine", "group": "lab", "title": "Mine"}),
            ("POST", "/api/notebooks", {"slug": "mine", "project": "apollo", "title": "Mine"}),
            ("PUT", f"/api/groups/lab/members/{auditor.user}", None),
            ("DELETE", f"/api/groups/lab/members/{ada.user}", None),
            ("POST", "/api/notebooks/plots/start", None),
            ("POST", f"/api/audit/subjects/user/{ada.user}/erasure", {}),
        ):
            assert (await auditor.ask(method, path, body)).status_code in {403, 404}, path
        assert {record.entry.outcome for record in await town.since(start)} == {"refused"}
        erasure = f"/api/audit/subjects/user/{ada.user}/erasure"
        assert (await town.admin.ask("POST", erasure, {})).status_code == 202
        assert (await town.admin.ask("POST", erasure, {})).status_code == 409
        assert "SubjectErased" not in await town.kinds(start)

        sophon = _Sophon(dsn, tmp_path / "data", monkeypatch)
        eve = await town.person("eve", administrator=True)
        of_ada, one, other = await _token(town, ada, "write"), await _token(town, town.admin), await _token(town, eve)
        await sophon.did("audit", "rotate", SOPHON_TOKEN=one)
        assert (await sophon("audit", "rotate", SOPHON_TOKEN=one)).exit_code == 2
        assert (await sophon("audit", "rotate", SOPHON_TOKEN=of_ada)).exit_code == 2
        assert "LogKeyRotated" not in await town.kinds(start)
        rotating = asyncio.create_task(sophon.did("audit", "rotate", SOPHON_TOKEN=other))
        while not rotating.done():
            town.platform.signer.hurry()  # it has to sign what announces the new keys, and would wait for more
            await asyncio.sleep(0.1)
        await rotating
        assert "LogKeyRotated" in await town.kinds(start)
        zoe = await town.person("zoe", administrator=True)
        removed = await _token(town, zoe)
        head = town.head
        await town.admin.do("PUT", f"/api/users/{zoe.user}/roles", {"administrator": False, "auditor": False})
        await ada.do("POST", "/api/projects", {"slug": "lost", "group": "lab", "title": "Lost"})
        await town.signed()
    await sophon.did("audit", "export", str(tmp_path / "export"))  # nobody is there any more to sign what this records
    signed = open_exported(tmp_path / "export").checkpoint.size
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM audit.entries WHERE position > %s", (head,))
        connection.execute("DELETE FROM audit.checkpoints WHERE size > %s", (head,))
    words = ("state", "recover", "--from-export", str(tmp_path / "export"), "--evidence", str(tmp_path))
    for tokens in ((), (one,), (one, one), (one, of_ada), (one, "nonsense"), (one, removed)):
        told = await sophon(*words, **dict(zip(("SOPHON_TOKEN", "SOPHON_SECOND_TOKEN"), tokens, strict=False)))
        assert told.exit_code == 2
        assert "Nobody restores alone" in told.stderr
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT max(position) FROM audit.entries").fetchone() == (head,)
        await sophon.did(*words, SOPHON_TOKEN=one, SOPHON_SECOND_TOKEN=other)
        newest = connection.execute(
            "SELECT bytes -> 'data' FROM audit.entries WHERE position = %s AND type = 'StateRecovered'", (signed + 1,)
        ).fetchone()
    assert newest is not None
    assert newest[0]["by"] == sorted((town.admin.user, eve.user))
    assert (await sophon(*words)).exit_code == 2
    with psycopg.connect(dsn) as connection:  # now nothing is missing any more in whose place it would stand
        refused = connection.execute("SELECT bytes ->> 'reason' FROM audit.entries ORDER BY position DESC LIMIT 1")
        assert refused.fetchone() == ("nobody-restores-alone",)

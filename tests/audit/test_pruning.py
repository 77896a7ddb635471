"""Pruning: accesses lose their content, and nothing else changes: neither the tree nor the state nor what is proven."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from msgspec import Struct
from psycopg.errors import InsufficientPrivilege, RaiseException

from app.audit.database.doctor import examine
from app.audit.database.provision import application, prepare
from app.audit.entry import Actor, Context, encode, leaf_hash
from app.audit.evidence.export import NotExported, export_log
from app.audit.evidence.exported import Exported, Format, open_exported, verify_exported
from app.audit.evidence.findings import Finding, Tampered
from app.audit.evidence.recovery import recover
from app.audit.evidence.replica import compare
from app.audit.evidence.trust import Trust, Unverifiable, trust_of
from app.audit.evidence.verify import connected, verify_log
from app.audit.evidence.walk import Whole
from app.audit.log import Log
from app.audit.pruned import digest_of, is_tombstone, prune
from app.audit.retention import FOR_EVER, Retention, class_of
from app.audit.signing.published import receipt
from app.audit.signing.signer import Signer
from app.audit.signing.store import Store
from app.audit.signing.tree import NotInTree, Tree
from app.audit.transparency.proofs import parse_receipt
from app.dispatch import Dispatch, Receipt
from app.domain.approvals import ApprovalGiven, ApprovalRequested
from app.domain.audits import AuditQueried, Heartbeat, ProjectsListed, ProjectViewed
from app.domain.command import Caller
from app.domain.event import Event
from app.domain.groups import GroupCreated
from app.domain.names import Personal
from app.domain.pruning import HoldsChanged, LogPruned, PrunedClass, PruneLog
from app.domain.registry import EVENTS
from app.domain.retention import LegalHoldPlaced
from app.domain.users import LoggedIn, UserCreated
from app.keys import Keys
from tests.audit.signed import ORIGIN, superuser
from tests.audit.test_verify import _copy as copied  # pyright: ignore[reportPrivateUsage]
from tests.database import SEALER, Databases
from tests.domain.cast import ADA, GRACE
from tests.domain.cast import EVE as HOPPER

OLD, SIGNED, BEFORE = 300, 320, 280
TERMS = {"reads": 30, "pulse": 30}


def told(n: int) -> Event:
    """What the old entry at a position says: every fifth is a fact, and of the accesses some have another class."""
    match n % 5:
        case 0:
            return GroupCreated(group=f"group-{n}", title="Lab", owner=ADA)
        case 1:
            return ProjectViewed(project="apollo" if n % 2 else "gemini", group="lab")
        case 2:
            return Heartbeat()
        case 3:
            return LoggedIn(user=ADA, session=f"ses_{n:026}")
        case _:
            return ProjectsListed()


class Place(Struct, frozen=True):
    """A log with old entries in it, signed and exported."""

    dsn: str
    data: Path
    log: Log
    signer: Signer

    @property
    def trust(self) -> Trust:
        trust = trust_of(self.data / "signer")
        assert trust is not None
        return trust

    async def sign(self) -> int:
        return (await self.signer.sign(await self.signer.begin())).size

    async def export(self, name: str, format_: Format = "tiles", earlier: Exported | None = None) -> Exported:
        async with connected(self.dsn) as connection:
            await export_log(connection, self.data / name, format_, self.trust, earlier=earlier)
        return open_exported(self.data / name, self.trust)

    async def verify(self) -> Whole:
        async with connected(self.dsn) as connection:
            return await verify_log(connection, self.trust)

    async def found(self) -> Finding:
        with pytest.raises(Tampered) as caught:
            await self.verify()
        return caught.value.finding

    def rows(self) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(
                "SELECT position, bytes::text, leaf_hash, type, at, id, outcome FROM audit.entries ORDER BY 1"
            ).fetchall()

    async def command(self, by: str, exported: Exported, before: int = BEFORE) -> PruneLog:
        now = datetime.now(UTC)
        due = await Retention(self.log, TERMS).due(now, before)
        return PruneLog(
            by=Caller(by, administering=True),
            now=now,
            before=before,
            entries=due.entries,
            positions=due.digest,
            size=exported.checkpoint.size,
            root=exported.checkpoint.root.hex(),
            classes=due.classes,
            held=due.held,
        )

    async def prune(self, exported: Exported, before: int = BEFORE) -> Receipt:
        """Have two administrators ask for it."""
        dispatch = Dispatch(self.log)
        await dispatch(await self.command(GRACE, exported, before), Context(actor=Actor(kind="user", id=GRACE)))
        return await dispatch(
            await self.command(HOPPER, exported, before), Context(actor=Actor(kind="user", id=HOPPER))
        )


@pytest.fixture
async def place(dsn: str, tmp_path: Path) -> AsyncIterator[Place]:
    """300 entries that are sixty days old, and a few of today, all signed."""
    await prepare(dsn)
    then = datetime.now(UTC) - timedelta(days=60)
    drafts = [Context(actor=Actor(kind="user", id=ADA)).draft(told(n)) for n in range(1, OLD + 1)]
    lines = [encode(draft.entry(then + timedelta(seconds=n))) for n, draft in enumerate(drafts)]
    with psycopg.connect(dsn) as connection:
        text, hashes = b"\n".join(lines).decode(), b"".join(map(leaf_hash, lines))
        connection.execute("SELECT audit.append(0, %s, %s, NULL)", (text, hashes))
    async with Log.open(dsn, SEALER) as log:
        for n, user in enumerate((GRACE, HOPPER)):
            event = UserCreated(user=user, username=Personal(f"admin{n}"), digest=f"{n:026}", administrator=True)
            await log.append([Context().draft(event)])
        await log.append([Context().draft(ProjectViewed(project="apollo", group="lab")) for _ in range(SIGNED - 302)])
        place = Place(dsn, tmp_path, log, Signer(log, Store(tmp_path / "signer"), ORIGIN))
        assert await place.sign() == SIGNED
        yield place


def due(rows: Sequence[tuple[Any, ...]], before: int = BEFORE) -> set[int]:
    return {row[0] for row in rows if row[0] <= before and class_of(row[3]) in TERMS}


async def test_accesses_lose_their_content_and_nothing_else_changes(place: Place) -> None:
    exported = await place.export("export")
    before, whole = place.rows(), await place.verify()
    done = await place.prune(exported)
    expected = due(before)
    assert {type(event) for event in done.events} == {ApprovalGiven, LogPruned}
    after = place.rows()[: len(before)]
    assert {old[0] for old, new in zip(before, after, strict=True) if old != new} == expected
    for old, new in zip(before, after, strict=True):
        assert (old[0], old[2], *old[4:]) == (new[0], new[2], *new[4:])  # position, hash, time, id, outcome
        assert is_tombstone(new[1].encode()) == (old[0] in expected)
    assert whole.pruned == 0
    found = await place.verify()
    assert (found.pruned, found.entries) == (len(expected), SIGNED + 3)
    assert [event.entries for event in done.events if isinstance(event, LogPruned)] == [len(expected)]


async def test_the_signer_the_doctor_and_a_replica_go_on(place: Place, databases: Databases) -> None:
    exported = await place.export("export")
    with databases.fresh() as replica:
        for table in ("entries", "tiles", "checkpoints"):
            copied(place.dsn, replica, table)
        await place.prune(exported)
        assert await place.sign() == SIGNED + 3
        fresh = Signer(place.log, Store(place.data / "signer"), ORIGIN)
        await fresh.check()
        assert (place.log.frozen, (await fresh.begin()).size) == (None, SIGNED + 3)
        codes = {one.code: one.faults for one in await examine(place.dsn, place.dsn)}
        assert (codes["SPH-LOG-002"], codes["SPH-LOG-003"], codes["SPH-DB-007"]) == ((), (), ())
        assert (codes["SPH-DB-005"], codes["SPH-DB-008"]) == ((), ())
        async with connected(place.dsn) as ours, connected(replica) as theirs:
            assert await compare(ours, theirs) == SIGNED


async def test_proofs_of_what_was_pruned_stay_good_and_its_bundle_is_not_given_out(place: Place) -> None:
    exported = await place.export("export")
    original = place.rows()[0]
    await place.prune(exported)
    tree = Tree(place.log.pool)
    octets = await receipt(tree, 1, await tree.entry(1))
    assert parse_receipt(octets).extra is None
    assert (await tree.tile(0, 0))[:32] == original[2] == leaf_hash(original[1].encode())
    with pytest.raises(NotInTree):
        await tree.entries(0)


async def test_state_is_replayed_as_before(place: Place) -> None:
    exported = await place.export("export")
    facts = [(row[0], row[1]) for row in place.rows() if EVENTS[row[3]].fact]
    await place.prune(exported)
    page = await place.log.read()
    assert [(one.position, one.octets.decode()) for one in page.records if type(one.event).fact][: len(facts)] == facts
    assert [one.position for one in page.records] == list(range(1, SIGNED + 4))


async def test_what_is_under_legal_hold_stays(place: Place) -> None:
    held = LegalHoldPlaced(about="project:apollo", reason=Personal("Case 42"))
    await place.log.append([Context().draft(held)])
    exported = await place.export("export")
    rows = place.rows()
    await place.prune(exported)
    kept = {row[0] for row in rows if '"project:apollo"' in row[1]}
    gone = {row[0] for row in place.rows() if row[3] == "Pruned"}
    assert gone == due(rows) - kept
    assert kept & due(rows)


async def test_what_a_person_under_legal_hold_did_stays(place: Place) -> None:
    held = LegalHoldPlaced(about=f"user:{ADA}", reason=Personal("Case 42"))
    await place.log.append([Context().draft(held)])
    assert (await place.command(GRACE, await place.export("export"))).entries == 0


async def test_a_hold_that_is_placed_while_somebody_asks_is_heeded(place: Place) -> None:
    command = await place.command(GRACE, await place.export("export"))
    held = LegalHoldPlaced(about="project:apollo", reason=Personal("Case 42"))
    await place.log.append([Context().draft(held)])
    with pytest.raises(HoldsChanged):
        await Dispatch(place.log)(command, Context(actor=Actor(kind="user", id=GRACE)))


def said(place: Place, **changes: Any) -> LogPruned:
    with psycopg.connect(place.dsn) as connection:
        found: Any = connection.execute("SELECT size, root FROM audit.checkpoints ORDER BY size DESC").fetchone()
    until = datetime.now(UTC) - timedelta(days=30)
    given: dict[str, Any] = {"before": BEFORE, "entries": 9, "size": found[0], "root": bytes(found[1]).hex()}
    given["classes"] = (PrunedClass("reads", until),)
    given |= changes
    untils = {one.name: one.until for one in given["classes"]}
    positions = [
        row[0]
        for row in place.rows()
        if row[0] <= given["before"]
        and row[3] != "Pruned"
        and class_of(row[3]) in untils
        and row[4] < untils[class_of(row[3])]
    ]
    given.setdefault("positions", digest_of(positions))
    return LogPruned(**given)


def approved(asked: str = GRACE, by: str = HOPPER, before: int = BEFORE) -> list[Event]:
    about, until = f"log-entries:{before}", datetime.now(UTC) + timedelta(hours=1)
    return [
        ApprovalRequested(action="prune", about=about, by=asked, until=until),
        ApprovalGiven(action="prune", about=about, by=by, asked=asked),
    ]


@pytest.mark.parametrize(
    ("approvals", "changes", "why"),
    [
        ([], {}, "No two administrators"),
        (approved()[:1], {}, "No two administrators"),
        (approved()[1:], {}, "No two administrators"),
        (approved(by=GRACE), {}, "No two administrators"),
        (approved(before=BEFORE - 1), {}, "No two administrators"),
        (approved(before=SIGNED + 1), {"before": SIGNED + 1}, "No checkpoint covers"),
        (approved(), {"root": "0" * 64}, "No checkpoint covers"),
        (approved(), {"positions": "0" * 64}, "is not what the log says"),
    ],
)
async def test_the_database_prunes_nothing_that_is_not_approved_and_signed(
    approvals: list[Event], changes: dict[str, Any], why: str, place: Place
) -> None:
    """All or nothing: not even the entry that says so is appended."""
    before = place.rows()
    event = said(place, **changes)
    with pytest.raises(RaiseException, match=why):
        await place.log.append([Context().draft(one) for one in (*approvals, event)])
    assert place.rows() == before


async def test_a_pruning_of_what_is_not_signed_yet_prunes_nothing(place: Place) -> None:
    await place.log.append([Context().draft(one) for one in (*approved(), said(place, size=SIGNED + 1))])
    assert not [row for row in place.rows() if row[3] == "Pruned"]
    with psycopg.connect(place.dsn) as connection, pytest.raises(RaiseException, match="No checkpoint covers"):
        connection.execute("SELECT audit.prune(%s)", (SIGNED + 3,))


async def test_the_application_prunes_nothing_but_what_the_log_says(place: Place) -> None:
    """Facts least of all, whatever is said of their class; and what it says once it does not do twice."""
    keys = Keys(b"the secret of a test")
    own = await application(place.dsn, keys)
    with psycopg.connect(own, autocommit=True) as connection:
        for position in (1, SIGNED, 10**9):
            with pytest.raises(RaiseException, match="does not say"):
                connection.execute("SELECT audit.prune(%s)", (position,))
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        for role in ("sophon_reader", "sophon_projector", "sophon_signer", "sophon_keeper"):
            connection.execute(f"SET ROLE {role}".encode())
            with pytest.raises(InsufficientPrivilege):
                connection.execute("SELECT audit.prune(1)")
    async with Log.open(own, SEALER) as log:
        future = (PrunedClass("reads", datetime(2100, 1, 1, tzinfo=UTC)),)
        await log.append([Context().draft(one) for one in (*approved(), said(place, classes=future))])
    assert {class_of(type(told(row[0])).__name__) for row in place.rows() if row[3] == "Pruned"} == {"reads"}
    with psycopg.connect(own, autocommit=True) as connection:
        assert connection.execute("SELECT audit.prune(%s)", (SIGNED + 3,)).fetchone() == (0,)
        with pytest.raises(InsufficientPrivilege):
            connection.execute("UPDATE audit.entries SET bytes = bytes WHERE position = 1")
        with pytest.raises(InsufficientPrivilege):
            connection.execute("ALTER TABLE audit.entries DISABLE TRIGGER only_grows")
    with psycopg.connect(place.dsn, autocommit=True) as connection, pytest.raises(RaiseException, match="only grows"):
        connection.execute("UPDATE audit.entries SET bytes = bytes WHERE position = 1")


async def test_a_pruning_that_is_interrupted_has_not_happened(place: Place) -> None:
    """The database dies after the rows were changed and before the commit: no entry, no tombstone, and the trigger."""
    exported = await place.export("export")
    await Dispatch(place.log)(await place.command(GRACE, exported), Context(actor=Actor(kind="user", id=GRACE)))
    before = place.rows()
    drafts = [Context().draft(one) for one in (approved()[1], said(place))]
    lines = [encode(draft.entry(datetime.now(UTC))) for draft in drafts]
    dying = psycopg.connect(place.dsn)
    dying.execute(
        "SELECT audit.append(%s, %s, %s, NULL)",
        (len(before), b"\n".join(lines).decode(), b"".join(map(leaf_hash, lines))),
    )
    assert dying.execute("SELECT count(*) FROM audit.entries WHERE type = 'Pruned'").fetchone() != (0,)
    with psycopg.connect(place.dsn, autocommit=True) as other:
        assert other.execute("SELECT count(*) FROM audit.entries WHERE type = 'Pruned'").fetchone() == (0,)
        other.execute("SELECT pg_terminate_backend(%s)", (dying.info.backend_pid,))
        dying.close()
        assert place.rows() == before
        with pytest.raises(RaiseException, match="only grows"):
            other.execute("UPDATE audit.entries SET bytes = bytes")
    assert (await place.verify()).pruned == 0
    done = await Dispatch(place.log)(
        await place.command(HOPPER, exported), Context(actor=Actor(kind="user", id=HOPPER))
    )
    assert LogPruned in {type(event) for event in done.events}
    assert (await place.verify()).pruned == len(due(before))


def tombstone(row: tuple[Any, ...], by: int, of: str = "reads") -> bytes:
    entry = msgspec.json.decode(row[1])
    content = {"actor": {"kind": "system"}, "at": entry["at"], "data": {"by": by, "of": of}, "id": entry["id"]}
    return msgspec.json.encode({**content, "outcome": entry["outcome"], "tags": [], "type": "Pruned", "v": 1})


@pytest.mark.parametrize(
    ("position", "by", "of", "found"),
    [
        (285, SIGNED + 3, "reads", 285),  # beyond what was pruned, and a fact
        (281, SIGNED + 3, "reads", 281),  # beyond what was pruned
        (8, SIGNED + 3, "security", 8),  # of a class that was not
        (8, SIGNED + 2, "reads", 8),  # by an entry that says something else
        (8, 10**9, "reads", 8),  # by an entry that is not there
    ],
)
async def test_a_tombstone_where_nothing_was_pruned_is_located(
    position: int, by: int, of: str, found: int, place: Place
) -> None:
    rows = place.rows()
    await place.prune(await place.export("export"))
    with superuser(place.dsn) as connection:
        forged = tombstone(rows[position - 1], by, of).decode()
        connection.execute("UPDATE audit.entries SET bytes = %s WHERE position = %s", (forged, position))
    finding = await place.found()
    assert (finding.first, finding.last, finding.kind) == (found, found, "edited")
    assert "made to look as if it had been pruned" in finding.says


@pytest.mark.parametrize("put_back", [False, True])
async def test_a_tombstone_in_the_place_of_another_entry_is_noticed(put_back: bool, place: Place) -> None:
    """Made of a fact under a pruning that covers it; also where another is put back, and the number is right."""
    rows = place.rows()
    await place.prune(await place.export("export"))
    with superuser(place.dsn) as connection:
        forged = tombstone(rows[4], SIGNED + 3).decode()
        connection.execute("UPDATE audit.entries SET bytes = %s WHERE position = 5", (forged,))
        if put_back:
            connection.execute("UPDATE audit.entries SET bytes = %s WHERE position = 6", (rows[5][1],))
    finding = await place.found()
    assert finding.first <= 5 <= finding.last <= BEFORE
    assert "they are not the same" in finding.says


@pytest.mark.parametrize(
    "change",
    [
        "leaf_hash = sha256('')",
        "bytes = replace(bytes::text, 'Pruned', 'Heartbeat')::json",
        'bytes = replace(bytes::text, \'"tags":[]\', \'"tags":["project:apollo"]\')::json',
        "bytes = replace(bytes::text, '\"v\":1', '\"v\":1 ')::json",
    ],
)
async def test_a_tombstone_that_was_touched_is_located(change: str, place: Place) -> None:
    await place.prune(await place.export("export"))
    with superuser(place.dsn) as connection:
        connection.execute(f"UPDATE audit.entries SET {change} WHERE position = 7".encode())
    finding = await place.found()
    assert finding.first <= 7 <= finding.last
    if "leaf_hash" not in change:
        assert finding.first == finding.last == 7


async def test_an_export_goes_on_and_keeps_what_was_pruned(place: Place) -> None:
    exported = await place.export("export")
    original = {row[0]: row[1].encode() for row in place.rows()}
    await place.prune(exported)
    await place.log.append([Context().draft(Heartbeat()) for _ in range(300)])
    size = await place.sign()
    grown = await place.export("export")
    entries: dict[int, bytes] = {}
    verify_exported(grown, take=lambda after, some, _: entries.update(enumerate(some, after + 1)))
    assert (len(entries), {n: entries[n] for n in original}) == (size, original)
    assert by_shell(place.data / "export") == 0

    with pytest.raises(NotExported, match="only in the exports that were made before"):
        await place.export("fresh")
    fresh = await place.export("fresh", earlier=grown)
    verify_exported(fresh)
    files = [one for one in (place.data / "fresh" / "tile").rglob("*") if one.is_file()]
    assert files
    for one in files:
        assert one.read_bytes() == (place.data / "export" / one.relative_to(place.data / "fresh")).read_bytes()


def by_shell(directory: Path) -> int:
    """Verify with the script that lies in an export."""
    return subprocess.run(["sh", "verify.sh", "."], cwd=directory, capture_output=True, check=False).returncode


async def test_an_export_with_another_content_does_not_fill_the_gaps(place: Place) -> None:
    exported = await place.export("export")
    await place.prune(exported)
    await place.sign()
    bundle = place.data / "export" / "tile" / "entries" / "000"
    bundle.write_bytes(bundle.read_bytes().replace(b"gemini", b"gemina"))
    with pytest.raises(NotExported, match="was pruned"):
        await place.export("fresh", earlier=exported)


async def test_lines_for_other_systems_say_what_was_pruned_and_cannot_be_verified(place: Place) -> None:
    await place.prune(await place.export("export"))
    await place.sign()
    lines = await place.export("lines", "jsonl")
    [file] = (place.data / "lines").glob("jsonl-*")
    assert file.read_bytes().splitlines() == [row[1].encode() for row in place.rows()]
    for format_ in ("cloudevents", "ocsf"):
        await place.export(format_, format_)
    with pytest.raises(Unverifiable, match="had been pruned"):
        verify_exported(lines)
    whole = await place.export("whole", "jsonl", earlier=open_exported(place.data / "export", place.trust))
    assert verify_exported(whole).entries == SIGNED + 3


async def test_what_was_pruned_is_pruned_again_after_a_recovery(place: Place, databases: Databases) -> None:
    """The backup that was put back is one of the time before."""
    exported = await place.export("export")
    with databases.fresh() as older:
        for table in ("entries", "tiles", "checkpoints"):
            copied(place.dsn, older, table)
        await place.prune(exported)
        await place.sign()
        exported = await place.export("export")
        async with connected(older) as connection:
            done = await recover(connection, exported, place.trust)
            assert (done.head, done.size) == (SIGNED, SIGNED + 3)
            whole = await verify_log(connection, place.trust)
            assert whole.pruned == len(due(place.rows())) + sum(row[3] == "Pruned" for row in place.rows())
        assert Place(older, place.data, place.log, place.signer).rows() == place.rows()


async def test_what_was_sealed_for_an_entry_goes_with_it(place: Place) -> None:
    """But an address that other entries rest on stays."""
    by = Context(actor=Actor(kind="user", id=ADA), source="192.0.2.1")
    await place.log.append([by.draft(AuditQueried(question="entries", about=Personal("actor:ada")))])
    await place.log.append([by.draft(LoggedIn(user=ADA, session="ses_" + "0" * 26))])
    await place.sign()

    def names() -> list[str]:
        with psycopg.connect(place.dsn) as connection:
            found = connection.execute(
                "SELECT name FROM vault.disclosures WHERE position > %s AND position <= %s ORDER BY 1",
                (SIGNED, SIGNED + 2),
            )
            return [row[0] for row in found.fetchall()]

    assert names() == ["about", "address"]
    future = (PrunedClass("reads", datetime(2100, 1, 1, tzinfo=UTC)),)
    events = (*approved(before=SIGNED + 1), said(place, before=SIGNED + 1, classes=future))
    position = await place.log.append([Context().draft(one) for one in events])
    assert names() == ["address"]
    future = (*future, PrunedClass("security", datetime(2100, 1, 1, tzinfo=UTC)))
    events = (*approved(before=SIGNED + 2), said(place, before=SIGNED + 2, classes=future))
    await place.log.append([Context().draft(one) for one in events])
    assert names() == []
    async with connected(place.dsn) as connection:
        assert await prune(connection, position) == 0


def test_the_database_knows_the_same_classes(dsn: str) -> None:
    """A type that it does not know it never prunes."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT type, audit.prunable(type) FROM unnest(%s::text[]) AS type", ([*EVENTS, "OfAnotherDay"],)
        ).fetchall()
    known = {type_: name for type_, name in rows if name}
    assert known
    assert {type_: class_of(type_) for type_ in known} == known
    assert not set(known) & {*FOR_EVER, *(type_ for type_, event in EVENTS.items() if event.fact)}
    reads = {type_ for type_ in EVENTS if class_of(type_) == "reads"}
    assert reads <= set(known)


async def test_others_read_while_something_is_pruned(place: Place) -> None:
    """Whoever prunes holds the table against whoever appends, not against whoever reads."""
    exported = await place.export("export")
    async with place.log.pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT count(*) FROM audit.entries")
        async with asyncio.timeout(10):
            await place.prune(exported)

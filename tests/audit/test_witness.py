"""A witness: it cosigns what continues what it has seen, and its client makes do with as many as the policy needs."""

import asyncio
import socket
import stat
import sys
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from app.audit.log import Log
from app.audit.signing import witness_server
from app.audit.signing.signer import Signer
from app.audit.signing.store import SignerBusy, Store
from app.audit.signing.tree import Tree
from app.audit.signing.witness_client import LONGEST_ANSWER, Answer, NoWitness, Witnesses, ask_by_http
from app.audit.signing.witness_server import WitnessServer
from app.audit.transparency.checkpoints import Checkpoint
from app.audit.transparency.keys import SigningKey, Verifier
from app.audit.transparency.notes import open_note, sign_note
from app.audit.transparency.policies import parse_policy
from app.audit.transparency.tree import EMPTY_FRONTIER, Frontier, leaf_hash
from app.audit.transparency.witnessing import MAX_REQUEST, SIZE_TYPE, Refused, origin_hash, request
from tests.audit.authority import serving
from tests.audit.signing import ORIGIN, Signing, asked, by, grow, policy, running

LOG = SigningKey.generate(ORIGIN, "ed25519")


def tree_of(*leaves: str) -> Frontier:
    return EMPTY_FRONTIER.extended([leaf_hash(leaf.encode()) for leaf in leaves])


def note_of(tree: Frontier, key: SigningKey = LOG, origin: str = ORIGIN) -> bytes:
    return sign_note(Checkpoint(origin, tree.size, tree.root()).text(), [key])


def body_of(old: int, proof: tuple[bytes, ...], note: bytes) -> bytes:
    return request(old, proof, note).encoded()


A, AB = tree_of("a"), tree_of("a", "b")


@pytest.fixture
def witness(tmp_path: Path) -> WitnessServer:
    return WitnessServer(tmp_path / "witness", "witness.example", [LOG.verifier], lambda: 1_800_000_000.5)


async def test_a_witness_cosigns_and_says_when(witness: WitnessServer) -> None:
    status, type_, answer = await asked(witness, "POST", "/add-checkpoint", body_of(0, (), note_of(A)), chunk=7)
    assert (status, type_) == (200, "text/plain; charset=utf-8")
    (cosigned,) = open_note(note_of(A) + answer, [witness.keys[0].verifier]).signed
    assert cosigned.at == 1_800_000_000
    status, _, answer = await asked(witness, "POST", "/add-checkpoint", body_of(1, (leaf_hash(b"b"),), note_of(AB)))
    assert status == 200
    status, _, newest = await asked(witness, "GET", f"/{origin_hash(ORIGIN)}/checkpoint")
    assert status == 200
    assert open_note(newest, [LOG.verifier, witness.keys[0].verifier]).text == Checkpoint(ORIGIN, 2, AB.root()).text()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b""),
        (400, b"old 1\n\nno note"),
        (400, body_of(3, (), note_of(A))),
        (403, body_of(1, (), note_of(A, SigningKey.generate(ORIGIN, "ed25519")))),
        (404, body_of(0, (), note_of(A, SigningKey.generate("b.example/log", "ed25519"), "b.example/log"))),
        (409, body_of(0, (), note_of(AB))),
        (422, body_of(1, (), note_of(AB))),
        (422, body_of(1, (bytes(32),), note_of(AB))),
        (422, body_of(1, (), note_of(tree_of("b")))),
        (413, bytes(MAX_REQUEST + 1)),
    ],
)
async def test_a_witness_refuses_with_the_status_of_the_specification(
    witness: WitnessServer, status: int, body: bytes
) -> None:
    await asked(witness, "POST", "/add-checkpoint", body_of(0, (), note_of(A)))
    assert (await asked(witness, "POST", "/add-checkpoint", body))[0] == status
    seen = witness.seen(ORIGIN)
    assert seen is not None
    assert (seen.size, seen.root) == (1, A.root())


async def test_a_conflict_names_the_size_that_was_seen(witness: WitnessServer) -> None:
    await asked(witness, "POST", "/add-checkpoint", body_of(0, (), note_of(A)))
    answer = await asked(witness, "POST", "/add-checkpoint", body_of(0, (), note_of(AB)))
    assert answer == (409, SIZE_TYPE, b"1\n")


async def test_a_witness_that_starts_again_remembers_what_it_has_seen(tmp_path: Path, witness: WitnessServer) -> None:
    await asked(witness, "POST", "/add-checkpoint", body_of(0, (), note_of(A)))
    again = WitnessServer(tmp_path / "witness", "another.name", [LOG.verifier])
    assert again.keys == witness.keys
    assert (await asked(again, "POST", "/add-checkpoint", body_of(0, (), note_of(tree_of("b")))))[0] == 409
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "witness").iterdir()}
    assert modes == {"witness-key.json": 0o600, f"{origin_hash(ORIGIN)}.json": 0o600}


async def test_what_could_not_be_kept_is_not_cosigned(witness: WitnessServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(witness_server, "write", full)
    with pytest.raises(OSError, match="No space"):
        await witness.add_checkpoint(request(0, (), note_of(A)))
    monkeypatch.undo()
    assert witness.seen(ORIGIN) is None
    await witness.add_checkpoint(request(0, (), note_of(tree_of("b"))))


async def test_of_many_that_ask_at_once_for_different_histories_one_is_cosigned(witness: WitnessServer) -> None:
    asking = [witness.add_checkpoint(request(0, (), note_of(tree_of(str(number))))) for number in range(40)]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert len([one for one in answers if not isinstance(one, Refused)]) == 1


async def test_two_processes_do_not_witness_with_one_directory(tmp_path: Path, witness: WitnessServer) -> None:
    other = WitnessServer(tmp_path / "witness", "witness.example", [LOG.verifier])
    with witness.store.held(), pytest.raises(SignerBusy), other.store.held():
        pass


async def test_unknown_paths_and_origins_are_not_found(witness: WitnessServer) -> None:
    for method, path in (("GET", f"/{origin_hash(ORIGIN)}/checkpoint"), ("GET", "/add-checkpoint"), ("POST", "/x")):
        assert (await asked(witness, method, path))[0] == 404
    assert await asked(witness, "GET", "/") == (
        200,
        "text/plain; charset=utf-8",
        f"{witness.keys[0].verifier.text()}\n".encode(),
    )


async def three(log: Log, directory: Path, needed: int) -> tuple[Signing, dict[str, WitnessServer]]:
    """Give a signed log, and three witnesses of whom so many are needed."""
    key = Signing(log, directory / "signer")
    await key.signer.begin()
    servers = {name: WitnessServer(directory / name, f"{name}.example", key.verifiers()) for name in ("w1", "w2", "w3")}
    return Signing(log, directory / "signer", by(servers, Tree(log.pool), needed)), servers


async def until_published(signing: Signing, size: int) -> bytes:
    async with asyncio.timeout(10):
        while True:
            newest = await signing.tree.newest()
            if newest and newest.size >= size:
                return newest.note
            signing.signer.hurry()
            await asyncio.sleep(0.02)


async def test_a_checkpoint_is_published_once_enough_witnesses_have_cosigned(log: Log, tmp_path: Path) -> None:
    signing, servers = await three(log, tmp_path, 2)
    everyone = dict(servers)
    async with running(signing.signer):
        for size in (3, 6):
            await grow(log, 3)
            note = await until_published(signing, size)
            assert len(policy(everyone, 2, signing.verifiers()).check(note).witnesses) >= 2
        del servers["w3"]  # one may be away
        await grow(log, 3)
        assert set(policy(everyone, 2, signing.verifiers()).check(await until_published(signing, 9)).witnesses) == {
            "w1",
            "w2",
        }
        del servers["w2"]  # two may not
        await grow(log, 3)
        async with asyncio.timeout(10):
            while signing.signer.size < 12:
                signing.signer.hurry()
                await asyncio.sleep(0.02)
        assert (await signing.checkpoint()).size == 9
        assert signing.store.signed().size == 12  # pyright: ignore[reportOptionalMemberAccess]
        servers["w3"] = everyone["w3"]  # it has missed two checkpoints, and says how far it had come
        policy(everyone, 2, signing.verifiers()).check(await until_published(signing, 12))


async def test_missing_witnesses_are_a_fault_that_names_them(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.audit.signing.signer.LATE", 0.05)
    signing, servers = await three(log, tmp_path, 3)
    del servers["w2"]
    await grow(log, 3)
    async with running(signing.signer), asyncio.timeout(10):
        while not signing.signer.faults():
            signing.signer.hurry()
            await asyncio.sleep(0.02)
        assert "w2 does not answer" in signing.signer.faults()[0]


def answering(*answers: Answer) -> Witnesses:
    """Ask one witness, who gives these answers."""
    left = list(answers)

    async def ask(method: str, address: str, body: bytes) -> Answer:
        return left.pop(0)

    async def prove(old: int, new: int) -> tuple[bytes, ...]:
        return ()

    key = SigningKey(name="w.example", kind="cosignature/v1", seed=bytes(32))
    text = f"witness w {key.verifier.text()} http://w\nquorum w\n"
    return Witnesses(parse_policy(text.encode()), prove, ask)


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/plain", b""),
        (200, "text/plain", b"\xff\xfe"),
        (200, "text/plain", note_of(A).partition(b"\n\n")[2]),
        (500, "text/plain", b"oh"),
        (409, SIZE_TYPE, b"many\n"),
        (409, "text/plain", b"1\n"),
        (302, "text/plain", b""),
    ],
)
async def test_an_answer_that_is_no_cosignature_counts_for_nothing(answer: Answer) -> None:
    witnesses = answering(answer)
    assert await witnesses.cosign(1, note_of(A), [LOG.verifier]) == (note_of(A), False)
    assert witnesses.wrong().startswith("w: ")


async def test_a_witness_is_not_believed_that_it_has_seen_more_unless_it_shows_it() -> None:
    lie = (409, SIZE_TYPE, b"2\n")
    forged = note_of(AB, SigningKey.generate(ORIGIN, "ed25519"))
    for shown in ((404, "text/plain", b""), (200, "text/plain", forged), (200, "text/plain", note_of(A))):
        assert (await answering(lie, shown, lie).cosign(1, note_of(A), [LOG.verifier]))[1] is False


async def test_a_witness_that_has_seen_more_freezes_the_log(log: Log, tmp_path: Path) -> None:
    signing, _ = await three(log, tmp_path, 2)
    await grow(log, 1)
    async with running(signing.signer):
        await until_published(signing, 1)
        older = (tmp_path / "signer" / "state.json").read_bytes()
        await grow(log, 1)
        await until_published(signing, 2)
    # Everything that lies here is put back as it was: the database and the signer's memory. The witnesses know better.
    (tmp_path / "signer" / "state.json").write_bytes(older)
    async with log.pool.connection() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM audit.entries WHERE position = 2")
        await connection.execute("DELETE FROM audit.checkpoints WHERE size = 2")
    servers = {name: WitnessServer(tmp_path / name, name, signing.verifiers()) for name in ("w1", "w2", "w3")}
    again = Signer(log, Store(tmp_path / "signer"), ORIGIN, by(servers, signing.tree, 2))
    async with running(again), asyncio.timeout(10):
        while log.frozen is None:
            await asyncio.sleep(0.02)
    assert "ends at 1, and 2 entries were signed" in log.frozen


def test_a_policy_that_nobody_can_meet_is_refused(tmp_path: Path) -> None:
    async def prove(old: int, new: int) -> tuple[bytes, ...]:
        return ()

    path = tmp_path / "policy"
    key = SigningKey.generate("w.example", "cosignature/v1").verifier.text()
    for text in (f"witness w {key}\nquorum w\n", "quorum\n", ""):
        path.write_text(text)
        with pytest.raises(NoWitness, match=str(path)):
            Witnesses.by(path, prove)
    with pytest.raises(NoWitness, match="nowhere"):
        Witnesses.by(tmp_path / "nowhere", prove)
    path.write_text(f"witness w {key} http://127.0.0.1:9\nquorum w\n")
    assert set(Witnesses.by(path, prove).status) == {"w"}


async def test_a_witness_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Connect"):
        await ask_by_http("POST", "http://127.0.0.1:9/add-checkpoint", b"")


async def test_the_command_serves_a_witness_that_says_its_key_first(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        listen = f"127.0.0.1:{found.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app", "audit", "witness", "--state", str(tmp_path / "w"), "--name", "w.example"),
        *("--log", LOG.verifier.text(), "--listen", listen),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        verifier = Verifier.parse((await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip())
        policy = parse_policy(f"witness w {verifier.text()} http://{listen}/\nquorum w\n".encode())

        async def prove(old: int, new: int) -> tuple[bytes, ...]:
            return (leaf_hash(b"b"),) if (old, new) == (1, 2) else ()

        witnesses = Witnesses(policy, prove)
        async with asyncio.timeout(30):
            while not (await witnesses.cosign(1, note_of(A), [LOG.verifier]))[1]:
                await asyncio.sleep(0.1)
        note, enough = await Witnesses(policy, prove).cosign(2, note_of(AB), [LOG.verifier])
        assert enough
        assert [one.verifier for one in open_note(note, [verifier]).signed] == [verifier]
    finally:
        process.terminate()
        await process.wait()


def test_what_is_kept_can_be_read_by_people(tmp_path: Path, witness: WitnessServer) -> None:
    asyncio.run(asked(witness, "POST", "/add-checkpoint", body_of(0, (), note_of(A))))
    kept = msgspec.json.decode((tmp_path / "witness" / f"{origin_hash(ORIGIN)}.json").read_bytes())
    assert (kept["origin"], kept["size"]) == (ORIGIN, 1)


async def test_an_answer_that_comes_in_pieces_is_read_whole_and_no_more_than_it_may_have() -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(int(request.query["pieces"])):
            await response.write(b"x" * 1_000)
            await asyncio.sleep(0.001)
        return response

    async with serving(slowly) as address:
        assert [len((await ask_by_http("POST", f"{address}?pieces={n}", b""))[2]) for n in (3, 100)] == [
            3_000,
            LONGEST_ANSWER,
        ]

"""Timestamps: one a day, by an authority that is believed, of what the log was; and nothing else is ever appended."""

import asyncio
import base64
import contextlib
import shutil
import subprocess
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from rfc3161_client import decode_timestamp_response
from structlog.testing import capture_logs

from app.audit.entry import Context
from app.audit.evidence.exported import open_exported, verify_exported
from app.audit.evidence.findings import Tampered
from app.audit.evidence.stamps import Stamped, judge
from app.audit.evidence.trust import Trust, trust_of
from app.audit.evidence.verify import connected, verify_log
from app.audit.log import Log
from app.audit.signing import timestamps as timestamps_module
from app.audit.signing.timestamps import LONGEST_ANSWER, SHORTEST_WAIT, Timestamps
from app.audit.signing.tokens import Authorities, NoAuthority, NotStamped, Question, read_token
from app.domain.model import events
from app.domain.signing import CheckpointTimestamped
from app.platform import Platform
from app.settings import BadSetting, Settings
from tests.audit.authority import Answer, Authority, answering, serving
from tests.audit.signing import ORIGIN, Signing, grow
from tests.audit.test_export import export, shell
from tests.audit.test_verify import command
from tests.database import end
from tests.questions.platform import KEYS

NOBODY = "http://127.0.0.1:1/tsa"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "Somebody Else")


@pytest.fixture
async def signing(log: Log, tmp_path: Path) -> Signing:
    """A log of three entries, and a checkpoint of them."""
    signing = Signing(log, tmp_path / "signer")
    await grow(log, 3)
    await signing.sign()
    return signing


def stamping(signing: Signing, url: str, authority: Authority) -> Timestamps:
    return Timestamps(signing.log, signing.store, url, Authorities.by(authority.root))


async def stamp(signing: Signing, authority: Authority, *, by: Authority | None = None) -> int | None:
    async with answering((by or authority).reply) as url:
        return await stamping(signing, url, by or authority).stamp()


async def append(signing: Signing, size: int, token: bytes) -> int:
    """Append what somebody could who has taken over the application."""
    forged = CheckpointTimestamped(size=size, token=base64.b64encode(token).decode())
    return await signing.log.append([Context().draft(forged)])


async def token_of(signing: Signing, size: int) -> bytes:
    record = (await signing.log.read(after=size, limit=1)).records[0]
    assert isinstance(record.event, CheckpointTimestamped)
    return base64.b64decode(record.event.token)


def trust(signing: Signing) -> Trust:
    found = trust_of(signing.store.directory)
    assert found is not None
    return found


async def judged(signing: Signing, dsn: str, authority: Authority | None) -> list[Stamped]:
    await signing.sign()
    async with connected(dsn) as connection:
        whole = await verify_log(connection, trust(signing))
    return judge(whole.stamps, ORIGIN, Authorities.by(authority.root) if authority else None)


async def rejected(signing: Signing, dsn: str, authority: Authority | None, position: int, why: str) -> None:
    """See that it is found in the database and in an export, and where."""
    with pytest.raises(Tampered, match=why) as caught:
        await judged(signing, dsn, authority)
    finding = caught.value.finding
    assert (finding.kind, finding.first, finding.last) == ("timestamp", position, position)
    for format_ in ("tiles", "jsonl"):
        directory = signing.store.directory.parent / format_
        await export(dsn, directory, trust(signing), format_)
        whole = verify_exported(open_exported(directory, trust(signing)))
        with pytest.raises(Tampered, match=why) as caught:
            judge(whole.stamps, ORIGIN, Authorities.by(authority.root) if authority else None)
        assert caught.value.finding == finding


async def test_the_newest_checkpoint_is_timestamped_and_verifies(
    signing: Signing, dsn: str, authority: Authority
) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    assert await stamp(signing, authority) == 4
    (stamped,) = await judged(signing, dsn, authority)
    assert (stamped.size, stamped.token.authority) == (3, "CN=Test Timestamps")
    assert before <= stamped.token.at <= datetime.now(UTC)
    for format_ in ("tiles", "jsonl"):
        directory = signing.store.directory.parent / format_
        await export(dsn, directory, trust(signing), format_)
        whole = verify_exported(open_exported(directory, trust(signing)))
        assert judge(whole.stamps, ORIGIN, Authorities.by(authority.root)) == [stamped]


def openssl(text: Path, token: Path, authority: Authority) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["openssl", "ts", "-verify", "-data", text, "-in", token, "-token_in", "-CAfile", authority.root],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_an_authority_that_does_not_sort_its_certificates_is_understood(authority: Authority) -> None:
    """As DER asks for, and OpenSSL does not."""
    question = Question.of(b"text")
    answer = authority.reply(question.der)
    with pytest.raises(ValueError, match="InvalidSetOrdering"):
        decode_timestamp_response(answer)
    token = question.accept(answer, Authorities.by(authority.root))
    assert sorted(token.der) == sorted(answer[-len(token.der) :])  # the same octets, in another order
    assert read_token(token.der) == token


@pytest.mark.parametrize("size", [3, 256, 300])
async def test_openssl_verifies_it_by_what_the_shell_finds_in_an_export(
    size: int, signing: Signing, dsn: str, authority: Authority, tmp_path: Path
) -> None:
    if size > 3:
        await grow(signing.log, size - 3)
        await signing.sign()
    await stamp(signing, authority)
    await grow(signing.log, 10)
    await signing.sign()
    await export(dsn, tmp_path / "export", trust(signing))
    token, text = tmp_path / "token", tmp_path / "text"
    token.write_bytes(await token_of(signing, size))
    for sh in filter(shutil.which, ("dash", "bash")):
        told = await asyncio.to_thread(shell, tmp_path / "export", "--text", str(size), sh=sh)
        assert told.returncode == 0, told.stderr
        text.write_text(told.stdout)
        for content, code in ((told.stdout, 0), (told.stdout.replace(f"\n{size}\n", f"\n{size + 1}\n"), 1)):
            text.write_text(content)
            done = await asyncio.to_thread(openssl, text, token, authority)
            assert done.returncode == code, done.stderr
    for wrong in ("0", "03", "x", str(size + 12)):
        assert (await asyncio.to_thread(shell, tmp_path / "export", "--text", wrong)).returncode == 2


async def test_there_is_one_a_day_and_not_two(
    signing: Signing, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(authority.reply) as url:
        timestamps = stamping(signing, url, authority)
        assert await timestamps.stamp() == 4
        await grow(signing.log, 3)
        await signing.sign()
        assert await timestamps.stamp() is None
        monkeypatch.setattr(timestamps_module, "EVERY", timedelta(0))
        assert await timestamps.stamp() == 8
        await signing.sign()
        assert await timestamps.stamp() is None  # nothing but itself was signed since
        await grow(signing.log, 1)
        await signing.sign()
        assert await timestamps.stamp() == 10
    stamps = [one.event for one in (await signing.log.read((events(CheckpointTimestamped),))).records]
    assert [one.size for one in stamps if isinstance(one, CheckpointTimestamped)] == [3, 7, 9]


async def test_nothing_is_timestamped_before_something_is_signed(
    log: Log, authority: Authority, tmp_path: Path
) -> None:
    await grow(log, 3)
    assert await stamping(Signing(log, tmp_path / "signer"), NOBODY, authority).stamp() is None


async def test_a_checkpoint_that_the_log_has_not_signed_is_not_timestamped(
    signing: Signing, authority: Authority, tmp_path: Path
) -> None:
    elsewhere = Signing(signing.log, tmp_path / "elsewhere")
    with pytest.raises(NotStamped, match="no keys in"):
        await stamping(elsewhere, NOBODY, authority).stamp()
    async with signing.log.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO audit.checkpoints (size, root, note) SELECT 4, root, set_byte(note, %s, ascii('4')) FROM"
            " audit.checkpoints",
            (len(ORIGIN) + 1,),  # where the size stands
        )
    with pytest.raises(NotStamped, match="not one of this log"):
        await stamping(signing, NOBODY, authority).stamp()


def of_something_else(authority: Authority) -> Answer:
    return lambda query: authority.reply(Question.of(b"something else").der)


def garbled(authority: Authority) -> Answer:
    def reply(query: bytes) -> bytes:
        answer = bytearray(authority.reply(query))
        answer[-1] ^= 1  # of the signature
        return bytes(answer)

    return reply


WRONG: dict[str, tuple[str, str]] = {
    "garbage": ("garbage", "is no timestamp"),
    "nothing": ("nothing", "is no timestamp"),
    "too much": ("too much", f"more than {LONGEST_ANSWER} bytes"),
    "a refusal": ("refusal", r"gives none \(status 2\)"),
    "another nonce": ("nonce", "Nonce mismatch"),
    "another imprint": ("imprint", "of something else"),
    "an unknown root": ("stranger", "not signed by an authority that is believed"),
    "a signature that is wrong": ("garbled", "not signed by an authority that is believed"),
}


@pytest.mark.parametrize(("kind", "why"), WRONG.values(), ids=WRONG.keys())
async def test_another_answer_is_not_appended_and_the_reason_is_logged(
    kind: str, why: str, signing: Signing, authority: Authority, stranger: Authority
) -> None:
    text = (await signing.checkpoint()).text().encode()
    answers: dict[str, Answer] = {
        "garbage": lambda query: b"<html>" * 100,
        "nothing": lambda query: b"",
        "too much": lambda query: bytes(LONGEST_ANSWER + 1),
        "refusal": lambda query: bytes.fromhex("30053003020102"),
        "nonce": lambda query: authority.reply(Question.of(text).der),
        "imprint": of_something_else(authority),
        "stranger": stranger.reply,
        "garbled": garbled(authority),
    }
    async with answering(answers[kind]) as url:
        timestamps = stamping(signing, url, authority)
        with capture_logs() as told:
            async with running(timestamps):
                await until_wrong(timestamps)
    assert [one["error"] for one in told if one["event"] == "timestamp.not_got"] == [timestamps.wrong]
    with pytest.raises(NotStamped, match=why):
        raise NotStamped(timestamps.wrong)
    assert (await signing.log.read()).head == 3
    await grow(signing.log, 1)  # and nothing else is disturbed
    assert (await signing.sign()).size == 4


async def test_an_authority_that_is_away_is_asked_again_after_longer_and_longer(
    signing: Signing, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0.01)

    timestamps = Timestamps(signing.log, signing.store, NOBODY, Authorities.by(authority.root), sleep)
    async with running(timestamps), asyncio.timeout(20):
        while len(waits) < 8:
            await asyncio.sleep(0.01)
        assert waits[:8] == [SHORTEST_WAIT, 120, 240, 480, 960, 1920, 3600, 3600]
        assert timestamps.faults() == []
        monkeypatch.setattr(timestamps_module, "LATE", 0.0)
        assert "No timestamp has been got for 0 h: The authority does not answer" in timestamps.faults()[0]
    assert (await signing.log.read()).head == 3


async def test_it_does_not_follow_a_redirection_nor_wait_for_ever(
    signing: Signing, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("/elsewhere")

    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(2)
        return web.Response()

    async with serving(elsewhere) as url:
        with pytest.raises(NotStamped, match="answered 307"):
            await stamping(signing, url, authority).stamp()
    monkeypatch.setattr(timestamps_module, "ANSWER_WITHIN", 0.1)
    async with serving(never) as url:
        with pytest.raises(NotStamped, match="does not answer"):
            await stamping(signing, url, authority).stamp()


async def test_a_token_of_another_root_is_found_once_roots_are_named(
    signing: Signing, dsn: str, authority: Authority, stranger: Authority
) -> None:
    position = await stamp(signing, authority, by=stranger)
    assert position == 4
    assert [one.token.authority for one in await judged(signing, dsn, None)] == ["CN=Somebody Else"]
    await rejected(signing, dsn, authority, 4, "not signed by an authority that is believed")


@pytest.mark.parametrize("named", [True, False])
async def test_a_token_of_another_checkpoint_is_found_without_any_roots(
    named: bool, signing: Signing, dsn: str, authority: Authority
) -> None:
    await stamp(signing, authority)
    await grow(signing.log, 3)
    position = await append(signing, 5, await token_of(signing, 3))
    await rejected(signing, dsn, authority if named else None, position, "of another checkpoint than the entries give")


@pytest.mark.parametrize(("size", "why"), [(4, "It is of 4 entries, and 3"), (99, "It is of 99 entries, and 3")])
async def test_a_timestamp_of_what_comes_after_it_is_found(
    size: int, why: str, signing: Signing, dsn: str, authority: Authority
) -> None:
    question = Question.of(b"what comes")
    forged = question.accept(authority.reply(question.der), Authorities.by(authority.root)).der
    assert await append(signing, size, forged) == 4
    await rejected(signing, dsn, authority, 4, why)


async def test_what_is_no_token_at_all_is_found(signing: Signing, dsn: str, authority: Authority) -> None:
    assert await append(signing, 3, b"no token") == 4
    await rejected(signing, dsn, None, 4, "is no timestamp token")


async def test_the_command_says_who_vouches_for_when_and_what_it_could_not_judge(
    signing: Signing, dsn: str, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    await stamp(signing, authority)
    await signing.sign()
    await export(dsn, tmp_path / "export", trust(signing))
    newest = "Timestamps: 1. By the newest, the first 3 entries were there at"
    for where in ((), ("--export", str(tmp_path / "export"))):
        done = await command(dsn, tmp_path, "audit", "verify", *where, "--timestamp-root", str(authority.root))
        told = " ".join(done.stderr.split())
        assert (done.returncode, newest in told, "CN=Test Timestamps" in told) == (0, True, True), told
        assert "not judged" not in told
        done = await command(dsn, tmp_path, "audit", "verify", *where)
        told = " ".join(done.stderr.split())
        assert (done.returncode, newest in told, "Who signed them is not judged" in told) == (0, True, True), told
        done = await command(
            dsn, tmp_path, "audit", "verify", *where, "--evidence", str(tmp_path),
            SOPHON_TIMESTAMP_URL=NOBODY, SOPHON_TIMESTAMP_ROOT=str(stranger.root),
        )  # fmt: skip
        assert (done.returncode, "position: 4" in done.stdout) == (1, True), done.stderr
        done = await command(dsn, tmp_path, "audit", "verify", *where, "--timestamp-root", str(tmp_path / "none"))
        assert done.returncode == 2
        assert "none has no certificates (PEM) of timestamp authorities: No such file or directory\n" in done.stderr


def test_both_settings_are_set_or_neither(tmp_path: Path) -> None:
    url, root = {"SOPHON_TIMESTAMP_URL": "http://tsa.example.org/tsr"}, {"SOPHON_TIMESTAMP_ROOT": "/etc/tsa.pem"}
    with pytest.raises(BadSetting, match="SOPHON_TIMESTAMP_URL goes with SOPHON_TIMESTAMP_ROOT, which is not set"):
        Settings.read(url)
    with pytest.raises(BadSetting, match="SOPHON_TIMESTAMP_ROOT goes with SOPHON_TIMESTAMP_URL, which is not set"):
        Settings.read(root)
    with pytest.raises(BadSetting, match="SOPHON_TIMESTAMP_URL has to be such as https"):
        Settings.read(root | {"SOPHON_TIMESTAMP_URL": "ldap://tsa.example.org"})
    settings = Settings.read(url | root)
    assert (settings.timestamp_url, settings.timestamp_root) == ("http://tsa.example.org/tsr", Path("/etc/tsa.pem"))
    assert (Settings.read({}).timestamp_url, Settings.read({}).timestamp_root) == (None, None)
    (tmp_path / "none.pem").write_text("no certificates")
    for path in (tmp_path / "none.pem", tmp_path / "missing.pem"):
        with pytest.raises(NoAuthority, match="has no certificates"):
            Authorities.by(path)


async def test_the_platform_gets_one_by_itself_and_does_not_start_with_a_root_that_is_none(
    dsn: str, authority: Authority, tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path, timestamp_url=NOBODY, timestamp_root=tmp_path / "none")
    with pytest.raises(BadSetting, match="SOPHON_TIMESTAMP_ROOT"):
        await Platform.open(settings, KEYS, dsn).__aenter__()
    async with answering(authority.reply) as url:
        settings = Settings(data=tmp_path, timestamp_url=url, timestamp_root=authority.root)
        async with Platform.open(settings, KEYS, dsn) as platform, asyncio.timeout(30):
            await grow(platform.log, 1)
            while await platform.tree.newest() is None:
                platform.signer.hurry()
                await asyncio.sleep(0.05)
            assert platform.timestamps is not None
            assert await platform.timestamps.stamp() is not None
            assert not [fault for fault in platform.faults() if "timestamp" in fault.says]


@contextlib.asynccontextmanager
async def running(timestamps: Timestamps) -> AsyncGenerator[None]:
    task = asyncio.create_task(timestamps.run())
    try:
        yield
    finally:
        await end(task)


async def until_wrong(timestamps: Timestamps) -> None:
    async with asyncio.timeout(20):
        while timestamps.wrong is None:
            await asyncio.sleep(0.01)

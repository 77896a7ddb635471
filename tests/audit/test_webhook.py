"""The webhook: in order, at least once, signed; one entry that is not taken does not keep back the others."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from app.audit.entry import leaf_hash
from app.audit.log import Log
from app.audit.webhook import TRIES, Target, Webhook, signature
from app.settings import BadSetting, Settings
from tests.audit.drafts import draft
from tests.database import disconnect_all, end, takes_changes

SECRET = bytes(range(32))
TARGET = Target("http://siem.example.org/sophon", SECRET, "lab.example.org/log")


class Receiver:
    """Takes entries, answers as it was told to, and keeps what it took."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.answers: dict[str, list[int | Exception]] = {}
        self.asked = 0
        self.waits: list[float] = []
        self.patience = 0.0

    async def post(self, address: str, body: bytes, headers: Mapping[str, str]) -> int:
        self.asked += 1
        event = msgspec.json.decode(body)
        answers = self.answers.get(event["type"], [])
        answer = answers.pop(0) if answers else 200
        if isinstance(answer, Exception):
            raise answer
        if answer == 200:
            assert address == TARGET.url
            assert headers["webhook-id"] == event["id"]
            assert headers["webhook-signature"] == signature(
                SECRET, event["id"], int(headers["webhook-timestamp"]), body
            )
            self.taken.append(event["type"].removeprefix("sophon."))
        return answer

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(self.patience)

    async def took(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(self.taken) < count:
                await asyncio.sleep(0.01)
        return self.taken


@contextlib.asynccontextmanager
async def sending(log: Log, receiver: Receiver) -> AsyncGenerator[Webhook]:
    """Have a webhook at work that has begun."""
    webhook = Webhook(log, TARGET, receiver.post, receiver.sleep)
    task = asyncio.create_task(webhook.run())
    try:
        await until(webhook, lambda position: position is not None)
        yield webhook
    finally:
        await end(task)


async def come(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.01)


async def until(webhook: Webhook, reached: Callable[[int | None], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached((await webhook.standing()).position):
            await asyncio.sleep(0.01)


async def append(log: Log, *types: str) -> None:
    await log.append([draft(type_) for type_ in types])


async def test_every_entry_is_sent_in_order_from_the_first_start_on(log: Log) -> None:
    await append(log, "Before")
    receiver = Receiver()
    async with sending(log, receiver) as webhook:
        await append(log, "A", "B")
        await append(log, "C")
        assert await receiver.took(3) == ["A", "B", "C"]
        await until(webhook, lambda position: position == 4)
    await append(log, "D")
    async with sending(log, receiver):
        assert await receiver.took(4) == ["A", "B", "C", "D"]


async def test_what_was_sent_and_not_marked_is_sent_again(log: Log) -> None:
    receiver = Receiver()
    async with sending(log, receiver) as webhook:
        await append(log, "A")
        await until(webhook, lambda position: position == 1)
    async with log.pool.connection() as connection:
        await connection.execute("UPDATE stream.bookmarks SET position = 0")
    async with sending(log, receiver):
        assert await receiver.took(2) == ["A", "A"]


async def test_a_stream_that_is_said_to_be_beyond_the_log_goes_on_with_what_comes(log: Log) -> None:
    receiver = Receiver()
    async with sending(log, receiver) as webhook:
        await append(log, "A")
        await until(webhook, lambda position: position == 1)
    async with log.pool.connection() as connection:
        await connection.execute("UPDATE stream.bookmarks SET position = 9223372036854775807")
    async with sending(log, receiver) as webhook:
        await asyncio.sleep(0.1)
        await append(log, "B")
        assert await receiver.took(2) == ["A", "B"]
        await until(webhook, lambda position: position == 2)


async def test_while_nobody_answers_the_stream_waits_longer_each_time_and_loses_nothing(log: Log) -> None:
    receiver = Receiver()
    receiver.answers["sophon.A"] = [OSError("refused")] * (TRIES + 2)
    async with sending(log, receiver) as webhook:
        await append(log, "A", "B")
        assert await receiver.took(2) == ["A", "B"]
        assert receiver.waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
        assert (await webhook.standing()).dead == []


async def test_an_entry_that_is_refused_too_often_is_put_among_the_dead_and_can_be_sent_again(log: Log) -> None:
    receiver = Receiver()
    receiver.answers["sophon.A"] = [500] * (TRIES + 1)
    async with sending(log, receiver) as webhook:
        await append(log, "A", "B")
        assert await receiver.took(1) == ["B"]
        await until(webhook, lambda position: position == 2)
        (dead,) = (await webhook.standing()).dead
        assert (dead.position, dead.tries, dead.error) == (1, TRIES, "The receiver answered 500.")
        assert await webhook.retry() == (0, 1)
        assert (await webhook.standing()).dead[0].tries == TRIES + 1
        assert await webhook.retry() == (1, 0)
        assert receiver.taken == ["B", "A"]
        assert (await webhook.standing()).dead == []


async def test_a_database_that_takes_no_changes_is_asked_again_and_said_to_be_so_in_a_line(log: Log, dsn: str) -> None:
    receiver = Receiver()
    receiver.patience = 0.05
    with capture_logs() as told:
        async with sending(log, receiver) as webhook:
            takes_changes(dsn, yes=False)
            disconnect_all(dsn)
            await come(lambda: webhook.wrong is not None and "cannot execute" in str(told))
            takes_changes(dsn, yes=True)
            disconnect_all(dsn)
            await come(lambda: webhook.wrong is None)
            await append(log, "A")
            assert await receiver.took(1) == ["A"]
    assert {one["event"] for one in told} <= {"webhook.away", "log.away"}
    assert all("exc_info" not in one for one in told)


async def test_of_two_processes_one_sends(log: Log) -> None:
    receiver = Receiver()
    async with sending(log, receiver), sending(log, receiver):
        await append(log, "A", "B")
        await receiver.took(2)
        await asyncio.sleep(0.2)
        assert receiver.taken == ["A", "B"]


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's reference libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


Answer = Callable[[web.Request], Awaitable[web.Response]]


@contextlib.asynccontextmanager
async def server(answer: Answer) -> AsyncGenerator[str]:
    """Serve what a handler answers; give the address."""
    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    async with TestServer(app) as running:
        yield str(running.make_url("/hook"))


async def test_over_http_a_receiver_gets_the_entry_byte_by_byte_and_can_check_who_sent_it(log: Log) -> None:
    got: list[tuple[bytes, Mapping[str, str]]] = []

    async def answer(request: web.Request) -> web.Response:
        got.append((await request.read(), request.headers))
        return web.Response(status=204)

    async with server(answer) as address:
        webhook = Webhook(log, Target(address, SECRET, "lab.example.org/log"))
        task = asyncio.create_task(webhook.run())
        await until(webhook, lambda position: position is not None)
        await append(log, "A")
        await until(webhook, lambda position: position == 1)
        await end(task)
    ((body, headers),) = got
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/cloudevents+json"
    data = msgspec.json.decode(body, type=dict[str, msgspec.Raw])["data"]
    async with log.pool.connection() as connection:
        cursor = await connection.execute("SELECT leaf_hash FROM audit.entries")
        assert await cursor.fetchone() == (leaf_hash(bytes(data)),)


async def test_entries_do_not_follow_a_redirection(log: Log) -> None:
    paths: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with server(answer) as address:
        webhook = Webhook(log, Target(address, SECRET, "lab"))
        task = asyncio.create_task(webhook.run())
        await until(webhook, lambda position: position is not None)
        await append(log, "A")
        async with asyncio.timeout(10):
            while webhook.wrong is None:
                await asyncio.sleep(0.01)
        await end(task)
    assert paths == ["/hook"]
    assert webhook.wrong == "The receiver answered 307."


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"SOPHON_WEBHOOK_URL": "siem.example.org"}, "SOPHON_WEBHOOK_URL has to be such as https"),
        ({"SOPHON_WEBHOOK_URL": "file:///etc/passwd"}, "SOPHON_WEBHOOK_URL has to be such as https"),
        ({"SOPHON_WEBHOOK_URL": "https://siem.example.org/"}, "SOPHON_WEBHOOK_SECRET has to be whsec_"),
        ({"SOPHON_WEBHOOK_SECRET": "whsec_c2hvcnQ="}, "SOPHON_WEBHOOK_SECRET has to be whsec_"),
        ({"SOPHON_WEBHOOK_SECRET": "not base64"}, "SOPHON_WEBHOOK_SECRET has to be whsec_"),
    ],
)
def test_an_address_or_a_secret_that_cannot_be_meant_is_refused(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadSetting, match=sentence):
        Settings.read(given)


def test_an_address_and_a_secret_are_read() -> None:
    secret = base64.b64encode(SECRET).decode()
    given = {"SOPHON_WEBHOOK_URL": TARGET.url, "SOPHON_WEBHOOK_SECRET": f"whsec_{secret}"}
    settings = Settings.read(given)
    assert (settings.webhook_url, settings.webhook_secret) == (TARGET.url, SECRET)

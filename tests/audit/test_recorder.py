"""The log as the library `eventsourcing` knows it: its own conformance suite, and events of any bytes."""

import threading
from collections.abc import Callable, Iterator

import pytest
from eventsourcing.dcb.api import DCBAppendCondition, DCBEvent, DCBQuery, DCBQueryItem, DCBRecorder
from eventsourcing.dcb.tests import DCBRecorderTestCase
from eventsourcing.persistence import IntegrityError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audit.dcb import LogRecorder
from tests.database import SEALER

same_recorder = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SUITE = DCBRecorderTestCase()
CONFORMANCE: dict[str, Callable[[DCBRecorder], None]] = {
    "append and read": SUITE._test_append_read,  # pyright: ignore[reportPrivateUsage]
    "append and subscribe": SUITE._test_append_subscribe,  # pyright: ignore[reportPrivateUsage]
}
BYTES = {
    "empty": b"",
    "no json": b"\x00\xff\xfe",
    "json that is no object": b'"text"',
    "json that is not canonical": b'{ "b": 1, "a": 2 }',
    "canonical json": b'{"a":2,"b":"1"}',
    "quotes and backslashes": b'{"a":"\\"quoted\\" and \\\\back"}',
    "unicode": '{"größe":"😀 \u2028"}'.encode(),
    "escaped unicode": b'{"a":"\\u00e9\\ud83d\\ude00"}',
    "half of a character": b'{"a":"\\ud83d"}',
    "nul": b'{"a":"\\u0000"}',
    "a nul that is none": b'{"a":"\\\\u0000"}',
    "newlines": b'{"a":"1\\n2"}\n{"b":1}',
    "doubled keys": b'{"a":1,"a":2}',
    "large numbers": b'{"a":123456789012345678901234567890}',
    "floats": b'{"a":1.0,"b":1e400}',
    "what looks like our own": b'{"base64":"AAAA"}',
    "a picture": bytes(range(256)) * 100,
}


@pytest.fixture
def recorder(dsn: str) -> Iterator[LogRecorder]:
    with LogRecorder(dsn, SEALER) as recorder:
        yield recorder


@pytest.mark.parametrize("test", CONFORMANCE.values(), ids=CONFORMANCE.keys())
def test_it_passes_the_librarys_conformance_suite(recorder: LogRecorder, test: Callable[[DCBRecorder], None]) -> None:
    test(recorder)


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES.keys())
def test_any_bytes_come_back_as_they_were(recorder: LogRecorder, data: bytes) -> None:
    event = DCBEvent(type="Größe", data=data, tags=["a:1", "b:2"])
    position = recorder.append([event])
    assert [one.event for one in recorder.read(after=position - 1)] == [event]


@same_recorder
@given(st.lists(st.binary(max_size=200) | st.text(max_size=50).map(lambda text: text.encode()), min_size=1, max_size=4))
def test_random_bytes_come_back_as_they_were(recorder: LogRecorder, all_data: list[bytes]) -> None:
    events = [DCBEvent(type="A", data=data, tags=[]) for data in all_data]
    position = recorder.append(events)
    assert [one.event for one in recorder.read(after=position - len(events))] == events


def test_a_condition_fails_with_the_librarys_own_error(recorder: LogRecorder) -> None:
    rule = DCBAppendCondition(fail_if_events_match=DCBQuery(items=[DCBQueryItem(types=["A"], tags=["x"])]))
    assert recorder.append([DCBEvent(type="A", data=b"{}", tags=["x"])], rule) == 1
    with pytest.raises(IntegrityError):
        recorder.append([DCBEvent(type="A", data=b"{}", tags=["x"])], rule)
    rule.after = 1
    assert recorder.append([DCBEvent(type="A", data=b"{}", tags=["x"])], rule) == 2


def test_a_subscription_gives_what_matches_and_ends_when_it_is_stopped(recorder: LogRecorder) -> None:
    recorder.append([DCBEvent(type=type_, data=b"{}", tags=[]) for type_ in "ABAB"])
    subscription = recorder.subscribe(DCBQuery(items=[DCBQueryItem(types=["B"])]))
    threading.Timer(0.3, subscription.stop).start()
    assert [one.position for one in subscription] == [2, 4]
    with pytest.raises(StopIteration):
        next(subscription)


def test_threads_append_at_once_and_lose_nothing(recorder: LogRecorder) -> None:
    positions: list[int] = []

    def append() -> None:
        for _ in range(25):
            positions.append(recorder.append([DCBEvent(type="A", data=b"{}", tags=[])]))  # noqa: PERF401

    threads = [threading.Thread(target=append) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(positions) == list(range(1, 201))

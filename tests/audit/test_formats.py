"""What others read: the attributes that their specifications require, and nothing that is sealed."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from app.audit.entry import Record
from app.audit.evidence.formats import WRITTEN, cloudevent, ocsf
from app.audit.evidence.leaves import hashes_of
from tests.audit.stored import EVER_SHIPPED

ORIGIN = "lab.example/audit"
LINES = Path(__file__).with_name("stored.jsonl").read_bytes().splitlines()

CLOUDEVENTS_REQUIRED = ("id", "source", "specversion", "type")
"""CloudEvents 1.0.2, "REQUIRED Attributes": non-empty strings."""

OCSF_REQUIRED: dict[int, tuple[str, ...]] = {
    6003: (
        "activity_id",
        "actor",
        "api",
        "category_uid",
        "class_uid",
        "metadata",
        "severity_id",
        "src_endpoint",
        "time",
    ),
    3002: ("activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "user", "type_uid"),
    3001: ("activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "user", "type_uid"),
}
"""OCSF 1.3.0: what API Activity, Authentication and Account Change require, without their optional profiles."""

ACTIVITIES = {6003: {0, 1, 2, 3, 4, 99}, 3002: {0, 1, 2, 3, 4, 5, 6, 99}, 3001: {*range(13), 99}}


def written(format_: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in WRITTEN[format_](ORIGIN, 0, LINES).splitlines()]


def test_cloudevents_have_what_is_required_in_its_form() -> None:
    for position, event in enumerate(written("cloudevents"), 1):
        for name in CLOUDEVENTS_REQUIRED:
            assert isinstance(event[name], str)
            assert event[name]
        assert event["specversion"] == "1.0"
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
        assert event["position"] == str(position)
        assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in event)  # naming convention of attributes
        assert event.get("subject") != ""


def test_cloudevents_are_what_their_own_sdk_reads_and_validates() -> None:
    for position, line in enumerate(WRITTEN["cloudevents"](ORIGIN, 0, LINES).splitlines(), 1):
        event = JSONFormat().read(CloudEvent, line)  # which raises where an attribute is missing, or not in its form
        entry = msgspec.json.decode(LINES[position - 1])
        assert (event.get_source(), event.get_extension("position")) == (
            msgspec.json.decode(line)["source"],
            str(position),
        )
        assert event.get_time() == datetime.fromisoformat(entry["at"])
        assert event.get_data() == entry


def test_a_cloudevent_has_the_entry_as_it_was_hashed() -> None:
    for position, line in enumerate(LINES, 1):
        event = cloudevent(Record(position, line), ORIGIN)
        text = msgspec.json.encode(event)
        assert line in text
        assert hashes_of([bytes(event["data"])]) == hashes_of([line])


def test_ids_are_unique_within_a_source() -> None:
    events = written("cloudevents")
    assert len({(event["source"], event["id"]) for event in events}) == len(events)


def test_ocsf_events_have_what_their_class_requires() -> None:
    for event in written("ocsf"):
        class_ = event["class_uid"]
        for name in OCSF_REQUIRED[class_]:
            assert event[name] not in (None, "", {}), (class_, name)
        assert event["category_uid"] == class_ // 1000
        assert event["type_uid"] == class_ * 100 + event["activity_id"]
        assert event["activity_id"] in ACTIVITIES[class_]
        assert event["severity_id"] in {*range(7), 99}
        assert event["status_id"] in {0, 1, 2, 99}
        assert event["metadata"]["product"]["vendor_name"]
        assert event["metadata"]["version"] == "1.3.0"
        assert 1_700_000_000_000 < event["time"] < 2_000_000_000_000


@pytest.mark.parametrize(
    ("type_", "class_", "activity"),
    [("LoggedIn", 3002, 1), ("LoggedOut", 3002, 2), ("UserCreated", 3001, 1), ("ProjectCreated", 6003, 1),
     ("ProjectViewed", 6003, 2), ("NotebookDeleted", 6003, 4), ("NotebookStarted", 6003, 3)],
)  # fmt: skip
def test_an_event_is_of_the_class_that_one_would_look_for_it_in(type_: str, class_: int, activity: int) -> None:
    events = [event for event in written("ocsf") if event["message"] == type_]
    assert events
    assert {(event["class_uid"], event["activity_id"]) for event in events} == {(class_, activity)}


def test_what_was_refused_is_a_failure() -> None:
    line = LINES[4].replace(b'"outcome":"success"', b'"outcome":"refused","reason":"not-yours"')
    event = ocsf(Record(5, line), ORIGIN)
    assert (event["status_id"], event["status"], event["status_detail"]) == (2, "Failure", "not-yours")


def test_nothing_is_in_an_export_that_is_not_in_the_entries() -> None:
    """What is sealed is a digest in the entry, and stays one."""
    sealed = [line for line in LINES if b'"_sd"' in line]
    assert sealed
    for format_ in WRITTEN:
        for line, out in zip(sealed, WRITTEN[format_](ORIGIN, 0, sealed).splitlines(), strict=True):
            digests = re.findall(rb'"_sd":\[([^\]]*)\]', line)
            assert all(digest in out for digest in digests)
            assert b"Space Lab" not in out


def test_every_event_that_was_ever_shipped_can_be_exported() -> None:
    assert len(LINES) == len(EVER_SHIPPED)
    for format_ in WRITTEN:
        assert WRITTEN[format_](ORIGIN, 0, LINES).count(b"\n") == len(LINES)
    assert WRITTEN["jsonl"](ORIGIN, 0, LINES).splitlines() == LINES

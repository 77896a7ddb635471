"""Entries: their canonical bytes, their hash, and that what was ever stored is read for ever."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from app.audit.entry import GUEST, MAX_ENTRY, Actor, Context, Entry, Record, UnreadableEntry, encode, leaf_hash
from app.domain.command import CommandRefused
from app.domain.event import Event
from app.domain.names import Personal, sealed_fields
from app.domain.registry import EVENTS
from app.domain.runs import NotebookFailed
from app.domain.users import LoginRefused
from tests.audit.stored import EVER_SHIPPED
from tests.domain.cast import ADA, PLOTS, RUN, ready

STORED = Path(__file__).with_name("stored.jsonl").read_bytes().splitlines()
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BY_ADA = Context(actor=Actor(kind="user", id=ADA, via="session"), request="req_1", cause="c", trace="00-1")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)


NEWER: dict[str, dict[str, object]] = {"UserCreated": {"auditor": False}, "StateRecovered": {"by": []}}
"""Fields that older lines do not have yet."""


def erased(event: Event) -> Event:
    """What is read of an event whose sealed values are not disclosed."""
    return replace(event, **{name: gone for name, gone in sealed_fields(type(event)) if getattr(event, name)})


def in_the_clear(event: Event, data: Raw) -> dict[str, object]:
    """Give what is written of an event without what is sealed of it now, whether it was sealed then or not."""
    hidden = {"_sd", *(name for name, _ in sealed_fields(type(event)) if getattr(event, name) is not None)}
    return {name: value for name, value in msgspec.json.decode(data).items() if name not in hidden}


def entry_of(event: Event, context: Context = BY_ADA) -> Entry:
    return context.draft(event).entry(NOON)


def test_every_event_ever_shipped_has_a_line() -> None:
    assert {type(event).__name__ for event in EVER_SHIPPED} == set(EVENTS)
    assert len(STORED) == len(EVER_SHIPPED)


@pytest.mark.parametrize(
    ("line", "event"), list(zip(STORED, EVER_SHIPPED, strict=False)), ids=lambda one: type(one).__name__
)
def test_what_was_ever_stored_is_read_and_would_be_written_the_same(line: bytes, event: Event) -> None:
    record = Record(1, line)
    assert record.event == (erased(event) if record.digests else event)
    assert type(record.event).__name__ == record.entry.type
    assert set(event.tags) <= set(record.entry.tags)
    again = in_the_clear(event, Context().draft(event).data)
    assert again == NEWER.get(record.entry.type, {}) | in_the_clear(event, record.entry.data)
    assert encode(record.entry) == line


@pytest.mark.parametrize("line", STORED, ids=lambda line: json.loads(line)["type"])
def test_stored_bytes_are_canonical_json(line: bytes) -> None:
    """RFC 8785, for what has ASCII keys and no floats."""
    value = json.loads(line, parse_float=pytest.fail)
    assert json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == line


@given(text=texts, reason=texts)
def test_any_text_comes_back_as_it_was(text: str, reason: str) -> None:
    event = NotebookFailed(notebook=PLOTS, run=RUN, reason="exited", log=Personal(text))
    draft = BY_ADA.draft(event)
    entry = replace(draft.entry(NOON), reason=reason)
    octets = encode(entry)
    record = Record(1, octets)
    assert record.event == erased(event)
    record.disclosures = draft.disclosures
    assert record.event == event
    assert record.entry == entry
    assert b"\n" not in octets
    canonical = json.dumps(json.loads(octets), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert json.loads(canonical) == json.loads(octets)


def test_an_entry_says_who_when_in_which_request_and_because_of_what() -> None:
    entry = json.loads(encode(entry_of(ready)))
    assert entry.pop("id")
    assert entry == {
        "actor": {"id": ADA, "kind": "user", "via": "session"},
        "at": "2026-11-23T12:00:00Z",
        "cause": "c",
        "data": {"notebook": PLOTS, "run": RUN, "upstream": ready.upstream},
        "outcome": "success",
        "request": "req_1",
        "tags": [f"notebook:{PLOTS}", f"run:{RUN}"],
        "trace": "00-1",
        "type": "NotebookStarted",
        "v": 1,
    }


def test_what_is_absent_takes_no_room() -> None:
    entry = json.loads(encode(entry_of(LoginRefused(), Context(actor=GUEST))))
    assert entry["actor"] == {"kind": "guest"}
    assert set(entry) == {"actor", "at", "data", "id", "outcome", "tags", "type", "v"}


def test_a_refusal_is_filed_under_the_tags_of_what_was_refused() -> None:
    draft = Context().draft(
        CommandRefused(command="StartNotebook"), outcome="refused", reason="members-only", tags=("a:b", "a:b")
    )
    assert (draft.tags, draft.outcome, draft.reason) == (("a:b",), "refused", "members-only")


def test_ids_are_uuids_of_version_7_and_used_once() -> None:
    ids = [Context().draft(LoginRefused()).id for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert {id_[14] for id_ in ids} == {"7"}
    assert {id_[19] for id_ in ids} <= set("89ab")
    assert ids[0][:8] <= ids[-1][:8]


def test_a_leaf_is_hashed_as_rfc_6962_says() -> None:
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    assert leaf_hash(STORED[0]) == hashlib.sha256(b"\0" + STORED[0]).digest()


def test_an_entry_that_is_too_long_for_a_leaf_is_none() -> None:
    entry = entry_of(LoginRefused())
    spare = MAX_ENTRY - len(encode(entry))
    assert len(encode(replace(entry, trace="00-1" + "x" * spare))) == MAX_ENTRY
    with pytest.raises(ValueError, match="at most 65535 bytes; this LoginRefused has 65536"):
        encode(replace(entry, trace="00-1" + "x" * (spare + 1)))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20))
def test_a_tag_is_plain_or_refused(tag: str) -> None:
    plain = all(letter.isascii() and (letter.isalnum() or letter in "_.:@/+=-") for letter in tag)
    entry = replace(entry_of(LoginRefused()), tags=(tag,))
    if plain:
        encode(entry)
    else:
        with pytest.raises(ValueError, match="A tag has"):
            encode(entry)


def test_an_entry_of_a_type_that_is_not_known_is_not_guessed_at() -> None:
    entry = replace(entry_of(LoginRefused()), type="NotebookTeleported")
    record = Record(7, encode(entry))
    with pytest.raises(UnreadableEntry, match="Entry 7 is a NotebookTeleported"):
        _ = record.event


def test_an_entry_of_another_shape_is_not_guessed_at() -> None:
    record = Record(8, encode(replace(entry_of(ready), data=Raw(b'{"notebook":"NOT A SLUG"}'))))
    with pytest.raises(UnreadableEntry, match="Entry 8, a NotebookStarted"):
        _ = record.event


def test_the_event_of_a_record_is_decoded_once() -> None:
    record = Record(1, encode(entry_of(ready)))
    assert record.event is record.event


def test_fields_that_a_later_release_added_do_not_keep_this_one_from_reading() -> None:
    value = json.loads(encode(entry_of(ready)))
    value |= {"source": {"net": "x"}, "data": {**value["data"], "later": 1}}
    assert Record(1, msgspec.json.encode(value)).event == ready


@pytest.mark.parametrize(
    "octets", [b"null", b"1", b'"x"', b"[]", b"{}", b"", b"\xff", b"[" * 5000 + b"]" * 5000, b'{"at":"infinity"}']
)
def test_what_is_no_entry_is_said_to_be_none_and_where(octets: bytes) -> None:
    with pytest.raises(UnreadableEntry, match="Entry 7 is none of this log"):
        Record(7, octets)

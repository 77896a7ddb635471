"""Sealing: what is sealed comes back to whoever has the key, and to nobody who changed a bit of it."""

import base64
import hashlib
import json
from typing import cast
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.inspect import StructType, type_info

from app.audit.entry import GUEST, Actor, Context, Record, encode
from app.audit.sealing import sealer as sealing
from app.audit.sealing.sealer import Disclosure, SealBroken, Sealer, digest_of, disclose
from app.domain.audits import AuditQueried, Heartbeat
from app.domain.event import Event
from app.domain.groups import GroupCreated
from app.domain.names import ERASED, Personal, sealed_fields
from app.domain.notebooks import NotebookCreated
from app.domain.projects import ProjectCreated
from app.domain.registry import EVENTS
from app.domain.retention import LegalHoldPlaced
from app.domain.runs import NotebookFailed
from app.domain.tokens import Scope, TokenIssued
from tests.audit.stored import SOON
from tests.audit.test_entry import NOON
from tests.database import SEALER
from tests.domain.cast import ADA, APOLLO, BOB, LAB, PLOTS, RUN, account, an_id, plots, ready

BY_BOB = Context(actor=Actor(kind="user", id=BOB, via="session"))
ADAS = f"user:{ADA}"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
values = st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts, st.lists, max_leaves=5)


@given(value=values, name=texts)
def test_what_was_sealed_is_opened_as_it_was(value: object, name: str) -> None:
    disclosure = disclose(ADAS, name, value)
    key = SEALER.new_key(ADAS)
    again = SEALER.unwrap(ADAS, key.id, key.wrapped)
    text = again.open(disclosure.digest, key.seal(disclosure))
    assert text == disclosure.text
    assert msgspec.json.decode(Disclosure(ADAS, name, disclosure.digest, text).value) == value


@given(texts)
def test_a_disclosure_is_as_rfc_9901_says(value: str) -> None:
    one = disclose(ADAS, "username", value)
    assert set(one.text + one.digest) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    salt, name, shown = json.loads(base64.urlsafe_b64decode(one.text + "=" * (-len(one.text) % 4)))
    assert (name, shown) == ("username", value)
    assert len(base64.urlsafe_b64decode(salt + "==")) == 16
    digest = base64.urlsafe_b64encode(hashlib.sha256(one.text.encode("ascii")).digest()).decode().rstrip("=")
    assert one.digest == digest


def test_the_digests_of_rfc_9901_are_ours() -> None:
    """RFC 9901, 4.2.3 and 5.1: disclosures of other people's, with their digests."""
    text = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0"
    assert digest_of(text) == "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"
    assert msgspec.json.decode(Disclosure("", "family_name", "", text).value) == "Möbius"


@given(st.data())
def test_any_bit_that_is_flipped_is_noticed(data: st.DataObject) -> None:
    disclosure, key = disclose(ADAS, "username", "ada"), SEALER.new_key(ADAS)
    sealed = key.seal(disclosure)
    with pytest.raises(SealBroken):
        key.open(disclosure.digest, flipped(sealed, data))
    with pytest.raises(SealBroken):
        SEALER.unwrap(ADAS, key.id, flipped(key.wrapped, data))


def flipped(octets: bytes, data: st.DataObject) -> bytes:
    bit = data.draw(st.integers(0, 8 * len(octets) - 1))
    return bytes(octet ^ (1 << bit % 8 if at == bit // 8 else 0) for at, octet in enumerate(octets))


@given(st.integers(0, 200))
def test_what_was_cut_off_is_noticed(length: int) -> None:
    disclosure, key = disclose(ADAS, "username", "ada"), SEALER.new_key(ADAS)
    sealed = key.seal(disclosure)
    with pytest.raises(SealBroken):
        key.open(disclosure.digest, sealed[: min(length, len(sealed) - 1)])


def test_a_value_is_opened_in_its_own_place_and_with_its_own_key_only() -> None:
    one, other = disclose(ADAS, "username", "ada"), disclose(ADAS, "username", "ada")
    key = SEALER.new_key(ADAS)
    with pytest.raises(SealBroken):
        key.open(other.digest, key.seal(one))
    with pytest.raises(SealBroken):
        SEALER.new_key(ADAS).open(one.digest, key.seal(one))
    lie = Disclosure(ADAS, "username", other.digest, one.text)
    with pytest.raises(SealBroken, match="another digest"):
        key.open(other.digest, key.seal(lie))


def test_a_key_is_its_subjects_and_its_installations() -> None:
    key = SEALER.new_key(ADAS)
    for sealer, subject, id_ in (
        (SEALER, f"user:{BOB}", key.id),
        (SEALER, ADAS, uuid4()),
        (Sealer(b"o" * 32), ADAS, key.id),
    ):
        with pytest.raises(SealBroken):
            sealer.unwrap(subject, id_, key.wrapped)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_the_vaults_key_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(b"k" * length)


def test_no_two_values_look_alike() -> None:
    key = SEALER.new_key(ADAS)
    same = [disclose(ADAS, "username", "ada") for _ in range(1_000)]
    assert len({one.digest for one in same}) == 1_000
    assert len({key.seal(same[0])[:12] for _ in range(1_000)}) == 1_000
    assert len({SEALER.new_key(ADAS).wrapped[:12] for _ in range(1_000)}) == 1_000


def test_a_name_or_an_address_is_found_however_it_is_written_and_nothing_else_is() -> None:
    looked_for = SEALER.lookup("username", " ADA ")
    assert SEALER.lookup_of(disclose(ADAS, "username", Personal("ada"))) == looked_for
    assert SEALER.lookup_of(disclose(ADAS, "address", "192.0.2.1")) == SEALER.lookup("address", "192.0.2.1")
    assert SEALER.lookup("address", "ada") != looked_for != Sealer(b"o" * 32).lookup("username", "ada")
    assert SEALER.lookup_of(disclose(ADAS, "title", "ada")) is None


SEALED: list[tuple[Event, Context, str, str]] = [
    (account(ADA, "canary"), BY_BOB, ADAS, "username"),
    (GroupCreated(group=LAB, title="canary", owner=ADA), BY_BOB, f"group:{LAB}", "title"),
    (ProjectCreated(project=APOLLO, group=LAB, title="canary", visibility="public"), BY_BOB, "project:apollo", "title"),
    (NotebookCreated(notebook=PLOTS, project=APOLLO, group=LAB, title="canary"), BY_BOB, f"notebook:{PLOTS}", "title"),
    (
        TokenIssued(token=an_id("tok", 1), user=ADA, title="canary", scopes=(Scope.READ,), expires=SOON),
        BY_BOB,
        ADAS,
        "title",
    ),
    (AuditQueried(question="entries", about=Personal("canary")), BY_BOB, f"user:{BOB}", "about"),
    (LegalHoldPlaced(about=ADAS, reason=Personal("canary")), BY_BOB, f"user:{BOB}", "reason"),
]
log_of_a_run = NotebookFailed(notebook=PLOTS, run=RUN, reason="exited", log=Personal("canary"))
for actor, whose in (
    (Actor(kind="service", id="runtime", obo=ADA), ADAS),
    (Actor(kind="user", id=BOB), f"user:{BOB}"),
    (Actor(kind="system", id="sophon"), f"notebook:{PLOTS}"),
    (GUEST, f"notebook:{PLOTS}"),
):
    SEALED.append((log_of_a_run, Context(actor=actor), whose, "log"))


@pytest.mark.parametrize(("event", "context", "subject", "name"), SEALED)
def test_what_is_personal_or_free_stands_in_no_entry_and_is_its_subjects(
    event: Event, context: Context, subject: str, name: str
) -> None:
    draft = context.draft(event)
    octets = encode(draft.entry(NOON))
    assert b"canary" not in octets
    (disclosure,) = draft.disclosures
    assert (disclosure.subject, disclosure.name) == (subject, name)
    record = Record(1, octets)
    assert record.digests == [disclosure.digest] == json.loads(octets)["data"]["_sd"]
    assert name not in json.loads(octets)["data"]
    shown = getattr(record.event, name)
    assert (shown.text if isinstance(shown, Personal) else shown) == ERASED
    record.disclosures = [disclosure]
    assert record.event == event
    record.disclosures = [disclose(subject, name, "of another entry")]
    assert record.event != event
    assert getattr(record.event, name) == shown


def test_every_field_that_is_sealed_is_among_these_and_nothing_personal_is_where_it_is_not_sealed() -> None:
    fields = {(name, field) for name, event in EVENTS.items() for field, _ in sealed_fields(event)}
    assert {(type(event).__name__, name) for event, _, _, name in SEALED} == fields
    for name, event in EVENTS.items():
        for field in cast("StructType", type_info(event)).fields:
            hidden = {word for word in ("Personal", "'sealed'") if word in repr(field.type)}
            assert not hidden or (name, field.name) in fields, f"{name}.{field.name} lies too deep to be sealed"


def test_only_what_is_sealed_is_disclosed() -> None:
    events = [*plots, ready, Heartbeat(), NotebookFailed(notebook=PLOTS, run=RUN, reason="exited")]
    disclosed = [type(event).__name__ for event in events if BY_BOB.draft(event).disclosures]
    assert disclosed == ["UserCreated"] * 4 + ["GroupCreated", "ProjectCreated", "NotebookCreated"]


def test_what_has_nothing_to_seal_is_written_without_further_ado(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "b2a_base64", pytest.fail)
    assert b"_sd" not in encode(BY_BOB.draft(ready).entry(NOON))


def test_an_address_is_the_actors_or_a_guests() -> None:
    home = "192.0.2.1"
    assert Context(actor=Actor(kind="user", id=ADA), source=home).draft(ready).address == (ADAS, home)
    assert Context(actor=GUEST, source=home).draft(ready).address == ("guest", home)
    assert BY_BOB.draft(ready).address is None


@given(texts)
def test_a_text_that_looks_like_a_digest_is_not_taken_for_one(text: str) -> None:
    entry = BY_BOB.draft(ready).entry(NOON)
    record = Record(1, encode(msgspec.structs.replace(entry, reason='"_sd":["' + text.replace("\0", "") + '"]')))
    assert record.digests == []

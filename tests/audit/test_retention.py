"""Retention: what is kept for how long, what is past its term, and what is held all the same."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit.log import Log
from app.audit.retention import CLASSES, Kept, Retention, class_of
from app.domain.registry import EVENTS
from app.settings import BadSetting, Settings
from tests.audit.drafts import draft

TERMS = {"reads": 30, "pulse": 7}


def test_every_type_has_a_class_and_only_facts_are_folded() -> None:
    for type_, event in EVENTS.items():
        assert (class_of(type_) == "facts") == event.fact
        assert class_of(type_) in CLASSES
    assert [class_of(one) for one in ("ProjectViewed", "Heartbeat", "RequestRefused", "ProjectCreated")] == [
        *("reads", "pulse", "security", "facts")
    ]


def test_what_this_release_does_not_know_is_kept_for_ever() -> None:
    assert class_of("OfAnotherDay") == "facts"


async def sign(log: Log, size: int) -> None:
    """Have a checkpoint of so many entries; its signature is another test's."""
    async with log.pool.connection() as connection:
        await connection.execute("INSERT INTO audit.checkpoints VALUES (%s, sha256(''), '', now())", (size,))


async def kept(log: Log, days: int, terms: dict[str, int] = TERMS) -> dict[str, Kept]:
    report = await Retention(log, terms).report(datetime.now(UTC) + timedelta(days=days))
    return {one.name: one for one in report.classes}


async def test_an_access_is_past_its_term_when_it_is_old_and_signed_for_and_not_held(log: Log) -> None:
    await log.append([draft("ProjectViewed", ["project:apollo"]), draft("ProjectViewed"), draft("Heartbeat")])
    await log.append([draft("ProjectCreated", ["project:apollo"]), draft("ProjectViewed")])
    assert (await kept(log, 31))["reads"].past == 0  # nothing is signed for
    await sign(log, 4)
    assert [(one.entries, one.past) for one in (await kept(log, 29)).values()] == [(1, 0), (0, 0), (3, 0), (1, 1)]
    found = await kept(log, 31)
    assert [(one.entries, one.past, one.held) for one in found.values()] == [(1, 0, 0), (0, 0, 0), (3, 2, 0), (1, 1, 0)]
    await log.append(
        [draft("LegalHoldPlaced", ["project:apollo"], data={"about": "project:apollo", "reason": {"text": "x"}})]
    )
    held = await kept(log, 31)
    assert (held["reads"].past, held["reads"].held) == (2, 1)
    assert 0 < held["reads"].bytes_past < found["reads"].bytes_past < found["reads"].bytes
    await log.append([draft("LegalHoldLifted", ["project:apollo"], data={"about": "project:apollo"})])
    assert (await kept(log, 31))["reads"].held == 0


async def test_facts_are_kept_for_ever_whatever_is_set(log: Log) -> None:
    await log.append([draft("ProjectCreated")])
    await sign(log, 1)
    facts = (await kept(log, 36_500, {"facts": 1}))["facts"]
    assert (facts.days, facts.entries, facts.past) == (None, 1, 0)


@given(st.dictionaries(st.sampled_from(["security", "reads", "pulse"]), st.integers(1, 99_999)))
def test_terms_are_read_as_they_are_written(terms: dict[str, int]) -> None:
    text = " ".join(f"{name}={days}" for name, days in terms.items())
    assert Settings.read({"SOPHON_RETENTION": text}).retention == terms


@pytest.mark.parametrize("text", ["facts=1", "reads", "reads=0", "reads=-1", "reads=1e3", "all=5"])
def test_terms_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(BadSetting, match="Facts are kept for ever"):
        Settings.read({"SOPHON_RETENTION": text})

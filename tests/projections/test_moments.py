"""Moments: what was, as the entries up to there say; and differences that make the later of the earlier."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audit.entry import SYSTEM, Actor, Context
from app.audit.log import Log
from app.domain.audits import Heartbeat
from app.domain.command import CommandRefused
from app.domain.event import Event
from app.domain.registry import EVENTS
from app.projections.fields import Change, applied, changes, state_of
from app.projections.generation import MODELS
from app.projections.moments import KINDS, Moments, NoSuchMoment, Resource
from app.projections.rebuild import rebuild, rebuild_to
from app.projections.sentences import TEMPLATES, Names, sentence
from app.projections.times import moment_of
from tests.audit.stored import EVER_SHIPPED
from tests.database import SEALER, Databases
from tests.domain.cast import ADA, BOB, LAB, PLOTS, RUN, plots, stopped, wanted
from tests.projections.histories import History
from tests.projections.test_read_models import happen, projecting, record_of

GUIDES = "\n".join(guide.read_text() for guide in (Path(__file__).parents[2] / "docs").glob("*.md"))
THINGS = [
    *(Resource("group", name) for name in ("lab", "mars")),
    *(Resource("project", name) for name in ("apollo", "gemini", "viking")),
    *(Resource("notebook", f"n-{number}") for number in range(6)),
    *(Resource("user", user) for user in (ADA, BOB)),
    Resource("token", f"tok_{3:026d}"),
]


@pytest.fixture(scope="module")
async def lived(databases: Databases) -> Any:
    """A log in which much happened, and the state of every position of it as the read models had it."""
    with databases.fresh() as dsn:
        async with Log.open(dsn, SEALER) as log:
            history = History(log, 12)
            await history.begin()
            await history.go_on(160)
            yield log


async def folded(log: Log, thing: Resource, position: int) -> dict[str, Any] | None:
    """Fold every entry up to a position, one by one, in the plainest way there is."""
    model: Any = KINDS[thing.kind](log.pool)
    row: Any = None
    records = (await log.read()).records
    async with log.pool.connection() as connection:
        await log.reveal(connection, records)
    for record in records:
        event = record.event
        if record.position <= position and isinstance(event, model.events) and getattr(event, model.key) == thing.name:
            row = model.evolve(row, event, record)
    return state_of(row) or None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_the_state_as_of_a_position_is_the_fold_of_the_entries_up_to_it(lived: Log, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, lived.head))
    thing = data.draw(st.sampled_from(THINGS))
    moment = await Moments(lived).as_of(thing, position)
    assert moment.state == await folded(lived, thing, position)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_a_difference_applied_to_the_earlier_state_gives_the_later_one(lived: Log, data: st.DataObject) -> None:
    one, other = data.draw(st.integers(0, lived.head)), data.draw(st.integers(0, lived.head))
    thing, moments = data.draw(st.sampled_from(THINGS)), Moments(lived)
    told = (await moments.diff(thing, one, other)).changes
    before, after = await moments.as_of(thing, one), await moments.as_of(thing, other)
    assert applied(before.state or {}, told) == (after.state or {})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_everything_that_became_different_is_told_once_and_either_way_whatever_the_pages(
    lived: Log, data: st.DataObject
) -> None:
    one, other = data.draw(st.integers(0, lived.head)), data.draw(st.integers(0, lived.head))
    limit, moments = data.draw(st.integers(1, 7)), Moments(lived)
    told: dict[str, list[Change]] = {}
    page = await moments.diff_all(one, other, limit=limit)
    while True:
        assert not told.keys() & {item.resource for item in page.items}
        told |= {item.resource: list(item.changes) for item in page.items}
        if page.next is None:
            break
        page = await moments.diff_all(one, other, page.next, limit)
    for thing in {*THINGS, *map(Resource.parse, told)}:
        changed = told.get(str(thing), [])
        before, after = await moments.as_of(thing, one), await moments.as_of(thing, other)
        assert applied(before.state or {}, changed) == (after.state or {})
        assert changed == list((await moments.diff(thing, one, other)).changes)


states = st.dictionaries(
    st.sampled_from(("slug", "title", "members", "reason")),
    st.none()
    | st.integers(0, 3)
    | st.dictionaries(st.sampled_from(("ada", "b.ob")), st.sampled_from(("owner", "member"))),
)


@given(states, states)
def test_changes_say_all_that_is_different(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert applied(before, changes(before, after)) == after
    assert changes(after, after) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_blame_names_the_entry_from_which_on_a_field_is_what_it_is(lived: Log, data: st.DataObject) -> None:
    thing, moments = data.draw(st.sampled_from(THINGS)), Moments(lived)
    until = data.draw(st.integers(0, lived.head))
    for blamed in await moments.blame(thing, until):
        before, since, now = [
            applied((await moments.as_of(thing, position)).state or {}, ())
            for position in (blamed.by.position - 1, blamed.by.position, until)
        ]
        if not blamed.field:
            assert before != {} == since == now
            continue
        seen = [{change.field: change.after for change in changes({}, state)} for state in (before, since, now)]
        assert seen[1][blamed.field] == seen[2][blamed.field] == blamed.value
        assert seen[0].get(blamed.field, ...) != blamed.value


async def test_the_whole_state_of_a_position_is_what_each_thing_was(lived: Log) -> None:
    position = lived.head // 2
    schema, moments = await rebuild_to(lived, position), Moments(lived)
    zone = dict.fromkeys(("created_at", "status_at", "expires"))  # the database writes times as of its own zone
    for model in MODELS:
        async with lived.pool.connection() as connection:
            pages = [page async for page in model(lived.pool).pages(connection, schema)]
        for row in (row for page in pages for row in page):
            state = state_of(row)
            moment = await moments.as_of(Resource(model.key, state[model.primary()]), position)
            assert {**(moment.state or {}), **zone} == {**state, **zone}


async def test_times_are_found_by_halves(log: Log) -> None:
    await happen(log, *plots)
    times = [record.entry.at for record in (await log.read()).records]
    moments = Moments(log)
    assert await moments.position_at(times[0] - timedelta(microseconds=1)) == 0
    for at in times:
        assert await moments.position_at(at) == sum(one <= at for one in times)
    assert await moments.position_at(datetime.now(UTC) + timedelta(days=1)) == log.head
    assert await moments.position_at(None) == log.head
    with pytest.raises(NoSuchMoment, match="ends at"):
        await moments.position_at(log.head + 1)


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("812", 812),
        ("now", NOW),
        ("2 hours ago", NOW - timedelta(hours=2)),
        ("1 week ago", NOW - timedelta(weeks=1)),
        ("yesterday", NOW - timedelta(days=1)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-23T10:00:00Z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23T10:00:00+02:00", datetime(2026, 11, 23, 8, tzinfo=UTC)),
    ],
)
def test_moments_are_read_as_people_write_them(text: str, moment: int | datetime) -> None:
    assert moment_of(text, NOW) == moment


@pytest.mark.parametrize("text", sorted(set(re.findall(r'"([^"\n]* ago)"', GUIDES))))
def test_each_time_ago_that_the_guides_print_is_a_moment(text: str) -> None:
    assert moment_of(text, NOW) != NOW


@given(st.text(max_size=30).filter(lambda text: not any(mark.isalnum() for mark in text)))
def test_what_is_no_moment_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment"):
        moment_of(text, NOW)


@pytest.mark.parametrize("text", ["soon", "2 fortnights ago", "99999999 hours ago", "999999 weeks ago", "2026-13-01"])
def test_what_looks_like_a_moment_is_none_either(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment"):
        moment_of(text, NOW)


async def test_an_entry_is_explained_with_what_caused_it_up_to_the_root(log: Log) -> None:
    await happen(log, *plots)
    async with projecting(log) as projector:
        assert await projector.reach(log.head)
    by_bob = Context(actor=Actor(kind="user", id=BOB, via="token"))
    asked = await log.append([by_bob.draft(wanted)])
    root = (await log.read(after=asked - 1)).records[0].entry.id
    seen = await log.append([Context(cause=root).draft(stopped)])
    told = await Moments(log).explain(seen)
    assert told.sentence == f"Sophon saw {RUN} of the notebook {PLOTS} end as asked."
    assert told.actor == SYSTEM
    assert [cause.position for cause in told.causes] == [asked]
    assert (
        told.causes[0].sentence == f"bob ({BOB}), by a token, asked for the notebook {PLOTS} to be started, as {RUN}."
    )
    [changed] = told.changed
    assert {change.field: (change.before, change.after) for change in changed.changes}["status"] == (
        "queued",
        "stopped",
    )


async def test_an_access_is_explained_and_changed_nothing(log: Log) -> None:
    at = await log.append(
        [
            Context().draft(
                CommandRefused(command="AddMember"), outcome="refused", reason="owners-only", tags=[f"group:{LAB}"]
            )
        ]
    )
    told = await Moments(log).explain(at)
    assert told.sentence == "Sophon was refused AddMember: owners-only."
    assert told.changed == []
    with pytest.raises(NoSuchMoment):
        await Moments(log).explain(at + 1)


def test_every_template_is_of_an_event_and_names_its_fields() -> None:
    assert set(TEMPLATES) <= set(EVENTS)
    for name, template in TEMPLATES.items():
        assert template.format_map(dict.fromkeys(EVENTS[name].__struct_fields__, "x"))


@pytest.mark.parametrize("event", EVER_SHIPPED, ids=lambda event: type(event).__name__)
def test_every_event_that_was_ever_shipped_has_a_sentence(event: Event) -> None:
    said = sentence(record_of(event, 1), Names())
    assert said.startswith("Sophon ")
    assert said.endswith(".")
    assert "\n" not in said
    assert "None" not in said


def test_an_event_without_a_template_is_told_by_its_description() -> None:
    assert sentence(record_of(Heartbeat(), 1), Names()).startswith("Sophon recorded heartbeat (nothing else happened")


@pytest.mark.parametrize("text", ["project", "comet/halley", "project/", ""])
def test_a_resource_has_a_kind_that_there_is_and_a_name(text: str) -> None:
    with pytest.raises(ValueError, match="names nothing"):
        Resource.parse(text)


async def test_the_models_find_their_rows_by_the_kind_of_their_key(log: Log) -> None:
    """What a row is folded from is selected by its tag: every event of a model has to carry it."""
    for event in EVER_SHIPPED:
        for model in MODELS:
            if isinstance(event, model.events):
                assert f"{model.key}:{getattr(event, model.key)}" in event.tags
    assert (await rebuild(log)).position == 0

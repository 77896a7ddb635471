"""The plan: step by step, from whatever is the case to what ought to be."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.event import Event
from app.domain.notebooks import Notebook, NotebookCreated, NotebookDeleted
from app.domain.runs import (
    NotebookContainerCreated,
    NotebookCreationBegan,
    NotebookFailed,
    NotebookStarted,
    NotebookStartRequested,
    NotebookStopped,
    NotebookStopRequested,
)
from app.runtime.engine import Instance
from app.runtime.plan import (
    AwaitAnswer,
    Create,
    Remove,
    SayContainerCreated,
    SayCreationBegan,
    SayFailed,
    SayStopped,
    Start,
    Step,
    next_step,
)

PLOTS = "plots"
RUN, OTHER = "run_00000000000000000000000001", "run_00000000000000000000000002"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = timedelta(minutes=2)
UPSTREAM = "127.0.0.1:49154"

created = NotebookCreated(notebook=PLOTS, project="apollo", group="lab", title="Plots")
requested = NotebookStartRequested(notebook=PLOTS, run=RUN)
began = NotebookCreationBegan(notebook=PLOTS, run=RUN)
contained = NotebookContainerCreated(notebook=PLOTS, run=RUN)
started = NotebookStarted(notebook=PLOTS, run=RUN, upstream=UPSTREAM)
stopping = NotebookStopRequested(notebook=PLOTS, run=RUN)
deleted = NotebookDeleted(notebook=PLOTS, project="apollo", group="lab")

made = Instance(id="c1", notebook=PLOTS, run=RUN, state="created", started_at=NOW)
runs = replace(made, state="running", upstream=UPSTREAM)
ended = replace(made, state="exited", exit_code=1)


def after(*events: Event) -> Notebook:
    """Fold what happened."""
    notebook = Notebook()
    for event in events:
        notebook = notebook.evolve(event)
    return notebook


def step(notebook: Notebook, *seen: Instance, now: datetime = NOW) -> Step | None:
    return next_step(notebook, seen, now, NOW + PATIENCE)


def test_nothing_is_done_about_a_notebook_that_nobody_started() -> None:
    assert step(after(created)) is None


def test_a_requested_run_is_taken_up_then_created_then_started_then_awaited_then_left_alone() -> None:
    assert step(after(created, requested)) == SayCreationBegan(RUN)
    assert step(after(created, requested, began)) == Create(RUN)
    assert step(after(created, requested, began), made) == Start(made)
    assert step(after(created, requested, began), runs) == SayContainerCreated(RUN)
    assert step(after(created, requested, began, contained), runs) == AwaitAnswer(runs, NOW + PATIENCE)
    assert step(after(created, requested, began, contained, started), runs) is None


def test_what_was_made_before_we_were_killed_is_used_and_not_made_again() -> None:
    assert step(after(created, requested), made) == Start(made)


def test_a_run_that_answers_at_another_place_than_before_is_asked_again() -> None:
    moved = replace(runs, upstream="127.0.0.1:50000")
    assert isinstance(step(after(created, requested, began, contained, started), moved), AwaitAnswer)


def test_a_ready_run_that_is_paused_is_left_alone() -> None:
    going = after(created, requested, began, contained, started)
    assert step(going, replace(runs, upstream=None), now=NOW + timedelta(days=1)) is None


def test_a_run_that_does_not_answer_in_time_has_failed() -> None:
    late = NOW + PATIENCE + timedelta(seconds=1)
    assert step(after(created, requested, began, contained), runs, now=late) == SayFailed(
        RUN, "not-ready-in-time", runs
    )


@pytest.mark.parametrize(("memory", "reason"), [(False, "exited"), (True, "out-of-memory")])
def test_a_run_that_ended_unasked_has_failed_and_is_then_removed(memory: bool, reason: str) -> None:
    dead = replace(ended, out_of_memory=memory)
    going = after(created, requested, began, contained, started)
    assert step(going, dead) == SayFailed(RUN, reason, dead)  # pyright: ignore[reportArgumentType]
    assert step(going.evolve(NotebookFailed(notebook=PLOTS, run=RUN, reason="exited")), dead) == Remove(dead)


def test_a_run_whose_container_is_gone_has_vanished() -> None:
    assert step(after(created, requested, began, contained, started)) == SayFailed(RUN, "vanished")


def test_a_run_that_is_to_end_is_removed_and_then_said_to_be_stopped() -> None:
    going = after(created, requested, began, contained, started, stopping)
    assert step(going, runs) == Remove(runs)
    assert step(going) == SayStopped(RUN)
    assert step(going.evolve(NotebookStopped(notebook=PLOTS, run=RUN))) is None


def test_a_deleted_notebook_loses_its_container() -> None:
    going = after(created, requested, began, contained, started, deleted)
    assert step(going, runs) == Remove(runs)
    assert step(going) == SayStopped(RUN)


def test_what_no_notebook_of_the_log_has_is_removed() -> None:
    assert step(Notebook(), runs) == Remove(runs)


def test_an_older_run_is_removed_before_a_newer_one_begins() -> None:
    old = replace(runs, id="c0", run=OTHER)
    assert step(after(created, requested), old) == Remove(old)


@dataclass
class World:
    """A notebook and its containers, on which steps are carried out as the supervisor does it."""

    notebook: Notebook
    seen: list[Instance] = field(default_factory=list[Instance])

    def tell(self, event: Event) -> None:
        self.notebook = self.notebook.evolve(event)

    def take(self, taken: Step) -> None:
        match taken:
            case Remove(instance):
                self.seen.remove(instance)
            case SayCreationBegan(run):
                self.tell(NotebookCreationBegan(notebook=PLOTS, run=run))
            case Create(run):
                self.seen.append(replace(made, id=f"for {run}", run=run))
            case Start(instance):
                self.seen[self.seen.index(instance)] = replace(instance, state="running", upstream=UPSTREAM)
            case SayContainerCreated(run):
                self.tell(NotebookContainerCreated(notebook=PLOTS, run=run))
            case AwaitAnswer(instance):
                self.tell(NotebookStarted(notebook=PLOTS, run=instance.run, upstream=UPSTREAM))
            case SayFailed(run, reason):
                self.tell(NotebookFailed(notebook=PLOTS, run=run, reason=reason))
            case SayStopped(run):
                self.tell(NotebookStopped(notebook=PLOTS, run=run))


histories = st.lists(st.sampled_from([requested, began, contained, started, stopping, deleted]), max_size=8)


def container(like: Instance, run: str) -> Instance:
    return replace(like, id=f"for {run}", run=run)


def run_of(instance: Instance) -> str:
    return instance.run


containers = st.lists(
    st.builds(container, st.sampled_from([made, runs, ended]), st.sampled_from([RUN, OTHER])), unique_by=run_of
)


@given(histories, containers)
def test_from_wherever_it_begins_it_comes_to_an_end_with_what_ought_to_run_and_nothing_else(
    history: list[Event], seen: list[Instance]
) -> None:
    world = World(after(created, *history), seen)
    for _ in range(20):
        taken = step(world.notebook, *world.seen)
        if taken is None:
            break
        world.take(taken)
    else:
        raise AssertionError("it goes round in a circle")
    if world.notebook.status == "ready":
        assert [(one.run, one.state) for one in world.seen] == [(world.notebook.run, "running")]
    else:
        assert world.notebook.status in ("stopped", "failed")
        assert world.seen == []

"""Notebooks: made, started, stopped and deleted by the members of their group."""

from collections.abc import Callable

import pytest

from app.domain.command import Caller
from app.domain.event import Event
from app.domain.groups import GroupCreated, MembersOnly
from app.domain.notebooks import (
    CreateNotebook,
    DeleteNotebook,
    NoSuchNotebook,
    Notebook,
    NotebookCommand,
    NotebookCreated,
    NotebookDeleted,
    NotebookSlugTaken,
    StartNotebook,
    StopNotebook,
)
from app.domain.projects import NoSuchProject
from app.domain.runs import NotebookStarted, NotebookStartRequested, NotebookStopRequested
from app.domain.users import LoginRefused
from tests.domain.cast import (
    ADA,
    APOLLO,
    HERE,
    LAB,
    NEXT_RUN,
    PLOTS,
    RUN,
    ada,
    apollo,
    began,
    bob,
    created,
    eve,
    failed,
    grace,
    grace_as_anybody,
    lab,
    plots,
    ready,
    stopped,
    stopping,
    wanted,
)
from tests.scenario import given

deleted = NotebookDeleted(notebook=PLOTS, project=APOLLO, group=LAB)
other_group = GroupCreated(group="other", title="Other", owner=ADA)
RUNNING = ((wanted,), (wanted, began), (wanted, created), (wanted, ready))
RESTING = ((), (wanted, stopping), (wanted, stopping, stopped), (wanted, failed))


def create(by: Caller, group: str = LAB) -> CreateNotebook:
    return CreateNotebook(by=by, notebook=PLOTS, project=APOLLO, group=group, title="Plots")


def start(by: Caller, run: str = RUN, group: str = LAB) -> StartNotebook:
    return StartNotebook(by=by, notebook=PLOTS, group=group, run=run)


def stop(by: Caller, group: str = LAB) -> StopNotebook:
    return StopNotebook(by=by, notebook=PLOTS, group=group)


def delete(by: Caller, group: str = LAB) -> DeleteNotebook:
    return DeleteNotebook(by=by, notebook=PLOTS, group=group)


COMMANDS = (start, stop, delete)


def test_a_member_makes_a_notebook() -> None:
    given(*apollo).when(create(bob)).then(NotebookCreated(notebook=PLOTS, project=APOLLO, group=LAB, title="Plots"))


def test_a_notebooks_slug_is_used_once() -> None:
    given(*plots).when(create(bob)).refused(NotebookSlugTaken)


def test_a_deleted_notebooks_slug_is_not_used_again() -> None:
    given(*plots, deleted).when(create(bob)).refused(NotebookSlugTaken)


def test_a_notebook_is_made_in_a_project_that_exists() -> None:
    given(*lab).when(create(bob)).refused(NoSuchProject)


def test_a_notebook_is_not_made_in_a_project_of_another_group() -> None:
    given(*apollo, other_group).when(create(ada, "other")).refused(NoSuchProject)


def test_a_stranger_makes_no_notebook() -> None:
    given(*apollo).when(create(eve)).refused(MembersOnly)


def test_an_administrator_makes_a_notebook_unless_the_token_is_not_for_that() -> None:
    given(*apollo).when(create(grace)).then(plots[-1])
    given(*apollo).when(create(grace_as_anybody)).refused(MembersOnly)


@pytest.mark.parametrize("before", RESTING)
def test_a_member_starts_a_notebook_that_rests(before: tuple[Event, ...]) -> None:
    given(*plots, *before).when(start(bob, NEXT_RUN)).then(NotebookStartRequested(notebook=PLOTS, run=NEXT_RUN))


@pytest.mark.parametrize("before", RUNNING)
def test_a_notebook_that_runs_or_is_about_to_is_not_started_again(before: tuple[Event, ...]) -> None:
    given(*plots, *before).when(start(bob, NEXT_RUN)).nothing_happens()


@pytest.mark.parametrize("before", RUNNING)
def test_a_member_stops_a_notebook_that_runs_or_is_about_to(before: tuple[Event, ...]) -> None:
    given(*plots, *before).when(stop(bob)).then(NotebookStopRequested(notebook=PLOTS, run=RUN))


@pytest.mark.parametrize("before", RESTING)
def test_a_notebook_that_rests_is_not_stopped(before: tuple[Event, ...]) -> None:
    given(*plots, *before).when(stop(bob)).nothing_happens()


def test_the_newest_run_is_stopped() -> None:
    again = NotebookStartRequested(notebook=PLOTS, run=NEXT_RUN)
    given(*plots, wanted, failed, again).when(stop(bob)).then(NotebookStopRequested(notebook=PLOTS, run=NEXT_RUN))


@pytest.mark.parametrize("before", [*RUNNING, *RESTING])
def test_a_member_deletes_a_notebook_running_or_not(before: tuple[Event, ...]) -> None:
    given(*plots, *before).when(delete(bob)).then(deleted)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stranger_does_nothing_to_a_notebook(command: Callable[..., NotebookCommand]) -> None:
    given(*plots).when(command(eve)).refused(MembersOnly)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_notebook_that_never_was_is_not_acted_on(command: Callable[..., NotebookCommand]) -> None:
    given(*apollo).when(command(bob)).refused(NoSuchNotebook)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_deleted_notebook_is_not_acted_on(command: Callable[..., NotebookCommand]) -> None:
    given(*plots, deleted).when(command(bob)).refused(NoSuchNotebook)


@pytest.mark.parametrize("command", COMMANDS)
def test_owning_one_group_gives_no_right_to_anothers_notebook(command: Callable[..., NotebookCommand]) -> None:
    given(*plots, other_group).when(command(ada, group="other")).refused(NoSuchNotebook)


def test_a_notebook_is_what_its_newest_run_is() -> None:
    story = [wanted, began, created, ready, stopping, stopped]
    statuses = [Notebook.about(PLOTS).fold([plots[-1], *story[:length]]).status for length in range(len(story) + 1)]
    assert statuses == ["stopped", "queued", "creating", "starting", "ready", "stopping", "stopped"]


def test_late_news_of_an_older_run_changes_nothing() -> None:
    again = Notebook.about(PLOTS).fold(
        [plots[-1], wanted, failed, NotebookStartRequested(notebook=PLOTS, run=NEXT_RUN)]
    )
    assert [again.evolve(late) for late in (began, created, ready, failed, stopping, stopped)] == [again] * 6


def test_a_new_run_answers_nowhere_yet() -> None:
    running = Notebook.about(PLOTS).fold([plots[-1], wanted, ready])
    assert running.upstream == HERE
    assert running.evolve(NotebookStartRequested(notebook=PLOTS, run=NEXT_RUN)).upstream is None


def test_a_notebook_folds_nothing_of_other_things() -> None:
    assert Notebook().evolve(LoginRefused()) == Notebook()
    assert Notebook(run=RUN).evolve(LoginRefused()) == Notebook(run=RUN)


def test_a_run_that_answers_is_told_of_under_the_notebook() -> None:
    assert f"notebook:{PLOTS}" in NotebookStarted(notebook=PLOTS, run=RUN, upstream=HERE).tags


def test_a_wish_that_nobody_wrote_down_is_not_carried_out() -> None:
    with pytest.raises(NotImplementedError):
        given(*plots).when(NotebookCommand(by=bob, notebook=PLOTS, group=LAB))

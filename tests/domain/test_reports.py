"""Reports of the runtime: news is recorded once; what is late, or is said of another run, changes nothing."""

from collections.abc import Callable

import pytest

from app.domain.event import Event
from app.domain.names import Personal
from app.domain.notebooks import NotebookDeleted
from app.domain.reports import (
    EndRun,
    Report,
    ReportNotebookContainerCreated,
    ReportNotebookCreationBegan,
    ReportNotebookFailed,
    ReportNotebookReady,
    ReportNotebookStopped,
)
from app.domain.runs import NotebookFailed, NotebookStarted, status_after
from tests.domain.cast import (
    APOLLO,
    HERE,
    LAB,
    NEXT_RUN,
    PLOTS,
    RUN,
    began,
    created,
    failed,
    plots,
    ready,
    stopped,
    stopping,
    wanted,
)
from tests.scenario import given

ELSEWHERE = "127.0.0.1:40002"
deleted = NotebookDeleted(notebook=PLOTS, project=APOLLO, group=LAB)

REPORTS: tuple[tuple[Callable[[str], Report], Event], ...] = (
    (lambda run: ReportNotebookCreationBegan(notebook=PLOTS, run=run), began),
    (lambda run: ReportNotebookContainerCreated(notebook=PLOTS, run=run), created),
    (lambda run: ReportNotebookReady(notebook=PLOTS, run=run, upstream=HERE), ready),
    (lambda run: ReportNotebookFailed(notebook=PLOTS, run=run, reason="exited", exit_code=1), failed),
    (lambda run: ReportNotebookStopped(notebook=PLOTS, run=run), stopped),
    (lambda run: EndRun(notebook=PLOTS, run=run), stopping),
)
STORIES: dict[str, tuple[Event, ...]] = {
    "never asked for": (),
    "queued": (wanted,),
    "creating": (wanted, began),
    "starting": (wanted, began, created),
    "ready": (wanted, began, created, ready),
    "stopping": (wanted, began, created, ready, stopping),
    "deleted while it ran": (wanted, began, created, ready, deleted),
    "stopped": (wanted, began, created, ready, stopping, stopped),
    "failed": (wanted, began, failed),
    "deleted while it rested": (deleted,),
}
NEWS = {
    "queued": (began, created, ready, failed, stopping),
    "creating": (created, ready, failed, stopping),
    "starting": (ready, failed, stopping),
    "ready": (failed, stopping),
    "stopping": (stopped,),
    "deleted while it ran": (stopped,),
}


@pytest.mark.parametrize(("report", "event"), REPORTS)
@pytest.mark.parametrize("told", STORIES)
def test_only_news_is_recorded(told: str, report: Callable[[str], Report], event: Event) -> None:
    scenario = given(*plots, *STORIES[told]).when(report(RUN))
    if event in NEWS.get(told, ()):
        scenario.then(event)
    else:
        scenario.nothing_happens()


@pytest.mark.parametrize(("report", "event"), REPORTS)
@pytest.mark.parametrize("told", STORIES)
def test_what_is_said_of_another_run_changes_nothing(told: str, report: Callable[[str], Report], event: Event) -> None:
    given(*plots, *STORIES[told]).when(report(NEXT_RUN)).nothing_happens()


@pytest.mark.parametrize(("report", "event"), REPORTS)
def test_a_notebook_that_is_not_has_no_news(report: Callable[[str], Report], event: Event) -> None:
    given().when(report(RUN)).nothing_happens()


def test_a_run_that_answers_somewhere_else_is_told_again() -> None:
    given(*plots, *STORIES["ready"]).when(ReportNotebookReady(notebook=PLOTS, run=RUN, upstream=ELSEWHERE)).then(
        NotebookStarted(notebook=PLOTS, run=RUN, upstream=ELSEWHERE)
    )


def test_a_failure_says_why_and_what_was_last_seen() -> None:
    report = ReportNotebookFailed(
        notebook=PLOTS, run=RUN, reason="out-of-memory", exit_code=137, log=Personal("Killed\n")
    )
    given(*plots, wanted).when(report).then(
        NotebookFailed(notebook=PLOTS, run=RUN, reason="out-of-memory", exit_code=137, log=Personal("Killed\n"))
    )


def test_every_event_of_a_run_says_what_the_run_is_then() -> None:
    told = [status_after(event) for event in (wanted, began, created, ready, stopping, stopped, failed)]
    assert told == ["queued", "creating", "starting", "ready", "stopping", "stopped", "failed"]


def test_an_event_that_is_not_of_a_run_says_nothing_of_one() -> None:
    assert status_after(deleted) is None


def test_a_report_that_says_nothing_is_none() -> None:
    report = Report(notebook=PLOTS, run=RUN)
    with pytest.raises(NotImplementedError):
        report.while_()
    with pytest.raises(NotImplementedError):
        report.observation()

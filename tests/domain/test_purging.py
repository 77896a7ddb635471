"""Purging: the files of a deleted notebook go when an administrator says so, and no others."""

from typing import Any

import pytest

from app.domain.names import Personal
from app.domain.notebooks import NoSuchNotebook, NotebookDeleted
from app.domain.purging import NotebookNotDeleted, NotebookPurged, NotebookStillEnding, PurgeNotebook
from app.domain.retention import LegalHoldLifted, LegalHoldPlaced, UnderLegalHold
from app.domain.users import AdministratorsOnly
from tests.domain.cast import APOLLO, LAB, PLOTS, ada, grace, grace_as_anybody, plots, stopped, wanted
from tests.scenario import given

deleted = NotebookDeleted(notebook=PLOTS, project=APOLLO, group=LAB)
purge = PurgeNotebook(by=grace, notebook=PLOTS)
purged = NotebookPurged(notebook=PLOTS)


def test_an_administrator_purges_a_deleted_notebook() -> None:
    given(*plots, deleted).when(purge).then(purged)
    given(*plots, wanted, deleted, stopped).when(purge).then(purged)


def test_what_was_purged_is_not_purged_again() -> None:
    given(*plots, deleted, purged).when(purge).nothing_happens()


def test_a_notebook_that_is_there_keeps_its_files() -> None:
    given(*plots).when(purge).refused(NotebookNotDeleted)
    given().when(purge).refused(AdministratorsOnly)
    given(*plots, deleted).when(PurgeNotebook(by=grace, notebook="nothing")).refused(NoSuchNotebook)


def test_a_run_that_is_still_ending_keeps_its_files() -> None:
    given(*plots, wanted, deleted).when(purge).refused(NotebookStillEnding)


@pytest.mark.parametrize("caller", [ada, grace_as_anybody])
def test_nobody_else_purges(caller: Any) -> None:
    given(*plots, deleted).when(PurgeNotebook(by=caller, notebook=PLOTS)).refused(AdministratorsOnly)


@pytest.mark.parametrize("about", [f"notebook:{PLOTS}", f"project:{APOLLO}", f"group:{LAB}"])
def test_what_is_under_legal_hold_is_not_purged_until_that_is_lifted(about: str) -> None:
    held = LegalHoldPlaced(about=about, reason=Personal("Case 42"))
    given(*plots, deleted, held).when(purge).refused(UnderLegalHold)
    given(*plots, deleted, held, LegalHoldLifted(about=about)).when(purge).then(purged)

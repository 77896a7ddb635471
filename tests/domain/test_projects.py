"""Projects: members of a group begin them, under a slug that is used once."""

from app.domain.command import Caller
from app.domain.groups import MemberRemoved, MembersOnly, NoSuchGroup
from app.domain.projects import CreateProject, Project, ProjectCreated, ProjectSlugTaken, Visibility
from tests.domain.cast import APOLLO, BOB, LAB, accounts, ada, apollo, bob, eve, grace, grace_as_anybody, lab, wanted
from tests.scenario import given


def create(by: Caller, visibility: Visibility = "private", group: str = LAB) -> CreateProject:
    return CreateProject(by=by, project=APOLLO, group=group, title="Apollo 11", visibility=visibility)


def test_a_member_begins_a_project() -> None:
    given(*lab).when(create(bob)).then(
        ProjectCreated(project=APOLLO, group=LAB, title="Apollo 11", visibility="private")
    )


def test_an_owner_begins_a_public_project() -> None:
    given(*lab).when(create(ada, "public")).then(
        ProjectCreated(project=APOLLO, group=LAB, title="Apollo 11", visibility="public")
    )


def test_an_administrator_begins_a_project_anywhere() -> None:
    given(*lab).when(create(grace, "internal")).then(
        ProjectCreated(project=APOLLO, group=LAB, title="Apollo 11", visibility="internal")
    )


def test_a_project_is_private_unless_somebody_says_otherwise() -> None:
    assert CreateProject(by=ada, project=APOLLO, group=LAB, title="Apollo").visibility == "private"


def test_a_projects_slug_is_used_once() -> None:
    given(*apollo).when(create(bob)).refused(ProjectSlugTaken)


def test_a_stranger_begins_no_project() -> None:
    given(*lab).when(create(eve)).refused(MembersOnly)


def test_a_stranger_does_not_learn_that_a_slug_is_taken() -> None:
    given(*apollo).when(create(eve)).refused(MembersOnly)


def test_somebody_who_left_begins_no_project() -> None:
    given(*lab, MemberRemoved(group=LAB, user=BOB)).when(create(bob)).refused(MembersOnly)


def test_an_administrator_whose_token_is_not_for_that_begins_no_project() -> None:
    given(*lab).when(create(grace_as_anybody)).refused(MembersOnly)


def test_a_group_that_is_not_has_no_projects() -> None:
    given(*accounts).when(create(grace)).refused(NoSuchGroup)


def test_a_project_folds_nothing_of_other_things() -> None:
    assert Project().evolve(wanted) == Project()

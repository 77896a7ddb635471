"""Refusals: their names are problem types, their docstrings are what people read."""

import inspect
from collections.abc import Iterator

import pytest

from app.domain.command import Command
from app.domain.errors import Conflict, Forbidden, NotFound, Refusal
from app.domain.event import Event
from app.domain.groups import GroupSlugTaken, LastOwner
from app.domain.model import DecisionModel
from app.domain.registry import EVENTS
from app.domain.users import LoginRefused, NoSuchUser


def refusals(kind: type[Refusal] = Refusal) -> Iterator[type[Refusal]]:
    yield kind
    for below in kind.__subclasses__():
        yield from refusals(below)


def test_a_refusal_has_a_stable_name() -> None:
    assert GroupSlugTaken.problem() == "group-slug-taken"
    assert Refusal.problem() == "refusal"


@pytest.mark.parametrize("refusal", list(refusals()))
def test_every_refusal_says_in_a_sentence_what_is_wrong(refusal: type[Refusal]) -> None:
    assert refusal.__doc__, f"{refusal.__name__} inherits somebody else's sentence"
    assert refusal.title()[0].isupper()
    assert refusal.title().endswith(".")
    assert 400 <= refusal.status < 600


def test_the_names_of_refusals_are_used_once() -> None:
    names = [refusal.problem() for refusal in refusals()]
    assert len(names) == len(set(names))


def test_a_refusal_says_what_it_is_about() -> None:
    assert str(NoSuchUser("usr_1")) == "There is no user with this id. (usr_1)"
    assert str(LastOwner()) == "A group needs an owner: make somebody else one first."


def test_kinds_of_refusals_have_the_status_that_http_gives_them() -> None:
    assert (NotFound.status, Forbidden.status, Conflict.status, Refusal.status) == (404, 403, 409, 409)


def test_a_command_and_a_model_that_say_nothing_are_none() -> None:
    with pytest.raises(NotImplementedError):
        Command().rests_on()
    with pytest.raises(NotImplementedError):
        Command().decide()
    with pytest.raises(NotImplementedError):
        DecisionModel().evolve(LoginRefused())


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_every_event_is_explained_and_its_type_is_its_name(event: type[Event]) -> None:
    assert inspect.getdoc(event)
    assert EVENTS[event.__name__] is event

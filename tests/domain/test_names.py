"""Names: what is one, what is none, and under which tag it is filed."""

import re
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.command import CommandRefused
from app.domain.event import Event
from app.domain.groups import GroupName
from app.domain.model import Basis, DecisionModel, Selection
from app.domain.names import ERASED, NotebookName, Personal, Title, UserId, is_a, name_in, sealed_fields, tags_of
from app.domain.notebooks import StartNotebook
from app.domain.projects import ProjectCreated, ProjectName
from app.domain.registry import EVENTS
from app.domain.runs import NotebookFailed, NotebookStarted, RunId, Upstream
from app.domain.tokens import TokenId
from app.domain.users import LoginRefused, UserCreated, Username, UsernameDigest
from tests.domain.cast import ADA, APOLLO, BOB, HERE, LAB, PLOTS, RUN, ada, an_id

LOWER, DIGITS = string.ascii_lowercase, string.digits
slugs = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
SLUGS: tuple[Any, ...] = (GroupName, ProjectName, NotebookName)
NO_SLUGS = [
    "",
    "-a",
    "a-",
    "-",
    "A",
    "aB",
    "a_b",
    "a.b",
    "a b",
    " a",
    "a ",
    "a\n",
    "\na",
    "a\nb",
    "a" * 64,
    "é",
    "ａ",
    "a٣",
    "٣",
    "a\x00",
    "a/b",
    "xn--é",
]


def accepts(kind: Any, text: str) -> bool:
    try:
        msgspec.json.decode(msgspec.json.encode(text), type=kind)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.parametrize("kind", SLUGS)
@given(text=slugs)
def test_every_dns_label_in_lower_case_is_a_slug(kind: Any, text: str) -> None:
    assert accepts(kind, text)


@pytest.mark.parametrize("kind", SLUGS)
@pytest.mark.parametrize("text", NO_SLUGS)
def test_what_is_no_dns_label_is_no_slug(kind: Any, text: str) -> None:
    assert not accepts(kind, text)


@given(st.text(max_size=70))
def test_a_text_is_a_slug_exactly_if_it_is_a_dns_label(text: str) -> None:
    is_label = re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", text, re.ASCII) is not None
    assert accepts(NotebookName, text) == is_label


@given(st.text(LOWER + DIGITS + "-_.A\n", min_size=1, max_size=66))
def test_a_text_that_is_nearly_a_slug_is_one_exactly_if_it_is_a_dns_label(text: str) -> None:
    is_label = set(text) <= set(LOWER + DIGITS + "-") and text.strip("-") == text and len(text) <= 63
    assert accepts(NotebookName, text) == is_label


def test_a_slug_has_at_most_63_characters() -> None:
    assert accepts(GroupName, "a" * 63)
    assert not accepts(GroupName, "a" * 64)


@pytest.mark.parametrize(("kind", "prefix"), [(UserId, "usr"), (TokenId, "tok"), (RunId, "run")])
def test_an_identifier_is_a_prefix_and_26_digits_of_base_32(kind: Any, prefix: str) -> None:
    assert accepts(kind, an_id(prefix, 7))
    assert accepts(kind, f"{prefix}_06dmq5v1c9t72r8k3f4g5h6j0n")
    wrong = (
        "",
        "xyz_" + "0" * 26,
        f"{prefix}_",
        *(
            f"{prefix}_{tail}"
            for tail in ("0" * 25, "0" * 27, "0" * 25 + "w", "0" * 25 + "A", "0" * 26 + "\n", "0" * 25 + "٣")
        ),
    )
    assert [text for text in wrong if accepts(kind, text)] == []


@pytest.mark.parametrize("text", ["ada", "a", "a.b-c_d9", "a" * 32])
def test_a_user_name_is_short_and_plain(text: str) -> None:
    assert accepts(Username, text)


@pytest.mark.parametrize("text", ["", "9a", "Ada", "a" * 33, "a\n", "a b", "ä", "_a", "a٣"])
def test_a_user_name_is_nothing_else(text: str) -> None:
    assert not accepts(Username, text)


def test_a_digest_of_a_name_is_26_digits_of_base_32() -> None:
    assert accepts(UsernameDigest, "0123456789abcdefghijklmnop"[:26])
    assert not accepts(UsernameDigest, "0" * 25)
    assert not accepts(UsernameDigest, "0" * 26 + "\n")


@pytest.mark.parametrize("text", [HERE, "127.0.0.1:1", "unix//run/sophon/a.sock"])
def test_a_run_answers_on_this_machine(text: str) -> None:
    assert accepts(Upstream, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1:80",
        "127.0.0.1:",
        "127.0.0.1:80\n",
        "127.0.0.1:123456",
        "unix//",
        "unix//a b",
        "127.0.0.1:80/x",
        "http://127.0.0.1:80",
    ],
)
def test_a_run_answers_nowhere_else(text: str) -> None:
    assert not accepts(Upstream, text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200))
def test_a_title_is_any_line_of_text(text: str) -> None:
    assert accepts(Title, text)


@pytest.mark.parametrize("text", ["", "a\n", "\n", "a\tb", "a\x00", "a\x7f", "a" * 201])
def test_a_title_has_no_control_characters_and_some_length(text: str) -> None:
    assert not accepts(Title, text)


@given(group=slugs, notebook=slugs, user=st.integers(0, 10**26 - 1))
def test_a_tag_is_the_kind_and_the_value(group: str, notebook: str, user: int) -> None:
    command = StartNotebook(by=ada, notebook=notebook, group=group, run=RUN)
    assert command.tags == (f"notebook:{notebook}", f"group:{group}", f"run:{RUN}")
    assert LoginRefused(user=an_id("usr", user)).tags == (f"user:{an_id('usr', user)}",)


def test_the_tags_of_a_wish_do_not_name_the_caller_who_stands_in_the_entry_anyway() -> None:
    assert not any(ADA in tag for tag in StartNotebook(by=ada, notebook=PLOTS, group=LAB, run=RUN).tags)


def test_a_name_that_is_absent_has_no_tag() -> None:
    assert LoginRefused().tags == ()


def test_a_text_that_is_no_name_has_no_tag() -> None:
    assert CommandRefused(command="StartNotebook").tags == ()
    event = NotebookFailed(notebook=PLOTS, run=RUN, reason="exited", log=Personal("group:x"))
    assert event.tags == (f"notebook:{PLOTS}", f"run:{RUN}")


def test_a_tag_stands_once() -> None:
    class Handover(msgspec.Struct):
        giver: UserId
        taker: UserId

    assert tags_of(Handover(ADA, ADA)) == (f"user:{ADA}",)
    assert tags_of(Handover(ADA, BOB)) == (f"user:{ADA}", f"user:{BOB}")


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_an_event_has_no_field_that_needs_a_float(event: type[Event]) -> None:
    assert "float" not in str(msgspec.inspect.type_info(event)).lower()


def test_a_selection_wants_one_of_its_types_and_all_of_its_tags() -> None:
    wanted = Selection(("A", "B"), ("x", "y"))
    assert wanted.matches("A", ("x", "y", "z"))
    assert not wanted.matches("C", ("x", "y"))
    assert not wanted.matches("B", ("x",))


def test_a_selection_without_types_and_tags_wants_everything() -> None:
    assert Selection().matches("A", ())
    assert Selection(types=("A",)).matches("A", ())
    assert Selection(tags=("x",)).matches("A", ("x",))


def test_a_model_is_folded_from_what_it_selects_and_nothing_else() -> None:
    class Count(DecisionModel, frozen=True):
        count: int = 0

        def evolve(self, event: Event) -> "Count":
            return Count(self.count + 1)

    basis = Basis(Count(), (Selection(tags=(f"user:{ADA}",)), Selection(("LoginRefused",), (f"user:{ADA}",))))
    assert basis.fold([LoginRefused(user=ADA), LoginRefused(user=BOB), LoginRefused()]).count == 1


def test_what_is_sealed_says_so_by_its_type() -> None:
    assert sealed_fields(UserCreated) == (("username", Personal(ERASED)),)
    assert sealed_fields(NotebookFailed) == (("log", Personal(ERASED)),)
    assert sealed_fields(ProjectCreated) == (("title", ERASED),)
    assert sealed_fields(NotebookStarted) == ()


def test_whose_it_is_that_is_sealed_is_named_by_a_field() -> None:
    event = ProjectCreated(project=APOLLO, group=LAB, title="Apollo", visibility="private")
    assert event.whose is not None
    assert name_in(event, event.whose) == f"project:{APOLLO}"
    for cls in EVENTS.values():
        assert cls.whose is None or cls.whose in cls.__struct_fields__


def test_a_text_is_a_name_of_a_kind_or_is_not() -> None:
    assert is_a(UserId, an_id("usr", 1))
    assert is_a(NotebookName, "plots")
    for kind, text in (
        (UserId, "usr_jane"),
        (UserId, an_id("tok", 1)),
        (UserId, an_id("usr", 1) + "\n"),
        (NotebookName, "a.b"),
        (NotebookName, ""),
    ):
        assert not is_a(kind, text), text

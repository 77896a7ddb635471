"""What is kept of the newest entries answers conditions as the whole log would."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.audit import recent
from app.audit.recent import Condition, Recent
from app.domain.model import Selection
from tests.audit.workload import TYPES, selections, subsets

entries = st.lists(st.tuples(st.sampled_from(TYPES), subsets), max_size=6)
moves = st.one_of(
    st.tuples(st.just("add"), entries),
    st.tuples(st.just("forget"), st.integers(0, 6)),
    st.tuples(st.just("trim"), st.integers(0, 6)),
)
conditions = st.builds(Condition, st.lists(selections, min_size=1, max_size=3).map(tuple), st.integers(0, 60))


def violates(log: Sequence[tuple[str, tuple[str, ...]]], floor: int, condition: Condition) -> bool:
    """Look at each entry after both positions."""
    after = max(condition.after, floor)
    return any(one.matches(*entry) for entry in log[after:] for one in condition.selections)


@given(start=st.integers(0, 10), moves=st.lists(moves, max_size=15), asked=st.lists(conditions, max_size=8))
def test_it_answers_as_the_whole_log_would(start: int, moves: list[tuple[str, object]], asked: list[Condition]) -> None:
    log: list[tuple[str, tuple[str, ...]]] = [("old", ())] * start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "KEEP", 4)
        kept = Recent(start)
        for move, what in moves:
            match move, what:
                case "add", list():
                    for type_, tags in what:  # pyright: ignore[reportUnknownVariableType]
                        kept.add(type_, tags)  # pyright: ignore[reportUnknownArgumentType]
                        log.append((type_, tags))  # pyright: ignore[reportUnknownArgumentType]
                case "forget", int():
                    back_to = max(kept.floor, len(log) - what)
                    kept.forget_after(back_to)
                    del log[back_to:]
                case _, int():
                    committed = max(kept.floor, len(log) - what)
                    kept.trim(committed)
                    assert len(log) - kept.floor <= 8 + what
                    assert kept.floor <= committed, "what is not committed may have to be taken back"
                case _:
                    raise AssertionError
            assert kept.head == len(log)
            assert [kept.violates(one) for one in asked] == [violates(log, kept.floor, one) for one in asked]


def test_a_tag_that_stands_twice_is_forgotten_once() -> None:
    kept = Recent(0)
    kept.add("A", ("x", "x"))
    kept.add("A", ("x",))
    kept.forget_after(1)
    assert kept.violates(Condition((Selection((), ("x",)),), 0))
    kept.forget_after(0)
    assert not kept.violates(Condition((Selection((), ("x",)),), 0))


def test_it_keeps_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "KEEP", 10)
    kept = Recent(5)
    for _ in range(100):
        kept.add("A", ())
        kept.trim(kept.head)
    assert kept.head == 105
    assert kept.head - kept.floor <= 20
    assert kept.violates(Condition((Selection(("A",)),), 104))
    assert not kept.violates(Condition((Selection(("A",)),), 105))

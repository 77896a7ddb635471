"""Acts: what is remembered, so that the log is not flooded, is bounded and ends."""

import pytest

from app import acts
from app.acts import Recently


def test_what_was_is_remembered_for_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1_000.0
    monkeypatch.setattr(acts.time, "monotonic", lambda: clock)
    recently = Recently(60)
    recently.add("a")
    clock += 59
    assert "a" in recently
    assert "b" not in recently
    clock += 2
    assert "a" not in recently


def test_the_oldest_is_forgotten_first_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "REMEMBERED", 3)
    recently = Recently(60)
    for key in ("a", "b", "c", "a", "d"):
        recently.add(key)
    assert [key for key in "abcd" if key in recently] == ["a", "c", "d"]

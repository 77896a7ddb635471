"""`make bench`: whatever is missing, or fails, what was measured is shown."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from bench import proxy, start
from bench.__main__ import main
from bench.measure import QUICK, Comparison, Effort, Missing


def comparison(what: str) -> Comparison:
    return Comparison(what=what, unit="s", peer="a peer", ours=[1.0, 2.0, 3.0], theirs=[4.0, 4.0, 4.0])


def figures(monkeypatch: pytest.MonkeyPatch, **measures: object) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *measures])
    for name, measure in measures.items():
        monkeypatch.setitem(sys.modules, f"bench.{name}", SimpleNamespace(measure=measure))


def test_each_figure_is_told_as_it_comes_and_a_missing_tool_costs_its_own_figure_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    def first(effort: Effort) -> Iterator[Comparison]:
        yield comparison("the first")
        raise Missing("something needs a tool.")

    def second(effort: Effort) -> Iterator[Comparison]:
        told.append(capsys.readouterr().out)
        yield comparison("the second")

    figures(monkeypatch, tree=first, start=second)
    assert main() == 1
    assert "the first: 2 s; a peer: 4; 0.50 x" in told[0]
    end = capsys.readouterr().out
    assert end.index("Medians of") < end.index("the first") < end.rindex("the second")
    assert "Not measured: something needs a tool." in end


def test_what_was_measured_is_shown_even_if_what_follows_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(effort: Effort) -> Iterator[Comparison]:
        yield comparison("the first")
        raise ZeroDivisionError

    figures(monkeypatch, tree=failing)
    with pytest.raises(ZeroDivisionError):
        main()
    assert "Medians of" in capsys.readouterr().out


def test_wrk_and_docker_are_named_where_they_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    with pytest.raises(Missing, match="Docker"):
        next(iter(start.measure(QUICK)))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Missing, match="Docker"):
        next(iter(start.measure(QUICK)))
    with pytest.raises(Missing, match="wrk"):
        next(iter(proxy.measure(QUICK)))

"""Medians of alternating rounds: ours, the peer, ours, the peer. Only their ratio outlives the machine."""

from collections.abc import Callable, Iterator
from statistics import median

from msgspec import Struct
from rich.table import Table


class Effort(Struct, frozen=True):
    """How much is done: rounds of each side, seconds of each round, and the share of a fixed amount of work."""

    rounds: int = 5
    seconds: float = 2.0
    share: float = 1.0


class Missing(Exception):
    """A peer is not here; the message says which figure lacks it, and where it is to be had."""


FULL = Effort()
QUICK = Effort(rounds=3, seconds=0.7, share=0.2)


class Target(Struct, frozen=True):
    """What ours divided by the peer's has to be: `at least` (rates) or `at most` (times, sizes)."""

    ratio: float
    at_most: bool = False

    def reached_by(self, ratio: float) -> bool:
        """Whether a ratio will do."""
        return ratio <= self.ratio if self.at_most else ratio >= self.ratio

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.ratio:g}"


class Comparison(Struct, frozen=True, kw_only=True):
    """One figure beside its peer: a value of each for every round. Without a target it is told and not judged."""

    what: str
    unit: str
    peer: str
    ours: list[float]
    theirs: list[float]
    target: Target | None = None

    @property
    def ratio(self) -> float:
        """Our median divided by theirs."""
        return median(self.ours) / median(self.theirs)

    @property
    def spread(self) -> tuple[float, float]:
        """Give the lowest and the highest ratio of one round."""
        ratios = [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        return min(ratios), max(ratios)

    @property
    def reached(self) -> bool:
        """Whether the target, if there is one, is reached."""
        return self.target is None or self.target.reached_by(self.ratio)


Figure = Callable[[Effort], Iterator[Comparison]]
"""A module's `measure`: it yields each comparison as soon as it has one."""


def alternate(
    rounds: int, ours: Callable[[], float], theirs: Callable[[], float], *, warm: bool = True
) -> tuple[list[float], list[float]]:
    """Measure both in turn, so that whatever else the machine does meets both; a first round of each may not count."""
    if warm:
        _ = ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return [our for our, _ in pairs], [their for _, their in pairs]


def line(one: Comparison) -> str:
    """Say one figure as soon as it is there: what is measured after it may fail, or take long."""
    ours, theirs = (_short(median(values)) for values in (one.ours, one.theirs))
    return f"{one.what}: {ours} {one.unit}; {one.peer}: {theirs}; {one.ratio:.2f} x"


def table(comparisons: list[Comparison], rounds: int) -> Table:
    """Lay the figures out, each beside its peer."""
    shown = Table(title=f"Medians of {rounds} alternating rounds", title_justify="left")
    for heading in ("figure", "unit", "peer"):
        shown.add_column(heading, overflow="fold")
    for heading in ("ours", "theirs", "ratio", "lowest-highest", "target", "reached"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for one in comparisons:
        shown.add_row(*_cells(one))
    return shown


def _cells(one: Comparison) -> list[str]:
    verdict = "" if one.target is None else "[green]yes[/]" if one.reached else "[red]no[/]"
    low, high = one.spread
    numbers = [_short(median(one.ours)), _short(median(one.theirs)), f"{one.ratio:.2f}", f"{low:.2f}-{high:.2f}"]
    return [one.what, one.unit, one.peer, *numbers, str(one.target or ""), verdict]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

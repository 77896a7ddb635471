"""Pruning: two administrators remove what was kept long enough, and nothing that is held."""

from datetime import UTC, datetime

from msgspec.structs import replace

from app.domain.approvals import LIFE, ApprovalGiven, ApprovalRequested
from app.domain.command import Caller
from app.domain.names import Personal
from app.domain.pruning import HoldsChanged, LogPruned, PrunedClass, PruneLog
from app.domain.retention import LegalHoldPlaced
from app.domain.users import AdministratorsOnly
from tests.domain.cast import ADA, GRACE, account, accounts, ada, an_id, grace
from tests.scenario import given

HOPPER = an_id("usr", 5)
hopper = Caller(HOPPER, administering=True)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

two = (*accounts, account(HOPPER, "hopper", administrator=True))
asked = ApprovalRequested(action="prune", about="log-entries:100", by=GRACE, until=NOON + LIFE)
approved = ApprovalGiven(action="prune", about="log-entries:100", by=HOPPER, asked=GRACE)
held = LegalHoldPlaced(about=f"user:{ADA}", reason=Personal("litigation"))

prune = PruneLog(
    by=hopper,
    now=NOON,
    before=100,
    entries=7,
    positions="ab" * 32,
    size=120,
    root="cd" * 32,
    classes=(PrunedClass("reads", NOON),),
)
pruned = LogPruned(
    before=100, entries=7, positions="ab" * 32, size=120, root="cd" * 32, classes=(PrunedClass("reads", NOON),)
)


def test_one_administrator_alone_prunes_nothing() -> None:
    given(*two).when(replace(prune, by=grace)).then(asked)


def test_a_second_one_has_it_done() -> None:
    given(*two, asked).when(prune).then(approved, pruned)


def test_it_is_filed_under_what_was_approved() -> None:
    assert pruned.tags == ("log-entries:100",)


def test_where_nothing_is_past_its_term_nothing_happens() -> None:
    given(*two, asked).when(replace(prune, entries=0)).nothing_happens()


def test_what_was_put_under_legal_hold_meanwhile_stops_it() -> None:
    given(*two, asked, held).when(prune).refused(HoldsChanged)
    given(*two, asked, held).when(replace(prune, held=frozenset({held.about}))).then(approved, pruned)


def test_nobody_but_administrators_may_ask() -> None:
    given(*two).when(replace(prune, by=ada)).refused(AdministratorsOnly)

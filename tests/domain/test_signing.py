"""Signing: the log's keys are changed by two administrators, and the change is one fact."""

from datetime import UTC, datetime

from app.domain.approvals import LIFE, ApprovalGiven, ApprovalRequested
from app.domain.command import Caller
from app.domain.signing import LogKeyRotated, RotateLogKey
from tests.domain.cast import GRACE, account, accounts, an_id, grace
from tests.scenario import given

HOPPER = an_id("usr", 5)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
OLD = ("example.org/log+01234567+AbCd", "example.org/log+89abcdef+AbCd")
NEW = ("example.org/log+11111111+AbCd", "example.org/log+22222222+AbCd")

two = (*accounts, account(HOPPER, "hopper", administrator=True))
rotate = RotateLogKey(by=grace, now=NOON, retired=OLD, keys=NEW)
asked = ApprovalRequested(action="rotate", about="log-keys:01234567+89abcdef", by=GRACE, until=NOON + LIFE)


def test_one_administrator_alone_rotates_nothing() -> None:
    given(*two).when(rotate).then(asked)


def test_a_second_one_rotates_the_keys_whatever_the_next_ones_are() -> None:
    approved = ApprovalGiven(action="rotate", about="log-keys:01234567+89abcdef", by=HOPPER, asked=GRACE)
    other = RotateLogKey(by=Caller(HOPPER, administering=True), now=NOON, retired=OLD, keys=NEW[:1])
    given(*two, asked).when(other).then(approved, LogKeyRotated(retired=OLD, keys=NEW[:1]))

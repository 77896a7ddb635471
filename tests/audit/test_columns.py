"""What entries give to be searched by, compared with the columns beside them."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from app.audit.evidence.columns import agree, words_of

AT = datetime(2026, 11, 23, 7, 8, 9, 123_457, UTC)


class Row(msgspec.Struct, frozen=True):
    """An entry, by its columns."""

    id: UUID
    actor: str | None = "usr_1"
    at: datetime = AT
    outcome: str = "success"
    tags: tuple[str, ...] = ("project:x", "group:y")
    type: str = "ProjectCreated"

    @property
    def entry(self) -> bytes:
        actor = {"kind": "user"} if self.actor is None else {"id": self.actor, "kind": "user"}
        return msgspec.json.encode({**msgspec.structs.asdict(self), "actor": actor, "data": {"id": "other"}})

    @property
    def columns(self) -> tuple[str, ...]:
        actor = "\x01" if self.actor is None else self.actor
        tags, at = (msgspec.json.encode(one).decode() for one in (self.tags, self.at))
        return (str(self.id), self.type, self.outcome, actor, tags, at)


def found(entries: list[Row], columns: list[Row], at: str | None = None) -> bool:
    words = words_of(b"\n".join([row.entry for row in entries]))
    assert words is not None
    lines = ["\n".join(column) for column in zip(*[row.columns for row in columns], strict=True)]
    return agree(words, (*lines[:-1], lines[-1] if at is None else at))


ROWS = [Row(uuid4(), at=AT + timedelta(microseconds=n), actor=f"usr_{n}" if n % 3 else None) for n in range(50)]


def test_columns_that_are_what_the_entries_give_agree() -> None:
    assert found(ROWS, ROWS)
    assert found([Row(uuid4(), tags=())] * 2, [Row(uuid4(), tags=())] * 2) is False, "the ids differ"
    bare = Row(uuid4(), tags=())
    assert found([bare], [bare])


@pytest.mark.parametrize(
    "change",
    [
        {"id": UUID(int=7)},
        {"actor": "usr_else"},
        {"actor": None},
        {"at": AT + timedelta(seconds=1)},
        {"at": AT + timedelta(microseconds=8)},
        {"at": AT - timedelta(days=20_000)},
        {"outcome": "refused"},
        {"type": "Heartbeat"},
        {"tags": ("project:x",)},
        {"tags": ("project:x,group:y",)},
        {"tags": ("group:y", "project:x")},
        {"tags": ()},
    ],
    ids=str,
)
def test_one_column_of_one_entry_that_differs_is_noticed(change: dict[str, object]) -> None:
    assert not found(ROWS, [*ROWS[:7], msgspec.structs.replace(ROWS[7], **change), *ROWS[8:]])


def test_somebody_without_a_name_is_not_nobody() -> None:
    nameless = Row(uuid4(), actor="")
    assert not found([nameless], [msgspec.structs.replace(nameless, actor=None)])


@pytest.mark.parametrize("year", [1, 1971, 2026, 2106, 9998])
def test_a_microsecond_is_noticed_in_every_year(year: int) -> None:
    for n in range(200):
        row = Row(UUID(int=n), at=datetime(year, 12, 30, 23, 59, 59, 999_000 + n, UTC))
        assert found([row], [row])
        for step in (-1, 1):
            assert not found([row], [msgspec.structs.replace(row, at=row.at + timedelta(microseconds=step))])


def test_a_time_is_the_same_in_every_time_zone() -> None:
    assert found(ROWS[:1], ROWS[:1], '"2026-11-23T12:38:09.123457+05:30"')
    assert not found(ROWS[:1], ROWS[:1], '"2026-11-23T07:08:09.123457+05:30"')


@pytest.mark.parametrize("at", ['"infinity"', '"-infinity"', '"0044-03-15T00:00:00+00:00 BC"', "", "\x01"])
def test_a_time_without_end_is_no_time(at: str) -> None:
    assert not found(ROWS[:1], ROWS[:1], at)

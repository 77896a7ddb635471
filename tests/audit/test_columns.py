"""What entries give to be searched by, compared with the columns beside them."""

import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest

from app.audit.evidence.columns import agree, words_of

AT = datetime(2026, 11, 23, 7, 8, 9, 123_457, UTC)
SINCE = datetime(2000, 1, 1, tzinfo=UTC)


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
    def key(self) -> bytes:
        return self.id.bytes + struct.pack(">q", (self.at - SINCE) // timedelta(microseconds=1))


def found(entries: list[Row], columns: list[Row], keys: bytes | None = None) -> bool:
    words = words_of(b"\n".join([row.entry for row in entries]))
    assert words is not None
    keys = b"".join([row.key for row in columns]) if keys is None else keys
    texts = (
        "\n".join([row.type for row in columns]),
        "\n".join([row.outcome for row in columns]),
        "\n".join(["\x01" if row.actor is None else row.actor for row in columns]),
        "\n".join([msgspec.json.encode(row.tags).decode() for row in columns]),
    )
    return agree(words, keys, texts)


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
        {"at": SINCE - timedelta(days=20_000)},
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


@pytest.mark.parametrize("year", [1971, 2026, 2105, 2106])
def test_a_microsecond_is_noticed_in_every_year_or_nothing_is_said(year: int) -> None:
    for n in range(200):
        row = Row(UUID(int=n), at=datetime(year, 12, 30, 23, 59, 59, 999_000 + n, UTC))
        assert found([row], [row]) is (year < 2106)
        for step in (-1, 1):
            assert not found([row], [msgspec.structs.replace(row, at=row.at + timedelta(microseconds=step))])


@pytest.mark.parametrize("since", [2**63 - 1, -(2**63)])
def test_a_time_without_end_is_no_time(since: int) -> None:
    assert not found(ROWS[:1], ROWS[:1], ROWS[0].id.bytes + struct.pack(">q", since))

"""Lists come in pages: `?limit=&after=`, where `after` is the `next` of the page before. Never all at once."""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from litestar.params import QueryParameter
from msgspec import Struct

T = TypeVar("T")
Row = TypeVar("Row")

MOST = 200

Limit = Annotated[int, QueryParameter(ge=1, le=MOST, description="How many at most.", required=False)]
PRINTABLE = "^[!-~]+$"
"""Anything else cannot stand in a cursor, a type or a tag; a NUL could not even be asked of the database."""

After = Annotated[
    str | None,
    QueryParameter(max_length=100, pattern=PRINTABLE, description="The `next` of the page before.", required=False),
]


class Page(Struct, Generic[T], frozen=True):
    """Some of a list; `next` is absent (null) at its end."""

    items: Sequence[T]
    next: str | None


def page_of(rows: Sequence[Row], limit: int, key: Callable[[Row], str], show: Callable[[Row], T]) -> Page[T]:
    """Make a page of rows that were asked for with a limit one higher than the page's."""
    return Page([show(row) for row in rows[:limit]], key(rows[limit - 1]) if len(rows) > limit else None)

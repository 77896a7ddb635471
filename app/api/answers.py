"""Answers to writes: what was written, as it is read, with the position that it is known from."""

from collections.abc import Awaitable
from typing import TypeVar

from litestar import Response

from app.dispatch import Receipt
from app.domain.errors import NotFound

T = TypeVar("T")


def at(receipt: Receipt, page: T, status: int = 201) -> Response[T]:
    """Answer with a page that knows of the receipt."""
    return Response(page, status_code=status, headers={"Sophon-Position": str(receipt.position)})


async def found(row: Awaitable[T | None], otherwise: type[NotFound]) -> T:
    """Give what was found, or refuse."""
    if (value := await row) is None:
        raise otherwise
    return value

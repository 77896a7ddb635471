"""Bodies: what msgspec cannot read, and Litestar does not expect of it."""

from typing import Any

from litestar import Request
from litestar.exceptions import ClientException


class JsonRequest(Request[Any, Any, Any]):
    """A request whose body is refused, and not a defect of ours, where it is no UTF-8 or nested without end."""

    async def json(self) -> Any:
        """Read the body."""
        try:
            return await super().json()
        except (UnicodeDecodeError, RecursionError) as error:
            raise ClientException("The body is no JSON in UTF-8, or too deeply nested.") from error

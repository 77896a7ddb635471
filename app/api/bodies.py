"""Bodies: what msgspec cannot read, and what Litestar would read too kindly."""

from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import ClientException, ValidationException


class JsonRequest(Request[Any, Any, Any]):
    """A request whose body is refused, and not a defect of ours, where it is no UTF-8 or nested without end.

    A value of another type is refused as well: Litestar converts bodies as kindly as query strings, so that 0 would do
    for `false`.
    """

    async def json(self) -> Any:
        """Read the body."""
        try:
            body = await super().json()
        except (UnicodeDecodeError, RecursionError) as error:
            raise ClientException("The body is no JSON in UTF-8, or too deeply nested.") from error
        if (wanted := self.route_handler.parsed_fn_signature.parameters.get("data")) is not None:
            _check(body, wanted.annotation)
        return body


def _check(body: Any, wanted: Any) -> None:
    try:
        msgspec.convert(body, wanted, strict=True)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        key = path.strip("`.") or "data"
        raise ValidationException("The body is not valid.", extra=[{"message": message, "key": key}]) from error

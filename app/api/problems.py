"""Errors as `application/problem+json` (RFC 9457): a stable type, a sentence a person can act on, and the field."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

import structlog
from litestar import MediaType, Request, Response
from litestar.datastructures import ResponseHeader
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    SerializationException,
    ValidationException,
)
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from app.domain.errors import Refusal
from app.domain.names import SLUG, TEXT

_log = structlog.get_logger(__name__)


class FieldProblem(Struct, frozen=True):
    """What is wrong with one field; `field` is where it stands in the body, the path or the query."""

    field: str
    message: str


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong. `type` is stable; `detail` says what to do; `errors` names fields."""

    type: str
    title: str
    status: int
    detail: str | None = None
    errors: tuple[FieldProblem, ...] = ()


class NotYetReadable(Exception):
    """A change is recorded, and the read models have not caught up with it."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Pending(Struct, frozen=True):
    """The change is recorded at `position`; what is read may not show it yet."""

    position: int


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Document these answers, and those that every route can give, in OpenAPI."""
    return {
        status: ResponseSpec(
            Problem,
            description=HTTPStatus(status).phrase,
            media_type="application/problem+json",
            generate_examples=False,
        )
        for status in sorted({400, 401, 429, 503, *statuses})
    }


def asked_for(view: type[Struct]) -> ResponseSpec:
    """Document the answer to the first of two administrators."""
    return ResponseSpec(view, description="Asked for; another administrator has to ask too.", generate_examples=False)


NOTHING = ResponseSpec(None, description="It is so; there is nothing to say.", generate_examples=False)
"""Litestar would document `Response[None]` as JSON."""

PENDING = ResponseSpec(Pending, description="Recorded; reads will show it soon.", generate_examples=False)


def respond(problem: Problem, headers: Mapping[str, str] | None = None) -> Response[Problem]:
    """Answer with a problem."""
    return Response(
        problem, status_code=problem.status, media_type="application/problem+json", headers=dict(headers or {})
    )


def on_refusal(request: Request[Any, Any, Any], refusal: Refusal) -> Response[Problem]:
    """Answer for a rule that said no; the request keeps it, so that it is recorded before the answer goes."""
    request.state.refusal = refusal
    field = refusal.field
    headers: dict[str, str] = {}
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = "300" if refusal.status == HTTPStatus.TOO_MANY_REQUESTS else "1"
    return respond(
        Problem(
            type=f"/problems/{refusal.problem()}",
            title=refusal.title(),
            status=refusal.status,
            detail=refusal.about or None,
            errors=(FieldProblem(field, refusal.title()),) if field else (),
        ),
        headers,
    )


def on_validation(_: Request[Any, Any, Any], error: ValidationException) -> Response[Problem]:
    """Answer for a body, a path or a query that is not what it has to be."""
    found = cast("list[dict[str, str]]", error.extra or [])
    return _invalid(
        tuple(FieldProblem(_field(item), _plainly(item.get("message", ""))) for item in found), error.detail
    )


def _invalid(errors: tuple[FieldProblem, ...], otherwise: str = "") -> Response[Problem]:
    named = ", ".join(item.field for item in errors if item.field)
    return respond(
        Problem(
            type="/problems/invalid-request",
            title="The request is not valid.",
            status=400,
            detail=f"See `errors` for what is wrong with: {named}." if named else otherwise,
            errors=errors,
        )
    )


def on_http(_: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Answer for what the framework refuses."""
    if isinstance(error.__cause__, SerializationException):
        return _invalid((FieldProblem("data", f"The body cannot be read as JSON: {error.detail}."),))
    status = HTTPStatus(error.status_code)
    return respond(
        Problem(
            type=f"/problems/{re.sub('[^a-z]+', '-', status.phrase.lower())}",
            title=status.phrase,
            status=status,
            detail=error.detail or None,
        ),
        error.headers,
    )


def on_database_away(_: Request[Any, Any, Any], __: Exception) -> Response[Problem]:
    """Answer for a database that cannot be read."""
    title = "The database is away; try again in a moment."
    return respond(Problem(type="/problems/database-away", title=title, status=503), {"Retry-After": "2"})


def on_database_read_only(_: Request[Any, Any, Any], __: Exception) -> Response[Problem]:
    """Answer for a database that takes nothing: a session, for one, cannot be opened."""
    title = "The database cannot be written now, so nothing can be changed; try again later."
    return respond(Problem(type="/problems/database-read-only", title=title, status=503), {"Retry-After": "60"})


def on_not_yet_readable(_: Request[Any, Any, Any], late: NotYetReadable) -> Response[Pending]:
    """Answer for a change that is recorded and cannot be read yet: never with a stale page."""
    return Response(
        Pending(late.position),
        status_code=202,
        media_type=MediaType.JSON,
        headers={"Sophon-Position": str(late.position)},
    )


def on_anything(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """Answer for a defect of ours; the particulars are in our log, not in the answer."""
    # The pattern of the path: in the path itself there may be a user's name, and this log is not erased.
    _log.exception("request.failed", path=request.scope.get("path_template", ""), exc_info=error)  # pyright: ignore[reportUnknownMemberType]
    return respond(
        Problem(
            type="/problems/internal-error",
            title="Something went wrong on our side.",
            status=500,
            detail=f"Tell your administrator the request's id: {request.state.get('request_id')}.",
        )
    )


HANDLERS: dict[Any, Any] = {
    Refusal: on_refusal,
    ValidationException: on_validation,
    HTTPException: on_http,
    NotFoundException: on_http,
    MethodNotAllowedException: on_http,
    NotYetReadable: on_not_yet_readable,
    Exception: on_anything,
}

POSITION = ResponseHeader(
    name="Sophon-Position",
    description="The position in the log that this answer knows.",
    documentation_only=True,
    required=False,
)


def _field(item: dict[str, str]) -> str:
    """Name the field: the framework's own key, or, where that is the whole body, what msgspec's message names."""
    key = item.get("key", "data")
    named = re.search(r"field `(?:\$\.)?([^`]+)`", item.get("message", ""))
    return named[1] if key == "data" and named else key


def _plainly(message: str) -> str:
    """Say in words what msgspec says with a regular expression, and Litestar with the name of a parameter."""
    if message == "'data'":
        return "A JSON body is needed."
    if message.startswith("Invalid enum value"):
        return f"{message}; /schema lists those that there are."
    return next((words for pattern, words in _IN_WORDS.items() if pattern in message), message)


_IN_WORDS = {
    repr(SLUG): "A slug is a DNS label: 1 to 63 lower-case letters, digits and inner hyphens.",
    repr(TEXT): "One line of text, without control characters.",
    "^usr_": "A user's id, such as the list of users gives; not a name.",
    "^tok_": "A token's id, such as the list of tokens gives; not its secret.",
    "^[a-z][a-z0-9._-]": "A user name has 1 to 32 lower-case letters, digits, dots, hyphens and underscores.",
}

"""The API's documentation, at /schema: read from our own origin, with nobody else's scripts."""

from importlib.util import find_spec
from pathlib import Path

from litestar import Router
from litestar._openapi.schema_generation import SchemaCreator
from litestar._openapi.schema_generation.plugins.struct import StructSchemaPlugin
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, Schema, SecurityScheme
from litestar.plugins.base import ReceiveRoutePlugin
from litestar.routes import BaseRoute, HTTPRoute
from litestar.static_files import create_static_files_router  # pyright: ignore[reportUnknownVariableType]
from litestar.typing import FieldDefinition

from app.api.auth import CSRF, GUESTS, SAFE

_spec = find_spec("swagger_ui")
_ASSETS = Path(_spec.origin).parent / "static" if _spec and _spec.origin else Path()
"""Swagger UI, as the package `swagger-ui-py` ships it."""

DESCRIPTION = """
Everything that can be done with Sophon can be done here.

* **Log in**: `POST /api/session` sets a cookie; send its answer's `csrf_token` as `X-CSRF-Token` with every change.
  Programs make a token at `POST /api/tokens` and send it as `Authorization: Bearer …`. On this page: execute
  `POST /api/session`, then give its `csrf_token` to *Authorize*, `csrf`; the browser sends the cookie by itself.
* **Errors** are `application/problem+json`: a stable `type`, a sentence to act on, and the `errors` by field.
* **Lists** come in pages: pass an answer's `next` as `after`.
* **Writes** answer with `Sophon-Position`, and what you read after them knows of them.
"""


def config(cookie: str) -> OpenAPIConfig:
    """Describe the API of an installation whose sessions are in a cookie of this name."""
    return OpenAPIConfig(
        title="Sophon",
        version="0.1.0",
        description=DESCRIPTION,
        components=Components(
            security_schemes={
                "session": SecurityScheme(
                    type="apiKey", name=cookie, security_scheme_in="cookie", description="Set by `POST /api/session`."
                ),
                "csrf": SecurityScheme(
                    type="apiKey",
                    name=CSRF,
                    security_scheme_in="header",
                    description="`csrf_token` of `POST` or `GET /api/session`: with every change in a session.",
                ),
                "token": SecurityScheme(type="http", scheme="bearer", description="The `secret` of an API token."),
            }
        ),
        openapi_router=Router("/schema", route_handlers=[], opt={GUESTS: True}, include_in_schema=False),
        render_plugins=[
            SwaggerRenderPlugin(
                path="/",
                js_url="/schema/assets/swagger-ui-bundle.js",
                css_url="/schema/assets/swagger-ui.css",
                standalone_preset_js_url="/schema/assets/swagger-ui-standalone-preset.js",
                favicon="",
            )
        ],
    )


class Security(ReceiveRoutePlugin):
    """Documents of each route what it is asked with, as the guard will have it."""

    def receive_route(self, route: BaseRoute) -> None:
        """Say it of every method of a route."""
        for handler in route.route_handlers if isinstance(route, HTTPRoute) else ():
            handler.security = _security(handler)


def _security(handler: HTTPRouteHandler) -> list[dict[str, list[str]]]:
    is_safe, is_for_guests = handler.http_methods <= set(SAFE), bool(handler.opt.get(GUESTS))
    if is_for_guests and not is_safe:
        return [{}]  # a login: it is asked with nothing else
    session: dict[str, list[str]] = {"session": []} if is_safe else {"session": [], "csrf": []}
    return [session, {"token": []}, *([{}] if is_for_guests else [])]


class StrictBodies(StructSchemaPlugin):
    """Documents of a body that takes no unknown field, that it does not."""

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """Describe a Struct."""
        schema = super().to_openapi_schema(field_definition, schema_creator)
        if field_definition.type_.__struct_config__.forbid_unknown_fields:
            schema.additional_properties = False
        return schema


assets = create_static_files_router("/schema/assets", [_ASSETS], opt={GUESTS: True}, include_in_schema=False)

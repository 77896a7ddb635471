"""The API's documentation, at /schema: read from our own origin, with nobody else's scripts."""

from importlib.util import find_spec
from pathlib import Path

from litestar import Router
from litestar._openapi.schema_generation import SchemaCreator
from litestar._openapi.schema_generation.plugins.struct import StructSchemaPlugin
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, Schema, SecurityScheme
from litestar.static_files import create_static_files_router  # pyright: ignore[reportUnknownVariableType]
from litestar.typing import FieldDefinition

from app.api.auth import GUESTS

_spec = find_spec("swagger_ui")
_ASSETS = Path(_spec.origin).parent / "static" if _spec and _spec.origin else Path()
"""Swagger UI, as the package `swagger-ui-py` ships it."""

DESCRIPTION = """
Everything that can be done with Sophon can be done here.

* **Log in**: `POST /api/session` sets a cookie; send its answer's `csrf_token` as `X-CSRF-Token` with every change.
  Programs make a token at `POST /api/tokens` and send it as `Authorization: Bearer …`.
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
                "session": SecurityScheme(type="apiKey", name=cookie, security_scheme_in="cookie"),
                "token": SecurityScheme(type="http", scheme="bearer"),
            }
        ),
        security=[{"session": []}, {"token": []}, {}],
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


class StrictBodies(StructSchemaPlugin):
    """Documents of a body that takes no unknown field, that it does not."""

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """Describe a Struct."""
        schema = super().to_openapi_schema(field_definition, schema_creator)
        if field_definition.type_.__struct_config__.forbid_unknown_fields:
            schema.additional_properties = False
        return schema


assets = create_static_files_router("/schema/assets", [_ASSETS], opt={GUESTS: True}, include_in_schema=False)

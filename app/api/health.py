"""Health, for whoever restarts things, and metrics, for whoever watches them."""

from collections.abc import Callable
from typing import Any, Literal

from litestar import MediaType, Request, Response, Router, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Struct

from app.api.auth import GUESTS, SCOPE, Asker
from app.api.problems import problems
from app.domain.tokens import Scope
from app.domain.users import AdministratorsOnly
from app.identity.principal import Principal
from app.telemetry import Fault, exposition


class Health(Struct, frozen=True):
    """`ok` while requests are served as promised; `faults` says what is not: why, to those who may read the log."""

    status: Literal["ok", "degraded"]
    faults: list[str]


Faults = Callable[[], list[Fault]]
"""Tells what is not as it should be, now."""


@get("/health/live", opt={GUESTS: True}, responses=problems(403))
async def live() -> Health:
    """Tell that the process answers."""
    return Health("ok", [])


@get(
    "/health/ready",
    opt={GUESTS: True},
    responses=problems(403) | {503: ResponseSpec(Health, description="Something is away.", generate_examples=False)},
)
async def ready(request: Request[Any, Any, Any], faults: NamedDependency[Faults]) -> Response[Health]:
    """Tell whether everything is as it should be: 200, or 503 and what is not; why, to administrators and auditors."""
    principal: Principal | None = request.state.principal
    sees_why = principal is not None and principal.audits
    found = [fault.says if sees_why else f"Not as it should be: {fault.part}." for fault in faults()]
    found = list(dict.fromkeys(found))
    return Response(Health("degraded" if found else "ok", found), status_code=503 if found else 200)


@get("/metrics", opt={SCOPE: Scope.ADMIN}, media_type=MediaType.TEXT, responses=problems(403))
async def metrics(asker: NamedDependency[Asker]) -> Response[bytes]:
    """Give metrics in Prometheus' text format, to an administrator's token with the scope `admin`."""
    if not asker.principal.administrator:
        raise AdministratorsOnly
    return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


routes = Router("/", route_handlers=[live, ready, metrics], tags=["health"])

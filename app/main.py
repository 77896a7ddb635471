"""The application at the public address: every module of the API, and what their handlers are given."""

from functools import partial
from typing import Any

import psycopg
import psycopg_pool
from litestar import Litestar, Request
from litestar.di import Provide

from app.api import (
    approvals,
    audit,
    auth,
    docs,
    entrance,
    groups,
    health,
    holds,
    moments,
    notebooks,
    problems,
    projects,
    session,
    sight,
    subjects,
    tokens,
    transparency,
    users,
    visits,
)
from app.api.bodies import JsonRequest
from app.audit.retention import Retention
from app.audit.sealing.dossier import Dossiers
from app.audit.signing.published import PublishedLog, proof_of
from app.platform import Platform
from app.projections.approvals import PendingApprovals
from app.projections.groups import Groups
from app.projections.moments import Moments
from app.projections.notebooks import Notebooks
from app.projections.projects import Projects
from app.projections.timeline import Timeline
from app.projections.tokens import Tokens
from app.projections.users import Users
from app.projections.visits import Privacy, Visits

LARGEST_BODY = 64 * 1024
NOUNS = (
    session,
    tokens,
    users,
    groups,
    projects,
    notebooks,
    visits,
    audit,
    moments,
    subjects,
    approvals,
    holds,
    transparency,
    health,
    entrance,
)
"""Every module of the API. A new noun is one line here."""


def create_app(platform: Platform) -> Litestar:
    """Make the application that answers at the public address."""
    pool = platform.log.pool
    privacy = Privacy(pool)

    def given(value: object) -> Provide:
        return Provide(lambda: value, sync_to_thread=False)

    def faults() -> health.Faults:
        return platform.faults

    # Each dependency that a route names, or that another names, is resolved by a task of its own.
    async def asker(request: Request[Any, Any, Any]) -> auth.Asker:
        return auth.asker_of(request, platform.dispatch, platform.acts)

    async def sight_(request: Request[Any, Any, Any]) -> sight.Sight:
        return sight.sight_of(request, platform.acts, privacy)

    app = Litestar(
        route_handlers=[*(noun.routes for noun in NOUNS), docs.assets],
        dependencies={
            "settings": given(platform.settings),
            "identity": given(platform.identity),
            "dispatch": given(platform.dispatch),
            "projector": given(platform.projector),
            "users": given(Users(pool)),
            "tokens": given(Tokens(pool)),
            "groups": given(Groups(pool)),
            "projects": given(Projects(pool)),
            "notebooks": given(Notebooks(pool)),
            "visits": given(Visits(pool)),
            "dossiers": given(Dossiers(platform.log)),
            "retention": given(Retention(platform.log, platform.settings.retention)),
            "approvals": given(PendingApprovals(platform.log)),
            "timeline": given(Timeline(platform.log)),
            "moments": given(Moments(platform.log, partial(proof_of, platform.tree))),
            "faults": Provide(faults, sync_to_thread=False),
            "published": given(PublishedLog(platform.tree, platform.signer)),
            "context": Provide(auth.provide_context),
            "asker": Provide(asker),
            "sight": Provide(sight_),
        },
        middleware=[auth.Authentication],
        guards=[auth.guard],
        exception_handlers={
            **problems.HANDLERS,
            psycopg.OperationalError: problems.on_database_away,
            psycopg_pool.PoolTimeout: problems.on_database_away,
            psycopg.errors.ReadOnlySqlTransaction: problems.on_database_read_only,
            psycopg.errors.InsufficientPrivilege: problems.on_database_read_only,
        },
        openapi_config=docs.config(platform.identity.cookie),
        request_class=JsonRequest,
        plugins=[docs.StrictBodies(), docs.Security()],
        request_max_body_size=LARGEST_BODY,
        logging_config=None,
    )
    app.state.identity = platform.identity
    app.state.acts = platform.acts
    app.state.address = platform.settings.address
    return app

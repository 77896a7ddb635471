"""Tokens: keys for programs. A secret is shown once, when it is made."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from litestar import Response, Router, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct

from app.api.addresses import TokenInPath
from app.api.answers import at
from app.api.auth import Asker
from app.api.pages import After, Limit, Page, page_of
from app.api.problems import PENDING, POSITION, problems
from app.domain.names import Title
from app.domain.tokens import IssueToken, RevokeToken, Scope, TokenId
from app.identifiers import new_id
from app.identity.identity import Identity
from app.projections.tokens import TokenPage, Tokens

Scopes = Annotated[Sequence[Scope], Meta(min_length=1, max_length=5)]
"""The domain's tuple, in a type that Litestar documents as what it is."""


class NewToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A token to be made: what for, what it may, and for how long."""

    title: Title
    scopes: Scopes = (Scope.READ,)
    days: Annotated[float, Meta(ge=1, le=366, multiple_of=1, description="How long it lives.")] = 30
    """A whole number: in JSON, 30.0 is one too, which msgspec takes for none of its integers."""


class TokenView(Struct, frozen=True, omit_defaults=True):
    """A token. `secret` is there once: in the answer that made it."""

    token: TokenId
    title: Title
    scopes: Scopes
    expires: datetime
    created_at: datetime
    secret: str | None = None


@post("/tokens", responses=problems(403, 413, 415) | {202: PENDING}, response_headers=[POSITION])
async def issue_token(
    data: JSONBody[NewToken],
    identity: NamedDependency[Identity],
    asker: NamedDependency[Asker],
) -> Response[TokenView]:
    """Make a token for yourself; send it as `Authorization: Bearer <secret>`. Only in a session, not with a token."""
    now = datetime.now(UTC)
    command = IssueToken(
        by=asker.caller,
        in_session=asker.principal.kind == "session",
        token=new_id("tok"),
        title=data.title,
        scopes=tuple(dict.fromkeys(data.scopes)),
        expires=now + timedelta(days=data.days),
    )
    receipt = await asker.tell(command)
    # The fact first: a token that is in the log and has no secret opens nothing; one that only has a secret would.
    secret, _ = await identity.open(asker.principal.user, "token", command.token, command.scopes, command.expires)
    return at(receipt, TokenView(command.token, data.title, command.scopes, command.expires, now, secret))


@get("/tokens", responses=problems(403))
async def list_tokens(
    tokens: NamedDependency[Tokens], asker: NamedDependency[Asker], limit: Limit = 50, after: After = None
) -> Page[TokenView]:
    """List your tokens; their secrets are nowhere kept."""
    return page_of(await tokens.of(asker.principal.user, limit + 1, after), limit, lambda row: row.token, _view)


@delete("/tokens/{token:str}", status_code=204, responses=problems(403, 404))
async def revoke_token(
    token: TokenInPath,
    identity: NamedDependency[Identity],
    asker: NamedDependency[Asker],
) -> None:
    """End one of your tokens, at once and everywhere."""
    await asker.tell(RevokeToken(by=asker.caller, token=token))
    await identity.end(token)


def _view(row: TokenPage) -> TokenView:
    return TokenView(row.token, row.title, row.scopes, row.expires, row.created_at)


routes = Router("/api", route_handlers=[issue_token, list_tokens, revoke_token], tags=["tokens"])

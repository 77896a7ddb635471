"""Tokens, as their users see them; never their secrets, which nobody has."""

from datetime import datetime

from msgspec import Struct
from psycopg.sql import SQL

from app.audit.entry import Record
from app.domain.names import Title, UserId
from app.domain.tokens import Scopes, TokenId, TokenIssued, TokenRevoked
from app.projections.read_model import ReadModel


class TokenPage(Struct, frozen=True, gc=False):
    """A token that was not revoked."""

    token: TokenId
    user: UserId
    title: Title
    scopes: Scopes
    expires: datetime
    created_at: datetime
    position: int


class Tokens(ReadModel[TokenPage]):
    """Tokens that were issued and not revoked."""

    row = TokenPage
    key = "token"
    events = (TokenIssued, TokenRevoked)
    sealed = ("title",)
    indexes = ('("user", token)',)

    def evolve(self, row: TokenPage | None, event: TokenIssued | TokenRevoked, record: Record) -> TokenPage | None:
        """Return the row after the event."""
        if isinstance(event, TokenRevoked):
            return None
        return TokenPage(
            token=event.token,
            user=event.user,
            title=event.title,
            scopes=event.scopes,
            expires=event.expires,
            created_at=record.entry.at,
            position=record.position,
        )

    async def of(self, user: UserId, limit: int, after: str | None) -> list[TokenPage]:
        """List a user's tokens."""
        return await self.select(SQL('"user" = %(user)s'), {"user": user}, limit=limit, after=after)

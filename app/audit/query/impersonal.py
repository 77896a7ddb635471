"""A query as it may be kept: users by their ids. Whoever is erased is not named by what was asked about them."""

from msgspec.structs import replace

from app.audit.entry import ON_THE_SERVER
from app.audit.query.language import Query, Term, Value
from app.audit.query.meaning import Directory
from app.audit.query.words import Pattern
from app.domain.audits import NOBODY
from app.domain.names import UserId, is_a

_NAMING_USERS = ("actor", "subject", "resource")
_ACTORS = ("system", "guest")


async def without_names(query: Query, directory: Directory) -> Query:
    """Put ids in the place of user names, and `NOBODY` where nobody has that name: somebody erased may have had it."""
    return Query(tuple([await _term(term, directory) for term in query.terms]))


async def _term(term: Term, directory: Directory) -> Term:
    if term.key not in _NAMING_USERS:
        return term
    return replace(term, values=tuple([await _value(term.key, value, directory) for value in term.values]))


async def _value(key: str, value: Value, directory: Directory) -> Value:
    if not isinstance(value, Pattern) or not value.is_exact or (key == "actor" and _is_nobody(value.parts[0])):
        return value
    kind, slash, name = value.parts[0].rpartition("/")
    if kind not in ("", "user") or is_a(UserId, name):
        return value
    return Pattern((f"{kind}{slash}{await directory.user(name) or NOBODY}",))


def _is_nobody(actor: str) -> bool:
    return actor in _ACTORS or ON_THE_SERVER.fullmatch(actor) is not None

"""The log as a transparency log: what anybody may read of it (C2SP tlog-tiles), and receipts for single entries."""

from datetime import UTC, datetime
from typing import Annotated

from litestar import Response, Router, get, post
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, PathParameter, QueryParameter
from msgspec import Struct

from app.api.addresses import PositionInPath
from app.api.audit import NoSuchEntry
from app.api.auth import GUESTS, SCOPE, Asker
from app.api.problems import problems
from app.audit.signing.published import NotSignedYet, PublishedLog
from app.audit.signing.tree import NotInTree
from app.domain.audits import AuditQueried
from app.domain.errors import NotFound, Refusal
from app.domain.names import Personal
from app.domain.signing import LogKeyRotated, RotateLogKey
from app.domain.tokens import Scope
from app.domain.users import AdministratorsOnly

TEXT = "text/plain"
OCTETS = "application/octet-stream"
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
FOR_A_SECOND = {"Cache-Control": "public, max-age=1"}
LONGEST_PATH = 100


class NoSuchTile(NotFound):
    """The log has no such tile, or not yet."""


class NoCheckpointYet(NotFound):
    """Nothing of the log is signed yet."""


class NotYetSigned(Refusal):
    """The entry is recorded, and no checkpoint covers it yet; ask again in some seconds."""

    status = 503


class Rotation(Struct, frozen=True):
    """`rotated`: the keys follow once the entry about them is signed. If not, another administrator has to ask too."""

    rotated: bool
    position: int
    keys: tuple[str, ...]


def _text(what: str) -> dict[int, ResponseSpec]:
    return {200: ResponseSpec(str, description=what, media_type=TEXT, generate_examples=False)}


@get("/audit/log/checkpoint", opt={GUESTS: True}, responses=_text("A note.") | problems(403, 404))
async def checkpoint(published: NamedDependency[PublishedLog]) -> Response[bytes]:
    """Give the newest checkpoint: a signed note with origin, size and root, cosigned by enough witnesses."""
    try:
        return Response(await published.checkpoint(), media_type=TEXT, headers=FOR_A_SECOND)
    except NotInTree:
        raise NoCheckpointYet from None


@get("/audit/log/vkeys", opt={GUESTS: True}, responses=_text("Keys.") | problems(403))
async def verifier_keys(published: NamedDependency[PublishedLog]) -> Response[str]:
    """Give each verifier key on a line, with the first and the last size that it signs (`-`: it still does)."""
    return Response(published.verifier_keys(), media_type=TEXT, headers=FOR_A_SECOND)


@get("/audit/log/tile/entries/{path:path}", opt={SCOPE: Scope.AUDIT}, responses=problems(403, 404))
async def entries(
    path: FromPath[str],
    published: NamedDependency[PublishedLog],
    asker: NamedDependency[Asker],
) -> Response[bytes]:
    """Give a bundle of entries, each behind its length in two bytes."""
    _check_length(path)
    await asker.audit(AuditQueried(question="export", about=Personal(f"entries{path}")))
    return Response(await _tile(published, f"tile/entries{path}"), media_type=OCTETS)


@get("/audit/log/tile/{level:int}/{path:path}", opt={GUESTS: True}, responses=problems(403, 404))
async def hashes(
    level: Annotated[int, PathParameter(ge=0, le=63)],
    path: FromPath[str],
    published: NamedDependency[PublishedLog],
) -> Response[bytes]:
    """Give a tile of hashes, such as `/audit/log/tile/0/x001/234` or `/audit/log/tile/1/000.p/17`."""
    return Response(await _tile(published, f"tile/{level}{path}"), media_type=OCTETS, headers=FOR_EVER)


def _check_length(path: str) -> None:
    if len(path) > LONGEST_PATH:
        raise NoSuchTile


async def _tile(published: PublishedLog, path: str) -> bytes:
    _check_length(path)
    try:
        return await published.tile(path)
    except NotInTree:
        raise NoSuchTile(path) from None


@get(
    "/api/audit/entries/{position:int}/proof",
    opt={SCOPE: (Scope.READ, Scope.AUDIT)},
    responses=_text("A receipt.") | problems(403, 404),
)
async def proof(
    position: PositionInPath,
    published: NamedDependency[PublishedLog],
    asker: NamedDependency[Asker],
    entry: Annotated[bool, QueryParameter(required=False, description="Whether the entry itself is put in.")] = True,
) -> Response[bytes]:
    """Give a receipt that an entry is in the log (C2SP tlog-proof): to auditors, and to whoever did what it tells."""
    access = AuditQueried(question="proof", about=Personal(str(position)))
    try:
        if await published.was_by(position, asker.principal.user):
            await asker.note(access)
        else:
            await asker.audit(access)
        return Response(await published.receipt(position, with_entry=entry), media_type=TEXT)
    except NotInTree:
        await asker.audit(access)
        raise NoSuchEntry(str(position)) from None
    except NotSignedYet:
        raise NotYetSigned from None


@post("/api/audit/rotations", opt={SCOPE: Scope.ADMIN}, status_code=202, responses=problems(403, 409))
async def rotate(published: NamedDependency[PublishedLog], asker: NamedDependency[Asker]) -> Rotation:
    """Have new keys sign the log. Two administrators have to ask, each with a token of their own."""
    if not asker.caller.administering:
        raise AdministratorsOnly  # before any key is made
    try:
        next_ = await published.next_keys()
    except NotSignedYet:
        raise NotYetSigned from None
    command = RotateLogKey(by=asker.caller, now=datetime.now(UTC), retired=next_.retired, keys=next_.keys)
    receipt = await asker.tell(command)
    rotated = any(isinstance(event, LogKeyRotated) for event in receipt.events)
    return Rotation(rotated, receipt.position, next_.keys)


routes = Router("/", route_handlers=[checkpoint, verifier_keys, entries, hashes, proof, rotate], tags=["audit"])

"""The log's tables, and who may touch them: created and mended at every start by whoever administrates the database."""

import asyncio
import hashlib
from pathlib import Path

import psycopg
import structlog
from msgspec import Struct
from psycopg import AsyncConnection, errors
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from app.audit.database.connecting import connect
from app.audit.reading import one
from app.identifiers import base32
from app.keys import Keys

_NAMES = ("schema", "indexes", "vault", "tree", "prune", "stream", "roles")
PARTS = [Path(__file__).with_name(f"{name}.sql") for name in _NAMES]
"""What is created, in this order: each rests on those before it."""

SIGNING = "sophon_signer"
DUTIES = ("sophon_appender", "sophon_reader", "sophon_projector", SIGNING, "sophon_keeper")
"""What the application does is done by these roles; its login is a member of all of them, and of nothing else.

Of all but one, where the log is signed by a process of its own, which has a login of its own.
"""

ATTEMPTS = 20
"""Roles belong to the whole server: whoever sets up another database of it may be changing them at the same moment."""

_AT_THE_SAME_TIME = (errors.InternalError_, errors.UniqueViolation, errors.DuplicateObject, errors.DeadlockDetected)
_log = structlog.get_logger(__name__)


class SchemaMissing(Exception):
    """The log's tables are not there, or are another release's, and this user of the database may not create them."""


def release() -> str:
    """Digest what the tables are made by. It stands beside them, for those who may not make them and have to know."""
    return hashlib.sha256(b"".join(part.read_bytes() for part in PARTS if part.exists())).hexdigest()[:16]


async def prepare(dsn: str) -> None:
    """Create what is missing, if this user may; else see that it is there. Raises `SchemaMissing`.

    Where the database takes no changes now, what is there has to be this release's: then the log can be read at least.
    """
    async with await connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(
            "SELECT coalesce(pg_has_role(current_user, nspowner, 'USAGE'), true), obj_description(n.oid)"
            " FROM (SELECT) AS always LEFT JOIN pg_namespace AS n ON nspname = 'audit'"
        )
        may, made_by = await cursor.fetchone() or (True, None)
    is_ours = made_by == f"sophon {release()}"
    if may:
        try:
            await create_schema(dsn)
        except errors.ReadOnlySqlTransaction:
            if not is_ours:
                raise SchemaMissing(
                    "The database takes no changes now, and the log's tables are not there, or another release's."
                ) from None
    elif not is_ours:
        raise SchemaMissing(
            "The log's tables were made by another release of Sophon, and this database user may not change them. "
            "Start Sophon once with SOPHON_DATABASE_URL set to a user who owns the database."
        )


async def create_schema(dsn: str) -> None:
    """Create what is missing of the log's tables and roles, and give back the rights as they should be."""
    for attempt in range(ATTEMPTS):
        try:
            async with await connect(dsn) as connection:
                await connection.execute("SELECT pg_advisory_xact_lock(7305797)")
                # An append takes this one first. It would else hold what we want, and want what we hold.
                await connection.execute("SELECT pg_advisory_xact_lock(7305796)")
                for part in PARTS:
                    if part.exists():
                        await connection.execute(part.read_bytes())
                await connection.execute(SQL("COMMENT ON SCHEMA audit IS {}").format(f"sophon {release()}"))
        except _AT_THE_SAME_TIME:
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(0.05 * (attempt + 1))
        else:
            return


class Login(Struct, frozen=True):
    """A login of an installation's own, the duties that it has, and what shows that it is let in."""

    name: str
    password: str
    duties: tuple[str, ...]
    may: str

    def dsn(self, dsn: str) -> str:
        """Give the DSN by which it gets into a database."""
        return make_conninfo(dsn, user=self.name, password=self.password)


def login_name(keys: Keys) -> str:
    """Name the role that an installation's application logs in as: others on the same server have others."""
    return f"sophon_app_{base32(keys.derive('database', ''))[:8]}"


async def application(dsn: str, keys: Keys, *, signs: bool = True) -> str:
    """Give the DSN of the application's own login, which can append and change nothing; make it where it is missing.

    Where it cannot be made, or the server does not let it in, the DSN that was given: then nothing but the application
    itself keeps the log from being changed, and `sophon state doctor` says so. `signs`: whether it signs the log too.
    """
    return await _made(dsn, _application(keys, DUTIES if signs else tuple(one for one in DUTIES if one != SIGNING)))


async def signing_login(dsn: str, keys: Keys) -> str:
    """Give the DSN of the signer's own login, which reads the log and publishes checkpoints, as `application` does."""
    name = f"sophon_sig_{base32(keys.derive('database', ''))[:8]}"
    may = (
        "SELECT has_schema_privilege('audit', 'USAGE') AND has_table_privilege('audit.checkpoints', 'INSERT')"
        " AND has_table_privilege('audit.signer', 'INSERT')"
    )
    return await _made(dsn, Login(name, keys.derive("database", "signer").hex(), (SIGNING,), may))


async def _made(dsn: str, login: Login) -> str:
    own = login.dsn(dsn)
    async with await connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute("SELECT current_user")
        if one(await cursor.fetchone()) == login.name:
            return dsn
        for attempt in range(ATTEMPTS):
            try:
                await _admit(connection, login, own)
            except _AT_THE_SAME_TIME:
                await asyncio.sleep(0.05 * (attempt + 1))
            except errors.ReadOnlySqlTransaction:
                break  # as it was made by an earlier start, if it was
            except (errors.InsufficientPrivilege, errors.UndefinedObject) as error:
                _log.warning("database.no_role_of_our_own", error=str(error).strip())
                return dsn
            else:
                break
    if not await _lets_in(own, login.may):
        _log.warning("database.own_role_is_not_let_in", role=login.name)
        return dsn
    return own


async def current_login(dsn: str, keys: Keys) -> str:
    """Give the DSN that the application uses as things are, and change nothing."""
    login = _application(keys, DUTIES)
    own = login.dsn(dsn)
    return own if await _lets_in(own, login.may) else dsn


def _application(keys: Keys, duties: tuple[str, ...]) -> Login:
    may = (
        "SELECT bool_and(has_schema_privilege(pronamespace, 'USAGE') AND has_function_privilege(oid, 'EXECUTE'))"
        " FROM pg_proc WHERE proname = 'append' AND pronamespace = to_regnamespace('audit')"
    )
    return Login(login_name(keys), keys.derive("database", "password").hex(), duties, may)


async def _admit(connection: AsyncConnection, login: Login, own: str) -> None:
    """See that the login exists, has no rights but those of its duties, and can log in."""
    name = login.name
    cursor = await connection.execute(
        "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls FROM pg_roles"
        " WHERE rolname = %s",
        (name,),
    )
    row = await cursor.fetchone()
    if row is None:
        await connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)))
    elif row[0]:
        await connection.execute(
            SQL("ALTER ROLE {} NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS").format(Identifier(name))
        )
    cursor = await connection.execute(
        "SELECT r.rolname FROM pg_roles AS r WHERE rolname = ANY(%s) AND NOT EXISTS (SELECT FROM pg_auth_members"
        " WHERE roleid = r.oid AND member = %s::regrole)",
        (list(login.duties), name),
    )
    for (duty,) in await cursor.fetchall():
        await connection.execute(SQL("GRANT {} TO {}").format(Identifier(duty), Identifier(name)))
    cursor = await connection.execute(
        "SELECT r.rolname FROM pg_roles AS r JOIN pg_auth_members ON roleid = r.oid"
        " WHERE rolname = ANY(%s) AND member = %s::regrole",
        ([duty for duty in DUTIES if duty not in login.duties], name),
    )
    for (duty,) in await cursor.fetchall():
        await connection.execute(SQL("REVOKE {} FROM {}").format(Identifier(duty), Identifier(name)))
    await connection.execute(
        SQL("GRANT CONNECT ON DATABASE {} TO {}").format(Identifier(connection.info.dbname), Identifier(name))
    )
    if row is None or not await _lets_in(own, login.may):
        # Hashed here: what is sent may be logged.
        hashed = connection.pgconn.encrypt_password(login.password.encode(), name.encode(), b"scram-sha-256").decode()
        await connection.execute(SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(Identifier(name), Literal(hashed)))


async def _lets_in(dsn: str, may: str) -> bool:
    """Whether a login gets in, and may do what it is for."""
    try:
        async with await connect(dsn, connect_timeout=5) as connection:
            cursor = await connection.execute(may.encode())
            return bool(one(await cursor.fetchone()))
    except psycopg.OperationalError:
        return False

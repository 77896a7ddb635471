"""Question 3 of the auditor's: what is killed at any statement leaves an entry and its effect, or neither."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg import AsyncConnection

from app.audit.database.provision import application, prepare
from app.audit.entry import Context, Record
from app.audit.log import Log
from app.audit.sealing.vault import Vault
from app.dispatch import Dispatch
from app.domain.approvals import ApprovalRequested
from app.domain.command import Caller
from app.domain.erasure import EraseSubject
from app.domain.notebooks import NotebookCreated
from app.domain.subjects import SubjectErased
from app.projections.differences import find_differences
from tests.domain.cast import APOLLO, LAB, account, an_id, apollo
from tests.dying import SEALER, Dying, dying
from tests.projections.test_read_models import projecting
from tests.questions.platform import KEYS

FIRST = an_id("usr", 9)
"""The administrator who wants the erasures first."""

Begin = Callable[[Log], Awaitable[object]]


@pytest.fixture
async def mortal(dsn: str) -> AsyncIterator[Dying]:
    """What may be killed, with the rights that it has in earnest; the log has a project and a second administrator."""
    await prepare(dsn)
    own = await application(dsn, KEYS)
    async with Log.open(own, SEALER) as log:
        await log.append([Context().draft(one) for one in (*apollo, account(FIRST, "first", administrator=True))])
        await projected(log)
    async with dying(own) as mortal:
        yield mortal


async def projected(log: Log) -> None:
    async with projecting(log) as projector:
        assert await projector.reach(log.head), projector.failure


async def something_new(log: Log) -> None:
    """Let something happen to several read models that nobody has applied yet."""
    number = log.head
    created = NotebookCreated(notebook=f"n-{number}", project=APOLLO, group=LAB, title=f"No. {number}")
    await log.append([Context().draft(one) for one in (created, account(an_id("usr", number), f"user {number}"))])


async def somebody_to_erase(log: Log) -> None:
    """Make an account with a password, whose erasure a first administrator wants."""
    user = an_id("usr", log.head)
    await log.append([Context().draft(account(user, f"name {log.head}"))])
    await Vault(log.pool).set_password(user, "a hash")
    command = EraseSubject(by=Caller(FIRST, administering=True), now=datetime.now(UTC), subject=f"user:{user}")
    await Dispatch(log)(command, Context())
    await projected(log)


async def nothing(_: Log) -> None: ...


@pytest.mark.parametrize(
    ("scene", "begin", "fewest"),
    [("append", nothing, 5), ("project", something_new, 10), ("erase", somebody_to_erase, 25)],
)
async def test_question_3_entry_and_effect_commit_together_kill_9_between_any_two_statements(
    scene: str, begin: Begin, fewest: int, mortal: Dying
) -> None:
    killed = 0
    while True:
        async with Log.open(mortal.dsn, SEALER) as log:
            await must_be_consistent(log)
            await projected(log)
            await begin(log)
        if not await mortal.dies(scene, killed + 1):
            break
        killed += 1
    assert killed >= fewest, "it is not killed where it should be"
    async with Log.open(mortal.dsn, SEALER) as log:
        await must_be_consistent(log)


async def must_be_consistent(log: Log) -> None:
    """See that entries have their effects, and that the read models are what the log says where their bookmark is."""
    records = (await log.read()).records
    assert [record.position for record in records] == list(range(1, log.head + 1))
    await must_be_in_the_vault(log, records)
    compared = await find_differences(log)
    unknown = {
        record.event.subject for record in records[compared.position :] if isinstance(record.event, SubjectErased)
    }
    assert [row for row in compared.rows if f"user:{row.key}" not in unknown] == []


async def must_be_in_the_vault(log: Log, records: Sequence[Record]) -> None:
    """What was erased has no key, no value and no password there; everything else that was sealed is all there."""
    erased = {record.event.subject for record in records if isinstance(record.event, SubjectErased)}
    wanted = {record.event.about for record in records if isinstance(record.event, ApprovalRequested)}
    assert len(erased) == [record.entry.type for record in records].count("ApprovalGiven")
    async with log.pool.connection() as connection:
        kept = dict(await asked(connection, "digest, subject", "disclosures"))
        readable = await log.open_digests(connection, list(kept))
        keys = {subject for (subject,) in await asked(connection, "subject", "subject_keys")}
        passwords = {f"user:{user}" for (user,) in await asked(connection, "user_id", "passwords")}
        gone = {subject for (subject,) in await asked(connection, "subject", "erased")}
    assert {digest for record in records for digest in record.digests} == kept.keys()
    assert readable.keys() == {digest for digest, subject in kept.items() if subject not in erased}
    assert keys == set(kept.values()) - erased
    assert passwords == wanted - erased
    assert gone == erased


async def asked(connection: AsyncConnection, columns: str, table: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(f"SELECT {columns} FROM vault.{table}".encode())).fetchall()

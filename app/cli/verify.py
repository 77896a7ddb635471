"""`sophon audit verify`: whether the log, an export of it, or a replica is whole; and where it is not."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rich_click as click

from app.audit.database.provision import SchemaMissing, current_login
from app.audit.evidence.exported import open_exported, verify_exported
from app.audit.evidence.findings import Tampered, keep_evidence
from app.audit.evidence.plain import read, read_text
from app.audit.evidence.replica import compare
from app.audit.evidence.stamps import Stamped, judge
from app.audit.evidence.trust import Trust, Unverifiable, read_keys, trust_of
from app.audit.evidence.verify import connected, verify_log
from app.audit.evidence.walk import Whole
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.audit.signing.tokens import Authorities, NoAuthority
from app.audit.transparency.notes import MAX_NOTE, NoteRejected
from app.audit.transparency.policies import Peer, Policy, PolicyMalformed, QuorumMissed, parse_policy
from app.audit.transparency.strict import Rejected
from app.cli.asker import context_of, note
from app.cli.groups import audit
from app.cli.rebuilding import opened, progressing
from app.cli.work import COULD_NOT, POLICY, TAMPERED, CannotDo, console, counted, run
from app.domain.audits import AuditQueried
from app.installation import administered, has_secret, keys_of
from app.postgres import DATABASE_ERRORS
from app.projections.differences import NothingToCompare, find_differences
from app.settings import Settings

_PATH: Any = click.Path(path_type=Path)


@audit.command("verify")
@click.option("--since", type=_PATH, multiple=True, metavar="CHECKPOINT", help="A checkpoint that you saved before.")
@click.option("--export", "export", type=_PATH, metavar="DIR", help="An exported directory, and no database.")
@click.option("--vkeys", type=_PATH, metavar="FILE", help="The log's verifier keys, in place of the signer's own.")
@click.option(
    "--timestamp-root", type=_PATH, metavar="FILE", help="Certificates (PEM) of the timestamp authorities you believe."
)
@click.option("--against", metavar="DSN", help="A replica, to be compared entry by entry.")
@click.option("--state", is_flag=True, help="Replay the log too, and compare the read models.")
@click.option(
    "--max-age",
    type=click.IntRange(min=1),
    default=3600,
    metavar="SECONDS",
    show_default=True,
    help="How long entries may wait to be signed.",
)
@click.option("--evidence", type=_PATH, default=Path(), metavar="DIR", help="Where a file of evidence is written.")
def audit_verify(
    since: tuple[Path, ...],
    export: Path | None,
    vkeys: Path | None,
    timestamp_root: Path | None,
    against: str | None,
    state: bool,
    max_age: int,
    evidence: Path,
) -> None:
    """Hash every entry anew, and compare with every root that was signed.

    Timestamps that stand in the log have to be of it; who signed them is judged by --timestamp-root.

    Exit code: 0 whole, 1 tampered with (where is told, and written into a file), 2 could not be checked, 3 whole, but
    too few witnesses have cosigned, or entries have not been signed for longer than --max-age.
    """
    if export and (against or state):
        raise click.UsageError("--export is verified by itself: without --against and --state.")

    async def verify(settings: Settings) -> None:
        saved = [read(path, MAX_NOTE) for path in since]
        trust = read_keys(read_text(vkeys)) if vkeys else trust_of(settings.signer_directory)
        authorities = _authorities(timestamp_root or settings.timestamp_root)
        if export:
            _verify_export(export, trust, saved, settings, authorities)
        else:
            await _verify_database(settings, trust, saved, against, max_age, authorities)
            if state:
                await _verify_state(settings)

    run(lambda settings: judged(lambda: verify(settings), evidence))


async def judged(work: Callable[[], Awaitable[None]], evidence: Path) -> None:
    """Do the work; tell what was found in a sentence and a file, and exit with the code for it."""
    try:
        await work()
    except Tampered as error:
        finding = error.finding
        console.print(f"[bold red]TAMPERED[/] {finding.kind}", highlight=False)
        where = str(finding.first) if finding.first == finding.last else f"{finding.first}-{finding.last}"
        click.echo(f"position: {where}\nexpected: {finding.expected or '-'}\nfound: {finding.found or '-'}")
        try:
            click.echo(f"evidence: {keep_evidence(finding, evidence)}")
        except OSError as reason:
            console.print(f"The evidence could not be written: {reason}", highlight=False, markup=False)
        console.print(finding.says, highlight=False, markup=False)
        sys.exit(TAMPERED)
    except NoteRejected as error:
        raise CannotDo(f"A checkpoint that was given cannot be believed: {error}", TAMPERED) from error
    except (Unverifiable, Rejected) as error:
        raise CannotDo(str(error), COULD_NOT) from error


def must_be_known(trust: Trust | None, settings: Settings) -> Trust:
    """Give the keys; raises `Unverifiable` if there are none."""
    if trust is None:
        raise Unverifiable(
            f"There are no keys in {settings.signer_directory}: put those by which the log is signed, as "
            f"/audit/log/vkeys gives them, into {settings.signer_directory / 'vkeys'}, or verify with --vkeys FILE."
        )
    return trust


def _authorities(path: Path | None) -> Authorities | None:
    try:
        return Authorities.by(path) if path else None
    except NoAuthority as error:
        raise Unverifiable(str(error)) from error


def _verify_export(
    directory: Path,
    trust: Trust | None,
    saved: Sequence[bytes],
    settings: Settings,
    authorities: Authorities | None,
) -> None:
    if trust is None:
        console.print(
            "The keys are those of the export itself: it is shown to be of one piece, and not who made it. Compare its "
            "vkeys with what you were given, or name that: --vkeys FILE."
        )
    exported = open_exported(directory, trust)
    with progressing("verifying", exported.checkpoint.size) as progress:
        whole = verify_exported(exported, saved, progress)
    stamped = judge(whole.stamps, exported.trust.origin, authorities)
    click.echo(f"whole: {whole.entries} entries of {exported.trust.origin}, root {whole.root.hex()}")
    _tell_time(stamped, authorities)
    see_to_policy(settings, exported.trust, exported.note)


async def _verify_database(
    settings: Settings,
    trust: Trust | None,
    saved: Sequence[bytes],
    against: str | None,
    max_age: int,
    authorities: Authorities | None,
) -> None:
    known = must_be_known(trust, settings)
    async with administered(settings, console.print) as dsn, connected(dsn) as connection:
        with progressing("verifying", 0) as progress:
            whole = await verify_log(connection, known, saved, progress)
        stamped = judge(whole.stamps, known.origin, authorities)
        click.echo(f"whole: {whole.entries} entries of {known.origin}, root {whole.root.hex()}")
        if whole.pruned:
            console.print(
                f"{counted(whole.pruned, 'entry', 'entries')} pruned, as the log says; their hashes are kept."
            )
        if against:
            async with connected(against, "The replica") as replica:
                with progressing("comparing", whole.entries) as progress:
                    common = await compare(connection, replica, progress)
            click.echo(f"the replica has the same {common} entries; it is {whole.entries - common} behind")
        await _record(settings, dsn)
    signed = counted(whole.checkpoints, "checkpoint is", "checkpoints are")
    after = counted(whole.unsigned, "entry comes", "entries come")
    console.print(f"{signed} signed; {after} after the newest.")
    _tell_time(stamped, authorities)
    if whole.newest is None:
        if whole.entries:
            raise Unverifiable("Nothing of this log is signed yet, so nothing is proven.")
        return
    see_to_policy(settings, known, whole.newest.note)
    _see_to_age(whole, max_age)


async def _record(settings: Settings, dsn: str) -> None:
    """Record that the log was verified, once it is found whole: to one that is not, nothing must be appended."""
    if not has_secret(settings):
        console.print("That it was verified is not recorded: the installation's secret is not here.")
        return
    keys = keys_of(settings)
    try:
        async with Log.open(await current_login(dsn, keys), Sealer(keys.vault_key())) as log:
            await note(log, await context_of(log, settings), AuditQueried(question="verify"))
    except (*DATABASE_ERRORS, SchemaMissing) as error:
        console.print(
            f"That it was verified could not be recorded: {str(error).strip()}", highlight=False, markup=False
        )


def _tell_time(stamped: Sequence[Stamped], authorities: Authorities | None) -> None:
    if not stamped:
        return
    size, token = stamped[-1].size, stamped[-1].token
    console.print(
        f"Timestamps: {len(stamped):,}. By the newest, the first {size:,} entries were there at "
        f"{token.at:%Y-%m-%dT%H:%M:%SZ}, as {token.authority} says.",
        markup=False,
        highlight=False,
    )
    if authorities is None:
        console.print("Who signed them is not judged: name the authorities that you believe, --timestamp-root FILE.")


async def _verify_state(settings: Settings) -> None:
    async with opened(settings) as log:
        await note(log, await context_of(log, settings), AuditQueried(question="read-models"))
        try:
            with progressing("replaying", log.head) as progress:
                compared = await find_differences(log, progress)
        except NothingToCompare:
            raise Unverifiable(NothingToCompare.__doc__ or "") from None
    for row in compared.rows:
        click.echo(f"{row.table}\t{row.key}")
    if compared.count:
        rows = counted(compared.count, "row of the read models is", "rows of the read models are")
        raise CannotDo(f"{rows} not what the log says: state diff.", TAMPERED)
    console.print(f"Every row of the read models is what the log says, as of position {compared.position:,}.")


def see_to_policy(settings: Settings, trust: Trust, note: bytes) -> None:
    """See that enough witnesses have cosigned a checkpoint, if there is a policy; raises `CannotDo`, `Unverifiable`."""
    if settings.witness_policy is None:
        return
    try:
        policy = parse_policy(read(settings.witness_policy))
        known = {log.verifier for log in policy.logs}
        if known and not known & set(trust.verifiers):
            raise Unverifiable(f"The policy {settings.witness_policy} is for another log.")
        checked = _with_logs(policy, trust).check(note)
    except QuorumMissed as error:
        raise CannotDo(str(error), POLICY) from error
    except (PolicyMalformed, NoteRejected) as error:
        raise Unverifiable(f"The witnesses cannot be judged: {error}") from error
    console.print(f"Cosigned by {', '.join(checked.witnesses) or 'nobody, which is enough for the policy'}.")


def _with_logs(policy: Policy, trust: Trust) -> Policy:
    """Give the policy for this log, whatever keys it has been signed with."""
    return Policy(tuple(map(Peer, trust.verifiers)), policy.witnesses, policy.groups, policy.quorum)


def _see_to_age(whole: Whole, max_age: int) -> None:
    if whole.unsigned_since is None:
        return
    age = datetime.now(UTC) - whole.unsigned_since
    if age > timedelta(seconds=max_age):
        unsigned = counted(whole.unsigned, "entry is", "entries are")
        raise CannotDo(f"{unsigned} not signed, the first of them for {age}.", POLICY)

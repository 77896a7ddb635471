"""`sophon audit prove` and `check-proof`: a receipt for one entry, and its check without the log."""

# pyright: reportUnknownMemberType=false

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import rich_click as click

from app.audit.evidence.trust import parse_term, trust_of
from app.audit.pruned import is_tombstone
from app.audit.signing.published import NotSignedYet, receipt
from app.audit.signing.signer import AT_LEAST_EVERY
from app.audit.signing.tree import NotInTree, Tree
from app.audit.transparency.checkpoints import parse_checkpoint
from app.audit.transparency.keys import LOG_KINDS
from app.audit.transparency.notes import NoteRejected, parse_note
from app.audit.transparency.policies import Checked, Peer, Policy, QuorumMissed, parse_policy
from app.audit.transparency.proofs import Receipt, parse_receipt
from app.audit.transparency.strict import Malformed
from app.audit.transparency.tree import ProofFailed, leaf_hash
from app.cli.asker import note_question
from app.cli.groups import audit
from app.cli.rebuilding import opened
from app.cli.work import COULD_NOT, POLICY, TAMPERED, CannotDo, console, run
from app.settings import Settings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@audit.command("prove")
@click.argument("position", type=click.IntRange(1, 2**53))
@click.option("--bare", is_flag=True, help="Without the entry itself, of which nothing can then be read.")
def audit_prove(position: int, bare: bool) -> None:
    """Print a receipt (C2SP tlog-proof) that the entry at POSITION is in the log: sophon audit prove 7 > 7.tlog-proof.

    Whoever has it, and the log's verifier key, can check it without the log and without us.
    """
    run(lambda settings: _prove(settings, position, bare))


async def _prove(settings: Settings, position: int, bare: bool) -> None:
    async with opened(settings) as log:
        await note_question(log, settings, "proof", str(position))
        tree = Tree(log.pool)
        try:
            entry = await tree.entry(position)
            octets = await receipt(tree, position, None if bare else entry, AT_LEAST_EVERY + 2)
        except NotInTree:
            raise CannotDo(f"There is no entry {position}, or the tiles over it are missing.") from None
        except NotSignedYet:
            raise CannotDo("No checkpoint covers this entry: is Sophon running, and do its witnesses answer?") from None
    click.echo(octets, nl=False)
    if is_tombstone(entry):
        console.print(f"Entry {position} was pruned: the receipt is for what it was, which is in an export.")
        return
    if trust := trust_of(settings.signer_directory):
        proof = parse_receipt(octets)
        policy = parse_policy(settings.witness_policy.read_bytes()) if settings.witness_policy else Policy()
        logs = tuple(map(Peer, trust.verifiers))
        _say(proof, proof.check(leaf_hash(entry), replace(policy, logs=logs, quorum="none")))


@audit.command("check-proof")
@click.argument("file", type=FILE)
@click.option(
    "--vkey",
    "keys",
    multiple=True,
    help="A verifier key (a line of /audit/log/vkeys), of the log or a witness; repeatable.",
)
@click.option("--policy", type=FILE, help="A C2SP tlog-policy file, instead of keys.")
@click.option("--entry", type=FILE, help="The entry, where the receipt does not hold it.")
def audit_check_proof(file: Path, keys: Sequence[str], policy: Path | None, entry: Path | None) -> None:
    """Check the receipt in FILE, and print the entry that it is for. Needs neither the log nor a database.

    Exits with 0 if it is good, 1 if it is not, 2 if that cannot be found out, 3 if too few witnesses have cosigned.
    """

    async def check(_: Settings) -> None:
        _check(file, keys, policy, entry)

    run(check)


def _check(file: Path, keys: Sequence[str], policy_file: Path | None, entry_file: Path | None) -> None:
    try:
        proof = parse_receipt(file.read_bytes())
        policy = parse_policy(policy_file.read_bytes()) if policy_file else _policy(proof, keys)
        known = {(peer.verifier.name, peer.verifier.id) for peer in policy.logs}
        if not any((line.name, line.id) in known for line in parse_note(proof.checkpoint).lines):
            raise CannotDo("The receipt is not signed by any of these keys of the log: they are the wrong ones.")
        entry = entry_file.read_bytes().rstrip(b"\n") if entry_file else proof.extra
        if entry is None:
            raise CannotDo("The receipt does not hold the entry: give it with --entry FILE.")
        checked = proof.check(leaf_hash(entry), policy)
    except Malformed as why:
        raise CannotDo(str(why), COULD_NOT) from why
    except QuorumMissed as why:
        raise CannotDo(str(why), POLICY) from why
    except (NoteRejected, ProofFailed) as why:
        raise CannotDo(str(why), TAMPERED) from why
    _say(proof, checked)
    click.echo(entry)


def _policy(proof: Receipt, keys: Sequence[str]) -> Policy:
    """Believe these keys: those of the kinds that a log signs with are the log's, cosigners' are their own."""
    if not keys:
        raise CannotDo(
            "Whose signature has it to have? Give --vkey KEY (/audit/log/vkeys lists them) or --policy FILE."
        )
    terms = [parse_term(key) for key in keys]
    size = parse_checkpoint(parse_note(proof.checkpoint).text).size
    verifiers = [term.verifier for term in terms if term.since <= size and (term.until is None or size <= term.until)]
    if not verifiers:
        raise NoteRejected(f"None of these keys signs a checkpoint of {size} entries.")
    logs = tuple(Peer(key) for key in verifiers if key.kind in LOG_KINDS)
    witnesses = {key.name: Peer(key) for key in verifiers if key.kind not in LOG_KINDS}
    return Policy(logs, witnesses)


def _say(proof: Receipt, checked: Checked) -> None:
    head = checked.checkpoint
    console.print(f"Entry {proof.index + 1} of {head.origin}, in its tree of {head.size} entries.", highlight=False)
    for name, at in checked.witnesses.items():
        seen = datetime.fromtimestamp(at, UTC)
        console.print(f"It was there at {seen:%Y-%m-%dT%H:%M:%SZ}, says the witness {name}.", highlight=False)

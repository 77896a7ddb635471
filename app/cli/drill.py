"""`sophon state drill`: whether the log could be recovered, found out on a copy of it."""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

import tempfile
from pathlib import Path

import rich_click as click
from rich.table import Column, Table

from app.audit.evidence.drill import DrillFailed, State, Step, drill
from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.cli.groups import state
from app.cli.verify import judged
from app.cli.work import TAMPERED, CannotDo, console, run
from app.installation import administered, keys_of
from app.postgres import embedded
from app.projections.differences import scratch
from app.projections.replay import Replay
from app.projections.seals import VERIFY, Checking
from app.settings import Settings


@state.command("drill")
@click.option(
    "--evidence", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Where evidence is written."
)
def state_drill(evidence: Path) -> None:
    """Lose the log and recover it, in a cluster to throw away: the present one is only read.

    It is copied, dumped, exported, destroyed, restored from the older dump, and recovered from the export; then its
    root and the state that is folded from it have to be the same. Exit code: 0, 1 it was not, 2 could not be tried.
    """
    run(lambda settings: judged(lambda: _drill(settings), evidence))


async def _drill(settings: Settings) -> None:
    result = Column("result", overflow="fold")  # a root is read whole
    table = Table("step", "seconds", result, title="Recovery drill", title_justify="left")

    def tell(step: Step) -> None:
        console.print(f"{step.what} …", highlight=False)
        table.add_row(step.what, f"{step.seconds:.1f}", step.result)

    async def rebuild(dsn: str) -> State:
        return await state_of(settings, dsn)

    with tempfile.TemporaryDirectory(prefix="sophon-drill-") as made:
        directory = Path(made)
        directory.chmod(0o755)  # PostgreSQL may run as another user
        async with administered(settings, console.print) as dsn:
            try:
                await drill(dsn, directory, embedded, rebuild, tell)
            except DrillFailed as error:
                raise CannotDo(f"The drill failed: {error}", TAMPERED) from error
    click.echo("The log came out of it as it went in.")
    console.print(table, soft_wrap=False)


async def state_of(settings: Settings, dsn: str) -> State:
    """Fold the log of a database into read models to throw away; hold them to each seal in it, and digest them."""
    async with (
        Log.open(dsn, Sealer(keys_of(settings).vault_key())) as log,
        scratch(log, VERIFY) as (generation, connection),
    ):
        replay = Replay(log, generation, connection)
        await replay.begin(anew=True)
        checking = Checking(log, replay, connection)
        checked, digests = await checking.go_on(), await checking.at_the_end()
    broken = (f"{one.table} as of {one.position}: {one.expected}, now {one.found}" for one in checked.mismatches)
    return State(tuple(digests), checked.compared - len(checked.mismatches), tuple(broken))

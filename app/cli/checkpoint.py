"""`sophon audit checkpoint`: the newest signed head of the log, to be kept elsewhere."""

# pyright: reportUnknownMemberType=false

from pathlib import Path

import rich_click as click

from app.audit.signing.store import write
from app.audit.signing.tree import Tree
from app.cli.groups import audit
from app.cli.rebuilding import opened
from app.cli.work import CannotDo, console, run
from app.settings import Settings


@audit.command("checkpoint")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file as well.")
def audit_checkpoint(save: Path | None) -> None:
    """Print the newest checkpoint: signed by the log and, with a policy, by its witnesses.

    Keep one where nobody who administrates this machine can reach it: "sophon audit verify --since FILE" then finds
    out if anything before it was changed, even by somebody who has stolen the log's key.
    """
    run(lambda settings: _checkpoint(settings, save))


async def _checkpoint(settings: Settings, save: Path | None) -> None:
    async with opened(settings) as log:
        newest = await Tree(log.pool).newest()
    if newest is None:
        raise CannotDo("Nothing is signed yet: that happens some seconds after the first start.")
    if save is not None:
        write(save, newest.note)
        console.print(f"The checkpoint of {newest.size:,} entries is in {save}.", highlight=False)
    click.echo(newest.note, nl=False)

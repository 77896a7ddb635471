"""`sophon state rebuild`, `drop-old`, `seal` and `verify`: state made anew from the log, and held to what it was."""

import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

import rich_click as click
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from app.audit.log import Log
from app.audit.sealing.sealer import Sealer
from app.audit.writer import LogUnavailable
from app.cli.asker import context_of, note
from app.cli.groups import state
from app.cli.work import COULD_NOT, TAMPERED, CannotDo, console, counted, run
from app.domain.audits import AuditQueried
from app.domain.names import Personal
from app.installation import database, keys_of
from app.projections.differences import NothingToCompare
from app.projections.generation import MODELS
from app.projections.rebuild import Rebuilt, drop_old, rebuild, rebuild_to
from app.projections.seals import Checked, seal_generation, verify_seals
from app.settings import Settings

TABLES = {model.table(): model for model in MODELS}


@state.command("rebuild")
@click.argument("name", required=False, type=click.Choice(list(TABLES)))  # pyright: ignore[reportUnknownMemberType]
@click.option("--to", type=click.IntRange(min=1), metavar="POS", help="Up to a position, into a schema to look into.")  # pyright: ignore[reportUnknownMemberType]
@click.option("--keep-old/--drop-old", default=True, help="Whether what was live before is kept, until drop-old.")  # pyright: ignore[reportUnknownMemberType]
@click.option("--check-seals", is_flag=True, help="Begin anew, and compare with every state seal on the way.")  # pyright: ignore[reportUnknownMemberType]
def state_rebuild(name: str | None, to: int | None, keep_old: bool, check_seals: bool) -> None:
    """Build every read model, or only NAME, anew from the log, beside the live ones, and swap them in.

    The API goes on serving. If it is interrupted, the next one goes on from where it was. What had been different
    before is told, and makes the exit code 1; so does a seal that is not met. 2 says that no seal could be compared.
    What is rebuilt goes live all the same.
    """
    if to and check_seals:
        raise click.UsageError("--to checks no seals: `sophon state verify` does.")
    ending(lambda settings: _rebuild(settings, name, to, keep_old=keep_old, check_seals=check_seals))


@state.command("drop-old")
def state_drop_old() -> None:
    """Drop what earlier rebuilds kept: the generation before, and those of --to."""

    async def drop(settings: Settings) -> None:
        async with opened(settings) as log:
            names = await drop_old(log)
        console.print(f"Dropped {', '.join(names)}." if names else "Nothing was kept.")

    run(drop)


@state.command("seal")
def state_seal() -> None:
    """Record a digest of every read model, to which later releases can be held."""

    async def seal(settings: Settings) -> None:
        async with opened(settings) as log, log.pool.connection() as connection:
            position = await seal_generation(log, connection, await context_of(log, settings))
        if position is None:
            raise CannotDo(NothingToCompare.__doc__ or "")
        console.print(f"The state as of position {position:,} is sealed.")

    run(seal)


@state.command("verify")
def state_verify() -> None:
    """Replay the log from its beginning, and compare with every state seal on the way.

    Exit code: 0 the same, 1 not, 2 there is no seal to compare with.
    """

    async def verify(settings: Settings) -> int:
        async with opened(settings) as log:
            await note(log, await context_of(log, settings), AuditQueried(question="seals"))
            with progressing("replaying", log.head) as progress:
                checked = await verify_seals(log, progress)
        if not checked.seals:
            raise CannotDo("No state seal is in the log, so there is nothing to compare with: `sophon state seal`.")
        return tell_checked(checked)

    ending(verify)


async def _rebuild(settings: Settings, name: str | None, to: int | None, *, keep_old: bool, check_seals: bool) -> int:
    only = TABLES[name] if name else None
    async with opened(settings) as log:
        context = await context_of(log, settings)
        if to is not None:
            if to > log.head:
                raise CannotDo(f"The log ends at position {log.head}.")
            await note(log, context, AuditQueried(question="state", about=Personal(f"everything {to}")))
            with progressing("folding", to) as progress:
                schema = await rebuild_to(log, to, progress, only=only)
            click.echo(schema)
            console.print("It is there until `sophon state drop-old`.")
            return 0
        with progressing("rebuilding", log.head) as progress:
            try:
                done = await rebuild(
                    log, progress, only=only, keep_old=keep_old, check_seals=check_seals, context=context
                )
            except NothingToCompare:
                raise CannotDo("One table cannot be rebuilt where there are no others: rebuild all.") from None
    return _tell_rebuilt(done, name)


def _tell_rebuilt(done: Rebuilt, name: str | None) -> int:
    if done.began_at:
        console.print(f"An interrupted rebuild was gone on with from position {done.began_at:,}.")
    what = f"The read model {name}" if name else "Every read model"
    console.print(
        f"{what} was rebuilt from {counted(done.position, 'entry', 'entries')}, {done.entries:,} of them now."
    )
    if not done.compared:
        console.print("There was nothing of the same shape to compare with.")
    for table, count in done.counts.items():
        if count:
            click.echo(f"{table}: {count} rows had been different")
    for row in done.rows:
        click.echo(f"{row.table} {row.key}")
    code = tell_checked(done.checked) if done.checked else 0
    return TAMPERED if done.differences else code


def tell_checked(checked: Checked) -> int:
    """Tell how a replay compares with the seals; give the exit code. What was held to nothing is not the same."""
    for one in checked.mismatches:
        click.echo(f"{one.table} {one.version} as of position {one.position}: sealed {one.expected}, found {one.found}")
    for table in checked.not_compared:
        console.print(f"{table} was sealed by another release, and is not what this one has: not compared.")
    if not checked.compared:
        console.print(
            f"Nothing could be compared: none of the {checked.seals} seals in the log has a table that this release "
            "has. `sophon state seal` makes one that has."
        )
        return COULD_NOT
    seals = counted(checked.seals, "seal", "seals")
    console.print(f"Replayed to position {checked.position:,} past {seals}: ", end="")
    console.print("[bold red]NOT the same state.[/]" if checked.mismatches else "the same state.")
    return TAMPERED if checked.mismatches else 0


@contextlib.asynccontextmanager
async def opened(settings: Settings, *, anew: bool = False) -> AsyncGenerator[Log]:
    """Open the installation's log; `anew`: an empty one, where there is none."""
    sealer = Sealer(keys_of(settings, anew=anew).vault_key())
    async with database(settings, console.print, anew=anew) as dsn, Log.open(dsn, sealer) as log:
        try:
            yield log
        except LogUnavailable as error:
            raise CannotDo(f"The log cannot be written, and so this cannot be recorded: {error}") from None


@contextlib.contextmanager
def progressing(doing: str, total: int) -> Generator[Callable[[int, int], None]]:
    """Show how far it is, how fast, and how long it will take; and let everybody else on this machine go first."""
    os.nice(10)
    columns = (
        TextColumn(doing),
        BarColumn(),
        TextColumn("{task.completed:,} of {task.total:,} entries"),
        _Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda at, head: progress.update(task, completed=at, total=max(at, total))


class _Speed(ProgressColumn):
    """Entries a second, lately."""

    def render(self, task: Task) -> Text:
        """Show it, once it is known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "")


def ending(work: Callable[[Settings], Awaitable[int]]) -> None:
    """Do the work, and end with the code that it gives."""
    codes: list[int] = []

    async def keep(settings: Settings) -> None:
        codes.append(await work(settings))

    run(keep)
    if codes[0]:
        sys.exit(codes[0])

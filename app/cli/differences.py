"""`sophon state diff`: read models held against the log, row by row."""

import rich_click as click

from app.audit.entry import UnreadableEntry
from app.cli.asker import context_of, note
from app.cli.groups import state
from app.cli.rebuilding import ending, opened, progressing
from app.cli.work import TAMPERED, CannotDo, console, counted
from app.domain.audits import AuditQueried
from app.projections.differences import Compared, NothingToCompare, TableMissing, find_differences
from app.settings import Settings


@state.command("diff")
@click.option("--repair", is_flag=True, help="Write just these rows anew; that is recorded.")  # pyright: ignore[reportUnknownMemberType]
def state_diff(repair: bool) -> None:
    """Find each row of the read models that was edited, deleted or inserted by hand: 0 none, 1 some.

    Each is printed on a line: table, key, what the log says, what is there.
    """
    ending(lambda settings: _diff(settings, repair=repair))


async def _diff(settings: Settings, *, repair: bool) -> int:
    async with opened(settings) as log:
        context = await context_of(log, settings)
        await note(log, context, AuditQueried(question="read-models"))
        try:
            with progressing("folding", log.head) as progress:
                compared = await find_differences(log, progress, repair=repair, context=context)
        except NothingToCompare:
            raise CannotDo(NothingToCompare.__doc__ or "") from None
        except (TableMissing, UnreadableEntry) as error:
            raise CannotDo(str(error)) from None
    return _tell(compared, repaired=repair)


def _tell(compared: Compared, *, repaired: bool) -> int:
    for row in compared.rows:
        sides = (bytes(side).decode() if side is not None else "-" for side in (row.expected, row.found))
        click.echo("\t".join((row.table, row.key, *sides)))
    if (untold := compared.count - len(compared.rows)) > 0:
        console.print(f"… and {untold:,} more.")
    rows = counted(compared.count, "row is not", "rows are not") if compared.count else "Every row is"
    console.print(
        f"{rows} what the log says, as of position {compared.position:,}."
        + (" Repaired." if repaired and compared.count else "")
    )
    return TAMPERED if compared.count else 0

"""`sophon audit approvals`: what one administrator asked for, and another one has not yet."""

from datetime import UTC, datetime

import msgspec
import rich_click as click

from app.cli.asker import note_question
from app.cli.groups import audit
from app.cli.rebuilding import opened
from app.cli.work import console, run
from app.projections.approvals import Pending, PendingApprovals
from app.settings import Settings


@audit.command("approvals")
@click.option("-o", "output", type=click.Choice(["short", "jsonl"]), default="short", help="For people, or programs.")  # pyright: ignore
def audit_approvals(output: str) -> None:
    """Tell what waits for a second administrator: what would happen, who asked, and until when it can be let happen.

    Nobody erases, restores, prunes, lifts a hold or rotates keys alone: it happens when another administrator asks for
    the same within 24 hours.
    """
    run(lambda settings: _approvals(settings, output))


async def _approvals(settings: Settings, output: str) -> None:
    async with opened(settings) as log:
        await note_question(log, settings, "approvals")
        waiting = await PendingApprovals(log).pending(datetime.now(UTC))
    for one in waiting:
        click.echo(_short(one) if output == "short" else msgspec.json.encode(one).decode())
    if not waiting:
        console.print("Nothing waits for a second administrator.")


def _short(one: Pending) -> str:
    who = f"{one.username} ({one.by})" if one.username else one.by
    return f"{one.position:>9}  {one.action} {one.about}  asked by {who}  until {one.until:%Y-%m-%dT%H:%M:%SZ}"

"""`sophon audit webhook`: how far the stream of entries to SOPHON_WEBHOOK_URL is, and what was not taken."""

import msgspec
import rich_click as click

from app.audit.log import Log
from app.audit.webhook import Target, Webhook
from app.cli.groups import audit
from app.cli.rebuilding import opened
from app.cli.work import POLICY, CannotDo, console, run
from app.installation import keys_of
from app.platform import webhook_target
from app.settings import Settings


@audit.group("webhook")
def audit_webhook() -> None:
    """The stream of entries to the address that SOPHON_WEBHOOK_URL names."""


@audit_webhook.command("status")
def webhook_status() -> None:
    """Print, as JSON, up to which position entries were sent, where the log ends, and those that were not taken."""

    async def status(settings: Settings) -> None:
        target = _target(settings)
        async with opened(settings) as log:
            click.echo(msgspec.json.encode(await Webhook(log, target).standing()).decode())

    run(status)


@audit_webhook.command("retry")
def webhook_retry() -> None:
    """Send again what was not taken, each entry once, in order. Exit code 3 if some are not taken again."""

    async def retry(settings: Settings) -> None:
        target = _target(settings)
        async with opened(settings) as log:
            await _retry(log, target)

    run(retry)


async def _retry(log: Log, target: Target) -> None:
    taken, left = await Webhook(log, target).retry()
    console.print(f"Taken: {taken}.")
    if left:
        raise CannotDo(f"Still not taken: {left}. `sophon audit webhook status` says why.", POLICY)


def _target(settings: Settings) -> Target:
    target = webhook_target(settings, keys_of(settings))
    if target is None:
        raise CannotDo("There is no webhook: set SOPHON_WEBHOOK_URL and SOPHON_WEBHOOK_SECRET.")
    return target

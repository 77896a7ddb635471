"""`sophon audit rotate`: new keys for the log."""

import asyncio
from datetime import UTC, datetime

from app.audit.signing.rotation import NothingToRotate
from app.cli.asker import administrator
from app.cli.groups import audit
from app.cli.work import CannotDo, console, run
from app.dispatch import LogCannotBeWritten
from app.domain.approvals import ApprovalRequested
from app.domain.errors import Refusal
from app.domain.signing import LogKeyRotated, RotateLogKey
from app.installation import database, keys_of
from app.platform import Platform
from app.settings import Settings

PATIENCE = 15.0
"""Seconds in which a signer that runs takes the keys up."""


@audit.command("rotate")
def audit_rotate() -> None:
    """Have new keys sign the log. Two administrators have to ask, each with a token of theirs in SOPHON_TOKEN.

    The new keys are named in the log, which the old keys still sign; then those are destroyed. What they signed stays
    good. Witnesses have to be told the new verifier keys, which are at /audit/log/vkeys.
    """
    run(_rotate)


async def _rotate(settings: Settings) -> None:
    async with (
        database(settings, console.print) as dsn,
        Platform.open(settings, keys_of(settings), dsn) as platform,
    ):
        asker = await administrator(platform.log, platform.identity)
        try:
            announced = await platform.signer.next_keys()
        except NothingToRotate as why:
            raise CannotDo(str(why)) from why
        command = RotateLogKey(
            by=asker.principal.caller, now=datetime.now(UTC), retired=announced.retired, keys=announced.keys
        )
        try:
            receipt = await platform.dispatch(command, asker.context)
        except (Refusal, LogCannotBeWritten) as refusal:
            raise CannotDo(str(refusal)) from refusal
        for event in receipt.events:
            match event:
                case ApprovalRequested(until=until):
                    console.print(
                        "Recorded. The keys change when another administrator asks for it before "
                        f"{until:%Y-%m-%d %H:%M} UTC."
                    )
                case LogKeyRotated():
                    await _taken_up(platform, announced.keys[0])
                case _:
                    pass


async def _taken_up(platform: Platform, key: str) -> None:
    """Wait until the signer, here or in the process that leads, signs with the new keys."""
    for _ in range(int(PATIENCE / 0.1)):
        if platform.signer.verifier_keys().startswith(f"{key} "):
            console.print("The log has new keys; the old ones are destroyed. Tell the witnesses and the auditors.")
            return
        await asyncio.sleep(0.1)
    console.print("The new keys are announced, and taken up as soon as the signer has signed that.")

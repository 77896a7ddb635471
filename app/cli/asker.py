"""Who asks on the command line: whoever has the API token in the environment."""

import os

from app.cli.work import CannotDo
from app.identity.principal import Principal
from app.main import Platform

TOKEN = "SOPHON_TOKEN"  # noqa: S105
"""The environment variable; no option, which the list of processes would show to everybody."""


async def asker(platform: Platform) -> Principal:
    """Give whose token it is; raises `CannotDo`."""
    principal = await platform.identity.who(os.environ.get(TOKEN, "").strip(), "token")
    if principal is None:
        raise CannotDo(f"Set {TOKEN} to an API token of yours, so that it is known who asks. It may have expired.")
    return principal


async def administrator(platform: Platform) -> Principal:
    """Give the administrator whose token it is; raises `CannotDo` for anybody else."""
    principal = await asker(platform)
    if not principal.caller.administering:
        raise CannotDo("Only administrators may do this; the token's scope has to be `admin`.")
    return principal

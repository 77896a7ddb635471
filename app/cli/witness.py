"""`sophon audit witness`: vouch for somebody else's log."""

# pyright: reportUnknownMemberType=false

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import rich_click as click
import uvicorn

from app.audit.signing.store import SignerBusy
from app.audit.signing.witness_server import WitnessServer
from app.audit.transparency.keys import Verifier
from app.audit.transparency.strict import Malformed
from app.cli.groups import audit
from app.cli.work import CannotDo, console, run
from app.settings import Settings


@audit.command("witness")
@click.option("--state", required=True, type=click.Path(file_okay=False, path_type=Path), help="A directory for it.")
@click.option(
    "--log",
    "logs",
    required=True,
    multiple=True,
    help="A verifier key of a log (a line of its /audit/log/vkeys); repeatable.",
)
@click.option("--listen", default="127.0.0.1:8091", show_default=True, help="Address and port.")
@click.option("--name", default=socket.gethostname, help="The name of its key, when that is made; else the host's.")
def audit_witness(state: Path, logs: Sequence[str], listen: str, name: str) -> None:
    """Witness logs: cosign what continues what was seen of them, and nothing else (C2SP tlog-witness).

    To be run by somebody else than the logs, on another machine. Prints its verifier key, which goes into the policies
    of those who believe it. What is in the directory must never be put back to an older state.
    """

    async def witness(_: Settings) -> None:
        await _witness(state, logs, listen, name)

    run(witness)


async def _witness(state: Path, logs: Sequence[str], listen: str, name: str) -> None:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise CannotDo(f"--listen is an address and a port, such as 127.0.0.1:8091, not {listen!r}.")
    try:
        server = WitnessServer(state, name, [Verifier.parse(log.partition(" ")[0]) for log in logs])
    except (Malformed, ValueError) as why:
        raise CannotDo(str(why)) from why
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(server.store.held())
        except SignerBusy as busy:
            raise CannotDo(str(busy)) from busy
        for key in server.keys:
            click.echo(key.verifier.text())
        console.print(f"Witnessing {', '.join(sorted(server.origins))} at http://{listen}/", highlight=False)
        config = uvicorn.Config(
            server,  # pyright: ignore[reportArgumentType]
            host=host.strip("[]"),
            port=int(port),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=65,
            limit_concurrency=256,
        )
        try:
            await uvicorn.Server(config).serve()
        except SystemExit as why:  # it ends the process by itself, with a code that means something else here
            raise CannotDo(f"{listen} cannot be listened at: it is in use, or no address of this machine.") from why

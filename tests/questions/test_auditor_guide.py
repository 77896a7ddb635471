"""docs/auditor.md stays true: its commands that need no server are executed, and say what the guide says they say."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app.audit.log import Log
from app.audit.signing.published import receipt
from app.audit.signing.signer import Signer
from app.audit.signing.store import Store
from app.audit.signing.timestamps import Timestamps
from app.audit.signing.tokens import Authorities
from app.audit.signing.tree import Tree
from tests.audit.authority import Authority, answering
from tests.audit.signed import ORIGIN, signed_log
from tests.audit.test_export import export
from tests.database import SEALER
from tests.foreign.conftest import absent
from tests.foreign.golang import NoGo, must_be_here

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "auditor.md"
BLOCK = re.compile(r"^```console (offline|go)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ENDED = re.compile(r"\[exit (\d)\]\n")


def told(kind: str) -> list[tuple[str, str, int]]:
    """Read from the guide what is typed, what comes of it (`…` for anything), and the exit code."""
    commands: list[tuple[str, str, int]] = []
    for found, block in BLOCK.findall(GUIDE.read_text()):
        if found == kind:
            for part in block.removeprefix("$ ").split("\n$ "):
                command, _, output = part.partition("\n")
                ended = ENDED.search(f"{output}\n")
                commands.append((command, ENDED.sub("", f"{output}\n").strip(), int(ended[1]) if ended else 0))
    return commands


@pytest.fixture
async def desk(dsn: str, tmp_path: Path) -> Path:
    """Lay on an auditor's desk what the guide begins with: an export, keys, a checkpoint, a root, a receipt."""
    trust = await signed_log(dsn, tmp_path / "signer", (300,))
    desk = tmp_path / "desk"
    desk.mkdir()
    async with Log.open(dsn, SEALER) as log:
        newest = await Tree(log.pool).newest()
        assert newest is not None
        (desk / "saved-checkpoint").write_bytes(newest.note)
        authority = Authority(tmp_path / "authority")
        (desk / "tsa-root.pem").write_bytes(authority.root.read_bytes())
        async with answering(authority.reply) as url:
            await Timestamps(log, Store(tmp_path / "signer"), url, Authorities.by(authority.root)).stamp()
    trust = await signed_log(dsn, tmp_path / "signer", (600,))
    await export(dsn, desk / "export", trust)
    async with Log.open(dsn, SEALER) as log:
        tree = Tree(log.pool)
        (desk / "27.tlog-proof").write_bytes(await receipt(tree, 27, await tree.entry(27)))
        (desk / "vkeys").write_text(Signer(log, Store(tmp_path / "signer"), ORIGIN).verifier_keys())
    return desk


def perform(commands: list[tuple[str, str, int]], desk: Path) -> None:
    """Type each command, and hold what comes of it to what is told."""
    assert commands
    programs = desk.parent / "bin"
    programs.mkdir()
    (programs / "sophon").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m app "$@"\n')
    (programs / "sophon").chmod(0o700)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SOPHON_")}
    environment = kept | {
        "PATH": f"{programs}:{kept['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SOPHON_DATA": str(desk.parent / "nothing"),
        "SOPHON": str(ROOT),
        "COLUMNS": "200",
    }
    for command, output, code in commands:
        done = subprocess.run(
            ["/bin/sh", "-c", f"{{ {command}\n}} 2>&1"],
            cwd=desk, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, (command, done.stdout)
        pattern = ".*".join(re.escape(" ".join(part.split())) for part in output.split("…"))
        assert re.fullmatch(pattern, " ".join(done.stdout.split()), re.DOTALL), (command, done.stdout)


def test_what_the_guide_tells_of_an_export_is_so(desk: Path) -> None:
    perform(told("offline"), desk)


def test_what_the_guide_tells_of_the_sumdb_packages_is_so(desk: Path) -> None:
    try:
        must_be_here()
    except NoGo as error:
        absent("go", str(error))
    perform(told("go"), desk)


def test_every_document_that_the_guides_point_to_is_there() -> None:
    for guide in (GUIDE, GUIDE.with_name("administrator.md")):
        for target in re.findall(r"\]\(([a-z-]+\.md)(?:#[a-z-]+)?\)", guide.read_text()):
            assert (GUIDE.parent / target).exists(), (guide.name, target)

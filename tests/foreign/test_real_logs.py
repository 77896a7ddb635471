"""What the real writer and the real signer made, before verifiers that others wrote."""

import asyncio
from pathlib import Path

import pytest

from app.audit.evidence.trust import Trust
from app.audit.transparency.notes import parse_note
from app.audit.transparency.proofs import parse_receipt
from tests.audit.signed import ORIGIN, signed_log
from tests.audit.test_export import export
from tests.audit.test_verify import SECRET, command
from tests.foreign.conftest import Verify

SIZE = 3


@pytest.fixture
async def trust(dsn: str, tmp_path: Path) -> Trust:
    """Append and sign a few entries; the keys, as they are given out, lie in `vkeys`."""
    trust = await signed_log(dsn, tmp_path / "signer", (1, SIZE))
    (tmp_path / "vkeys").write_text(trust.text())
    return trust


async def test_every_flipped_bit_of_a_real_export_is_rejected(
    verify: Verify, trust: Trust, dsn: str, tmp_path: Path
) -> None:
    """But those of its signature with ML-DSA-44, of which both say that they do not check it."""
    await export(dsn, tmp_path / "export", trust)
    assert len(parse_note((tmp_path / "export" / "checkpoint").read_bytes()).lines) == 2
    done = await asyncio.to_thread(verify, "--key", tmp_path / "vkeys", "--flip", tmp_path / "export")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"whole: {SIZE} entries of {ORIGIN}" in done.stdout
    flips = int(done.stdout.split("each of ")[1].split()[0])
    assert flips > 8 * sum(path.stat().st_size for path in (tmp_path / "export" / "tile").rglob("*") if path.is_file())


async def test_a_real_receipt_is_accepted_for_its_entry_only(
    verify: Verify, trust: Trust, dsn: str, tmp_path: Path
) -> None:
    done = await command(dsn, tmp_path, "audit", "prove", "2", **SECRET)
    assert done.returncode == 0, done.stderr
    receipt, entry, other = (tmp_path / name for name in ("2.tlog-proof", "entry", "other"))
    receipt.write_text(done.stdout)
    given = parse_receipt(receipt.read_bytes()).extra
    assert given is not None
    entry.write_bytes(given)
    other.write_bytes(given.replace(b"x", b"y", 1))
    for file, code in ((entry, 0), (other, 1)):
        done = await asyncio.to_thread(verify, "--key", tmp_path / "vkeys", "--receipt", receipt, file)
        assert done.returncode == code, done.stderr
    receipt.write_text(receipt.read_text().replace("index 1\n", "index 2\n"))
    done = await asyncio.to_thread(verify, "--key", tmp_path / "vkeys", "--receipt", receipt, entry)
    assert (done.returncode, done.stderr[:10]) == (1, "rejected: ")

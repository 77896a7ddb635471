"""Questions 14, 16, 18 and 28 of the auditor's: whether it is whole, where not, and what can be taken away of it."""

from pathlib import Path

import pytest

from app.audit.evidence.export import export_log
from app.audit.evidence.exported import Format, open_exported, verify_exported
from app.audit.evidence.findings import Tampered
from app.audit.evidence.verify import connected, verify_log
from tests.audit.signed import signed_log, superuser
from tests.audit.test_recovery import exported, put_back, recovered, rows
from tests.audit.test_verify import Change, delete, edit, insert, swap, truncate
from tests.foreign.conftest import Verify, absent, runs
from tests.foreign.exports import SHELL
from tests.foreign.golang import NoGo, build


@pytest.mark.parametrize(
    ("change", "first"),
    [(edit(200), 200), (edit(200, rehash=True), 200), (delete(77), 77), (insert, 200), (swap, 100), (truncate, 551)],
    ids=["edit", "edit with its hash", "deletion", "insertion", "reordering", "truncation"],
)
async def test_question_14_any_edit_deletion_insertion_reordering_truncation_by_a_superuser_is_detected_and_located(
    change: Change, first: int, dsn: str, tmp_path: Path
) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (300, 600))
    with superuser(dsn) as connection:
        change(connection)
    async with connected(dsn) as connection:
        with pytest.raises(Tampered) as caught:
            await verify_log(connection, trust)
    assert caught.value.finding.first == first


async def test_question_16_a_restored_old_backup_is_detected_and_its_lost_tail_recovered(
    dsn: str, tmp_path: Path
) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (300, 600))
    directory = await exported(dsn, tmp_path / "export", trust)
    before = rows(dsn)
    put_back(dsn, 300)
    async with connected(dsn) as connection:
        with pytest.raises(Tampered, match="Entries 301 to 600 are gone"):
            await verify_log(connection, trust)
    await recovered(dsn, directory, trust)
    assert rows(dsn) == before


@pytest.fixture(params=["openssl and shell", "Go's sumdb"])
def outsider(request: pytest.FixtureRequest, tmp_path: Path) -> Verify:
    """A verifier that needs nothing of ours: the script, or a program over Go's packages."""
    if request.param == "openssl and shell":
        return runs("sh", SHELL)
    try:
        build(tmp_path / "verify-log")
    except NoGo as error:
        absent("go", str(error))
    return runs(tmp_path / "verify-log")


async def test_question_18_verifiable_offline_without_our_software_or_database_by_openssl_and_shell_and_by_gos_sumdb(
    outsider: Verify, dsn: str, tmp_path: Path
) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (600,))
    directory = await exported(dsn, tmp_path / "export", trust)
    keys = tmp_path / "vkeys"
    keys.write_text(trust.text())
    done = outsider("--key", keys, directory)
    assert (done.returncode, "whole: 600 entries" in done.stdout) == (0, True), done.stderr
    bundle = directory / "tile" / "entries" / "001"
    bundle.write_bytes(bundle.read_bytes().replace(b"xxx", b"xxy", 1))
    done = outsider("--key", keys, directory)
    assert (done.returncode, "whole" in done.stdout) == (1, False), done.stderr
    assert "entry 257" in done.stderr or "rejected: the entries have the root" in done.stderr


@pytest.mark.parametrize("format_", ["tiles", "jsonl", "cloudevents", "ocsf"])
async def test_question_28_complete_resumable_export_tiles_jsonl_cloudevents_ocsf(
    format_: Format, dsn: str, tmp_path: Path
) -> None:
    trust = await signed_log(dsn, tmp_path / "signer", (300,))
    async with connected(dsn) as connection:
        await export_log(connection, tmp_path / "export", format_, trust)
    trust = await signed_log(dsn, tmp_path / "signer", (700,))
    async with connected(dsn) as connection:
        assert (await export_log(connection, tmp_path / "export", format_, trust)).new == 400
    if format_ in ("tiles", "jsonl"):
        assert verify_exported(open_exported(tmp_path / "export", trust)).entries == 700
    if format_ != "tiles":
        [lines] = (tmp_path / "export").glob(f"{format_}-*.jsonl")
        assert lines.read_bytes().count(b"\n") == 700

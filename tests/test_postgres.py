"""The embedded PostgreSQL: what it takes from whoever runs it as root, which is hardly anything."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from app import postgres
from app.postgres import embedded


@pytest.mark.parametrize(("mode", "most"), [(0o700, 0o711), (0o750, 0o751), (0o755, 0o755)])
async def test_directories_above_the_data_are_opened_to_be_passed_and_not_to_be_read(mode: int, most: int) -> None:
    with tempfile.TemporaryDirectory(prefix="sophon-test-") as directory:
        above = Path(directory)
        data = above / "private" / "postgres"
        data.parent.mkdir()
        for each in (above, data.parent):
            each.chmod(mode)
        async with embedded(data) as dsn:
            with psycopg.connect(dsn) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            found = {each.stat().st_mode & 0o777 for each in (above, data.parent)}
            assert found == {most if os.getuid() == 0 else mode}


async def test_a_server_whose_start_is_interrupted_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Server:
        def cleanup(self) -> None:
            events.append("stopped")

    def start(_: Path) -> Server:
        time.sleep(0.3)
        events.append("started")
        return Server()

    async def use() -> None:
        async with embedded(tmp_path / "postgres"):
            events.append("used")

    monkeypatch.setattr(postgres, "_start", start)
    using = asyncio.create_task(use())
    await asyncio.sleep(0.1)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    assert events == ["started", "stopped"]

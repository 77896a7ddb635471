"""A desk at which `sophon …` is typed: on a database and a data directory of its own, within this process."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner, Result

from app.__main__ import main

SECRET = "k" * 32
"""Of the keys that a `Town` has."""


class Desk:
    """Runs commands; what they print, to whom, and the code that they end with are in the result."""

    def __init__(self, dsn: str, data: Path, **settings: str) -> None:
        self.dsn = dsn
        self.data = data
        self._settings = {"SOPHON_DATABASE_URL": dsn, "SOPHON_SECRET": SECRET, "SOPHON_DATA": str(data)} | settings

    async def __call__(self, *words: str, **settings: str) -> Result:
        """Type `sophon WORDS`, with settings of its own."""
        kept: Mapping[str, str | None] = {name: None for name in os.environ if name.startswith("SOPHON_")}
        env = {**kept, **self._settings, **settings, "COLUMNS": "300"}
        with patch("os.nice"):  # it would be this process, and all that it starts from now on
            return await asyncio.to_thread(CliRunner().invoke, main, words, env=env)

    async def did(self, *words: str, **settings: str) -> Result:
        """Type it, and have it succeed."""
        told = await self(*words, **settings)
        assert told.exit_code == 0, f"{' '.join(words)}: {told.exit_code} {told.output} {told.exception}"
        return told

"""What was found to be wrong with a log, and the file in which it is kept as evidence."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

Kind = Literal[
    "edited",
    "deleted",
    "inserted",
    "swapped",
    "truncated",
    "rewritten",
    "hash",
    "tile",
    "checkpoint",
    "time",
    "differs",
    "columns",
    "hidden",
    "timestamp",
]


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is not as it was. `first` to `last` are positions: equal where it could be located exactly.

    Hashes are in hexadecimal, notes and entries as they stand; `beside` is what another copy has in its place.
    """

    kind: Kind
    says: str
    first: int
    last: int
    expected: str = ""
    found: str = ""
    entry: str | None = None
    beside: str | None = None
    notes: tuple[str, ...] = ()


class Tampered(Exception):
    """What is there is not what was signed."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


def legible(octets: bytes) -> str:
    """Show octets that may be anything as text, losing none."""
    return octets.decode("utf-8", "backslashreplace")


def keep_evidence(finding: Finding, directory: Path) -> Path:
    """Write a finding into a new file, durably; give its path."""
    now = datetime.now(UTC)
    document = msgspec.to_builtins(finding) | {"noticed": now.isoformat()}
    path = directory / f"sophon-evidence-{now:%Y%m%dT%H%M%S.%fZ}.json"
    with path.open("xb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return path

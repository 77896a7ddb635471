"""The example says what it needs, where it cannot begin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "first_notebook.py"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "Set SOPHON_PASSWORD"),
        ({"SOPHON_PASSWORD": "of no matter"}, "Nothing answers at http://127.0.0.1:1"),
    ],
)
def test_an_example_that_cannot_begin_says_what_it_needs(settings: dict[str, str], said: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SOPHON_")}
    done = subprocess.run(
        (sys.executable, EXAMPLE),
        env={**kept, "SOPHON_URL": "http://127.0.0.1:1", **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert said in done.stderr

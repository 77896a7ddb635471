"""What `sophon up` says of itself, kept in a file: its panel was cut off at the width of a terminal."""

import pytest

from app.cli.installation import _greet  # pyright: ignore[reportPrivateUsage]
from app.up import Running


async def nothing() -> None: ...


async def alive() -> Exception:
    return Exception()


def test_the_greeting_says_the_whole_reason_for_the_runtime_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    why = "Docker answers; notebooks are containers of " + "sophon-jupyter:0123456789ab, as long a sentence as it takes"
    _greet(Running("http://localhost:8000", "admin", "x" * 16, "docker", why, nothing, alive), 1.0)
    said = capsys.readouterr().err.replace("│", " ")
    assert why in " ".join(said.split())

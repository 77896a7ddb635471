"""Mistakes at the command line: a sentence that says what to do, no traceback, and never the exit code of a finding."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import rich_click as click
from click.testing import CliRunner

from app.__main__ import main
from app.audit.transparency.keys import SigningKey
from app.cli.rebuilding import progressing
from app.cli.work import COULD_NOT, TAMPERED, CannotDo, run

NOWHERE = {"SOPHON_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", "SOPHON_SECRET": "k" * 32}
KEY = SigningKey.generate("lab.example/audit", "ed25519").verifier.text()


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Name every command below a group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command, name
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


@pytest.mark.parametrize("words", [words for words, _ in commands(main)], ids=" ".join)
def test_every_command_and_every_option_says_what_it_is_for(words: tuple[str, ...]) -> None:
    command = dict(commands(main))[words]
    assert len((command.help or "").split()) >= 4
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.opts
    shown = CliRunner().invoke(main, [*words, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


@pytest.mark.parametrize(
    "words",
    [
        "audit log", "audit show project/apollo", "audit diff 1 2", "audit blame group/lab", "audit explain 1",
        "audit prove 1", "audit checkpoint", "audit approvals", "audit retention", "audit rotate", "state diff",
        "admin password", "state doctor", "state rebuild", "state seal", "state verify",
    ],
)  # fmt: skip
def test_a_database_that_does_not_answer_is_no_finding(words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, words.split(), env={**NOWHERE, "SOPHON_DATA": str(tmp_path)})
    assert done.exit_code == COULD_NOT, done.output
    assert "Traceback" not in done.output
    assert len(done.output.split()) > 3


def test_a_database_url_that_is_none_is_told_in_a_sentence(tmp_path: Path) -> None:
    env = {**NOWHERE, "SOPHON_DATABASE_URL": "nonsense", "SOPHON_DATA": str(tmp_path)}
    done = CliRunner().invoke(main, ["state", "diff"], env=env)
    assert (done.exit_code, "Traceback" in done.output) == (COULD_NOT, False)
    assert "nonsense" in done.output


@pytest.mark.parametrize("secret", ["", "k" * 32])
@pytest.mark.parametrize(
    "words",
    [
        "audit log", "audit tail", "audit subject ada report", "audit rotate", "audit retention",
        "admin password", "volumes purge plots", "state doctor", "state diff", "state drill",
        "state rebuild", "signer",
    ],
)  # fmt: skip
def test_a_command_in_another_directory_says_so_and_makes_no_installation_there(
    words: str, secret: str, tmp_path: Path
) -> None:
    env = {"SOPHON_DATA": str(tmp_path / "elsewhere"), "SOPHON_SECRET": secret, "SOPHON_TOKEN": "sophon_x"}
    done = CliRunner().invoke(main, words.split(), env={**env, "SOPHON_DATABASE_URL": ""})
    assert (done.exit_code, "Traceback" in done.output) == (COULD_NOT, False), done.output
    assert f"There is no installation in {tmp_path / 'elsewhere'}" in done.output.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_that_cannot_be_made_is_told_in_a_sentence() -> None:
    done = CliRunner().invoke(main, ["up"], env={"SOPHON_DATA": "/proc/nothing", "SOPHON_SECRET": ""})
    assert (done.exit_code, "Traceback" in done.output) == (1, False), done.output
    assert "/proc/nothing" in done.output


def test_what_nobody_foresaw_is_shown_and_is_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail(_: object) -> None:
        raise ZeroDivisionError("by nothing")

    with pytest.raises(SystemExit) as ended:
        run(fail)
    assert ended.value.code == COULD_NOT
    assert "ZeroDivisionError: by nothing" in capsys.readouterr().err


def test_a_sentence_in_a_pipe_is_one_line() -> None:
    env = {**NOWHERE, "SOPHON_DATA": "/proc/a-directory-that-nobody-can-make-and-whose-name-is-rather-long"}
    done = CliRunner().invoke(main, ["audit", "log"], env={**env, "SOPHON_SECRET": "", "COLUMNS": "80"})
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_ctrl_c_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.verify.run", interrupted)
    done = CliRunner().invoke(main, ["audit", "verify"])
    assert (done.exit_code, done.output) == (130, "Interrupted.\n")


@pytest.mark.parametrize("code", [COULD_NOT, TAMPERED])
def test_what_cannot_be_done_ends_with_its_code(code: int) -> None:
    async def fail(_: object) -> None:
        raise CannotDo("[as it is]", code)

    with pytest.raises(SystemExit) as ended:
        run(fail)
    assert ended.value.code == code


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--log", "nonsense"), "A key is name+id+base64"),
        (("--log", KEY, "--listen", "nonsense"), "--listen is an address and a port"),
        (("--log", KEY, "--listen", "192.0.2.1:1"), "cannot be listened at"),
        (("--log", f"{KEY} 0 -", "--listen", "192.0.2.1:1"), "Witnessing lab.example/audit at http://192.0.2.1:1/"),
    ],
)
def test_a_witness_that_cannot_begin_says_why(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(main, ["audit", "witness", "--state", str(tmp_path / "w"), *options])
    assert done.exit_code == COULD_NOT, done.output
    assert said in " ".join(done.output.split())


def test_a_witness_whose_directory_cannot_be_made_says_so() -> None:
    done = CliRunner().invoke(main, ["audit", "witness", "--state", "/proc/nothing", "--log", KEY])
    assert (done.exit_code, "Traceback" in done.output) == (COULD_NOT, False)


def test_a_speed_that_is_not_known_is_not_told_as_none(capsys: pytest.CaptureFixture[str]) -> None:
    with patch("os.nice"), progressing("verifying", 52) as progress:
        progress(52, 52)
    told = capsys.readouterr().err
    assert "52 of 52 entries" in told
    assert "0/s" not in told

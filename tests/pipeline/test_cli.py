"""The command line itself: what it loads, what it takes, how it ends."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.cli import STAGE_HELP, main
from pipeline.commands import inspection

Tiny = Any  # of conftest.py
Command = Any
Capture = pytest.CaptureFixture[str]
HEAVY = ("numpy", "pydantic", "rich", "yaml", "fsspec", "torch", "apache_beam", "sentencepiece")


def told(arguments: list[str], capsys: Capture) -> tuple[int, str, str]:
    """The exit code, output and errors of a command whose arguments may be refused."""
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_loads_nothing_that_is_slow_to_load() -> None:
    script = (
        "import sys\nfrom pipeline.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    run = [sys.executable, "-c", script]
    answer = subprocess.run(run, capture_output=True, text=True, check=True)
    assert answer.stdout.rsplit("LOADED ", 1)[1] == "[]\n"
    assert all(name in answer.stdout for name in (*STAGE_HELP, "inspect", "check"))


def test_no_command_is_a_mistake_that_names_the_commands(capsys: Capture) -> None:
    code, out, err = told([], capsys)
    assert (code, out) == (2, "")
    assert err.endswith("biloom: error: the following arguments are required: COMMAND\n")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["fly"], "argument COMMAND: invalid choice: 'fly'"),
        (["run"], "the following arguments are required: CONFIG|KEY=VALUE"),
        (["run", "quickstart", "--fast"], "unrecognized arguments: --fast"),
        (["run", "quickstart", "--fast", "train.steps=1"], "unrecognized arguments: --fast"),
        (["inspect", "a", "b"], "unrecognized arguments: b"),
        (["check", "a", "--overwrite"], "unrecognized arguments: --overwrite"),
    ],
)
def test_what_the_command_line_does_not_know_is_told(
    arguments: list[str], problem: str, capsys: Capture
) -> None:
    code, out, err = told(arguments, capsys)
    assert (code, out) == (2, "")
    assert problem in err


def test_overrides_may_stand_on_either_side_of_flags(capsys: Capture) -> None:
    orders = (
        ["quickstart", "train.steps=7", "train.rows=5", "--print-config"],
        ["quickstart", "--print-config", "train.steps=7", "train.rows=5"],
        ["--print-config", "train.steps=7", "quickstart", "train.rows=5"],
    )
    answers = [told(["train", *order], capsys) for order in orders]
    assert answers[0] == answers[1] == answers[2]
    code, out, err = answers[0]
    assert (code, err) == (0, "")
    assert "  steps: 7" in out
    assert "  rows: 5" in out


def test_what_sets_a_key_is_an_override_even_where_a_file_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.steps=7").touch()
    code, out, _ = told(["train", "quickstart", "train.steps=7", "--print-config"], capsys)
    assert code == 0
    assert "  steps: 7" in out


def test_a_config_file_may_have_an_equals_sign_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rate=low.yaml", "train.steps=9.yaml"):
        Path(name).write_text("train: {steps: 9}")
    for name in ("rate=low.yaml", "./train.steps=9.yaml"):
        code, out, _ = told(["train", "quickstart", name, "--print-config"], capsys)
        assert code == 0
        assert "  steps: 9" in out


def test_a_printed_config_is_a_config(tmp_path: Path, capsys: Capture) -> None:
    _, printed, _ = told(["run", "quickstart", "train.steps=7", "--print-config"], capsys)
    file = tmp_path / "printed.yaml"
    file.write_text(printed)
    assert told(["run", str(file), "--print-config"], capsys) == (0, printed, "")


def test_a_path_that_is_no_text_can_be_printed(tiny: Tiny, tmp_path: Path, biloom: Command) -> None:
    output = os.fsencode(tmp_path) + b"/\xff\xe9"
    answer = biloom.run(
        "prepare", *tiny.arguments(tmp_path), f"run.output={os.fsdecode(output)}", "--dry-run"
    )
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "\\udcff\\udce9/prepare" in answer.stdout


@pytest.mark.parametrize(
    "command", ["inspect {}/prepare", "check {}/prepare", "run {}/tiny.yaml --print-config"]
)
def test_a_reader_that_went_away_is_no_traceback_and_no_success(
    command: str, tiny: Tiny, biloom: Command
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    # Written at once, no output would be left to fail at the very end.
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    try:
        answer = biloom.run(*command.format(tiny.root).split(), stdout=writing, env=buffered)
    finally:
        os.close(writing)
    assert (answer.returncode, answer.stderr) == (141, "")


def test_a_right_that_is_missing_is_told_with_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def refused(path: str) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(inspection, "inspect", refused)
    assert told(["inspect", "/x"], capsys) == (2, "", "biloom: /x: Permission denied\n")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> int:
        raise FileNotFoundError(errno.ENOENT, "gone", path)

    monkeypatch.setattr(inspection, "inspect", broken)
    with pytest.raises(FileNotFoundError):
        main(["inspect", "/x"])


def test_an_interrupt_is_told_and_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupted(options: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert told(["run", "quickstart"], capsys) == (
        130,
        "",
        "\nbiloom: stopped; the same command resumes from here\n",
    )

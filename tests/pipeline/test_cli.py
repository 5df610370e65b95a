"""The command line itself: what it loads, what it takes, how it ends."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import exhaustion
from pipeline.beam.remote_job import NOT_CANCELLED
from pipeline.cli import main
from pipeline.commands import inspection
from pipeline.commands.registry import COMMANDS
from pipeline.exit_codes import MEANINGS, ExitCode
from pipeline.lifecycle.order import STAGE_ORDER
from pipeline.stopping import JobStopped
from pipeline.version import biloom_version
from preprocess.errors import JobError

Tiny = Any  # of conftest.py
Command = Any
Capture = pytest.CaptureFixture[str]
HEAVY = (
    *("numpy", "pydantic", "rich", "yaml", "fsspec", "torch", "apache_beam", "sentencepiece"),
    *("dataclasses", "importlib.metadata", "shtab"),
)


def told(arguments: list[str], capsys: Capture) -> tuple[int, str, str]:
    """The exit code, output and errors of a command whose arguments may be refused."""
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], []])
def test_help_loads_nothing_that_is_slow_to_load(arguments: list[str]) -> None:
    script = (
        f"import sys\nfrom pipeline.cli import main\ntry:\n    main({arguments!r})\n"
        "except SystemExit:\n    pass\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    run = [sys.executable, "-c", script]
    answer = subprocess.run(run, capture_output=True, text=True, check=True)
    assert answer.stdout.rsplit("LOADED ", 1)[1] == "[]\n"


def test_help_lists_every_command(capsys: Capture) -> None:
    code, out, err = told(["--help"], capsys)
    assert (code, err) == (0, "")
    rows = [line.split()[0] for line in out.splitlines() if line.startswith("    ")]
    assert [row for row in rows if row in COMMANDS] == list(COMMANDS)
    assert list(COMMANDS)[:7] == ["run", *STAGE_ORDER]


@pytest.mark.parametrize("arguments", [[], ["cache"]])
def test_no_command_is_answered_by_the_help(arguments: list[str], capsys: Capture) -> None:
    _, help_, _ = told([*arguments, "--help"], capsys)
    assert told(arguments, capsys) == (2, "", help_)


def test_the_version_is_reported(capsys: Capture) -> None:
    assert told(["--version"], capsys) == (0, f"biloom {biloom_version()}\n", "")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["fly"], "argument COMMAND: invalid choice: 'fly'"),
        (["run"], "the following arguments are required: CONFIG|KEY=VALUE"),
        (["run", "quickstart", "--fast"], "unrecognized arguments: --fast"),
        (["run", "quickstart", "--fast", "train.steps=1"], "unrecognized arguments: --fast"),
        (
            ["train", "quickstart", "--train.steps=1"],
            "settings have no hyphens: write train.steps=..., and ${args_no_hyphens} in the command of "
            "a wandb sweep",
        ),
        (["inspect", "a", "b"], "unrecognized arguments: b"),
        (["cache", "fly"], "argument COMMAND: invalid choice: 'fly'"),
        (["status"], "the following arguments are required: RUN"),
        (["completion", "tcsh"], "argument shell: invalid choice: 'tcsh'"),
        (["check", "a", "--overwrite"], "unrecognized arguments: --overwrite"),
    ],
)
def test_what_the_command_line_does_not_know_is_reported(
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


def test_a_value_that_the_shell_has_split_is_reported(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "c.txt").write_text("some text")
    for word, problem in {
        "mistaken": "no config 'mistaken'.*",
        f"{tmp_path}/b": "config '.*b' is a folder, not a file",
    }.items():
        arguments = ["tokenizer", "quickstart", "prepare.input=raw/a", word]
        code, _, errors = told(arguments, capsys)
        assert code == 2
        hint = f"; if it belongs to the value before it, quote both: 'prepare.input=raw/a {word}'"
        assert re.fullmatch(f"biloom: {problem}{re.escape(hint)}\n", errors)
    code, _, errors = told(["tokenizer", "prepare.input=", f"{tmp_path}/c.txt"], capsys)
    assert code == 2
    assert "must hold sections" in errors


def test_a_printed_config_is_a_config(tmp_path: Path, capsys: Capture) -> None:
    _, printed, _ = told(["run", "quickstart", "train.steps=7", "--print-config"], capsys)
    file = tmp_path / "printed.yaml"
    file.write_text(printed)
    assert told(["run", str(file), "--print-config"], capsys) == (0, printed, "")


def test_a_path_that_is_no_text_can_be_printed(tiny: Tiny, tmp_path: Path, biloom: Command) -> None:
    output = os.fsencode(tmp_path) + b"/\xff\xe9"
    answer = biloom.run("prepare", *tiny.arguments(Path(os.fsdecode(output))), "--dry-run")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "\\udcff\\udce9\n" in answer.stdout


@pytest.mark.parametrize("locale", ["POSIX", "C", "en_US.ISO-8859-1"])
def test_a_path_means_the_same_in_every_locale(
    locale: str, tmp_path: Path, biloom: Command
) -> None:
    folder = tmp_path / "é 猫"
    folder.mkdir()
    (folder / "a.txt").write_text("some words\n" * 50, encoding="utf-8")
    (tmp_path / "own.yaml").write_text(
        f'prepare: {{input: "{folder}/*.txt"}}\ntokenizer: {{kind: char}}\n', encoding="utf-8"
    )
    others = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {**os.environ, **others}
    words = ("tokenizer.kind=char", f"prepare.input={folder}/*.txt")
    for name, arguments in {"shell": words, "file": (tmp_path / "own.yaml",)}.items():
        output = f"run.output={tmp_path}/{name}"
        answer = biloom.run("tokenizer", *arguments, output, env=environment)
        assert (answer.returncode, answer.stderr) == (0, "")
    made = [tmp_path / name / "tokenizer" for name in ("shell", "file")]
    configs = [(path / "config.yaml").read_text(encoding="utf-8") for path in made]
    assert f"input: {folder}/*.txt" in configs[0]
    assert configs[0].replace(f"{tmp_path}/shell", f"{tmp_path}/file") == configs[1]
    assert main(["tokenizer", *words, f"run.output={tmp_path}/shell"]) == 0
    answer = biloom.run("tokenizer", "prepare.input=x", "run.output=é\x1b\n", env=environment)
    assert answer.returncode == 2
    assert "\x1b" not in answer.stderr + answer.stdout


def test_names_cannot_control_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    name = f"{tmp_path}/a\x1b[2J\nb\udcff.txt"
    words = ["tokenizer", f"prepare.input={name}", f"run.output={tmp_path}/o\x07\nut"]
    code, out, errors = told(words, capsys)
    assert code == 2
    assert errors.count("\n") == 1
    assert r"a\x1b[2J\nb\udcff.txt: no file matches" in errors
    assert rf"{tmp_path}/o\x07\nut" in out
    code, _, errors = told(["tokenizer", f"prepare.input=[{name}]"], capsys)
    assert code == 2
    assert errors.count("\n") == 1
    assert r"the character U+001B is not allowed in a list or mapping; write it in dou" in errors


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


def test_a_right_that_is_missing_is_reported_with_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def refused(path: str) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(inspection, "inspect", refused)
    assert told(["inspect", "/x"], capsys) == (2, "", "biloom: /x: Permission denied\n")


def test_a_fault_of_ours_has_its_traceback_and_a_request_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def broken(path: str) -> int:
        raise FileNotFoundError(errno.ENOENT, "gone", path)

    monkeypatch.setattr(inspection, "inspect", broken)
    code, out, errors = told(["inspect", "/x"], capsys)
    assert (code, out) == (70, "")
    assert errors.startswith("Traceback")
    assert "biloom: this is a bug; please report it with the traceback" in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (JobError("a worker was lost"), "a worker was lost"),
        (MemoryError(), "memory ran out. Run the same command again to resume"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"
            ),
            "memory ran out ([enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate "
            "memory). Run the same command again to resume",
        ),
        (
            RuntimeError("can't start new thread"),
            "no further thread can be started; raise the limit of processes (ulimit -u) or memory. "
            "Run the same command again to resume",
        ),
        (
            BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
            "no further process can be started; raise the limit of processes (ulimit -u). Run the "
            "same command again to resume",
        ),
        (
            OSError(errno.EMFILE, "Too many open files", "/y"),
            "no further file can be opened; raise the limit of open files (ulimit -n). Run the same "
            "command again to resume",
        ),
    ],
)
def test_a_failed_job_is_reported_without_a_traceback(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(path: str) -> int:
        raise error

    monkeypatch.setattr(inspection, "inspect", fail)
    monkeypatch.setattr(exhaustion, "_limits", lambda missing: ())
    assert told(["inspect", "/x"], capsys) == (3, "", f"biloom: {message}\n")


def test_the_exit_codes_are_listed_in_the_help_and_in_the_documentation(capsys: Capture) -> None:
    _, help_, _ = told(["--help"], capsys)
    page = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
    shown = " ".join(help_.partition("exit codes:")[2].split())
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning}" in shown
        assert f"| {code.value} | {meaning} |" in page
    assert list(MEANINGS) == list(ExitCode)


def test_an_interrupt_is_reported_and_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def interrupted(options: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspection, "inspect", interrupted)
    assert told(["inspect", "/x"], capsys) == (
        130,
        "",
        "\nbiloom: stopped; the same command continues from what is saved\n",
    )


def test_a_job_that_its_engine_did_not_cancel_is_reported_after_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def stopped(options: Any) -> int:
        error = JobStopped()
        error.add_note(NOT_CANCELLED)
        raise error

    monkeypatch.setattr(inspection, "inspect", stopped)
    code, _, err = told(["inspect", "/x"], capsys)
    assert code == 130
    assert err == (
        "\nbiloom: stopped; the same command continues from what is saved\nThe engine did not confirm that it "
        "cancelled the job; look for it there, and cancel it\n"
    )

"""The completion scripts know commands, flags, shipped configs and settings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli import main

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script for bash."""
    assert main(["completion", "bash"]) == 0
    file = tmp_path / "biloom.bash"
    file.write_text(capsys.readouterr().out)
    return file


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_commands_flags_configs_and_settings(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in ("import-elmo", "verify", "print-config", "quickstart", "train.steps="):
        assert word in text
    assert "_biloom_settings" in text


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_one_that_its_shell_reads(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    main(["completion", shell])
    file = tmp_path / "script"
    file.write_text(capsys.readouterr().out)
    answer = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


COMPLETE = """\
source {script}
COMP_WORDS=({words} {last}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_biloom 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("biloom", "tr"), ["train", "trace"]),
        (("biloom", "cache", "ve"), ["verify"]),
        (("biloom", "train", "--pr"), ["--print-config"]),
        (("biloom", "train", "quicks"), ["quickstart"]),
        (("biloom", "train", "quickstart", "train.st"), ["train.steps="]),
        (("biloom", "run", "--dry-run", "quickstart", "tokenizer.mi"), ["tokenizer.min_count="]),
        (("biloom", "train", "my"), ["my.yaml"]),
        (("biloom", "status", "some-"), ["some-run"]),
        (("biloom", "score", "--model", "some-"), ["some-run"]),
        (("biloom", "completion", "z"), ["zsh"]),
    ],
)
def test_bash_completes(
    words: tuple[str, ...], expected: list[str], script: Path, tmp_path: Path
) -> None:
    (tmp_path / "some-run").mkdir()
    (tmp_path / "my.yaml").touch()
    *before, last = words
    text = COMPLETE.format(script=script, words=" ".join(before), last=last)
    run = ["bash", "--norc", "-c", text]
    answer = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert answer.stdout.split() == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("biloom cache ve", "verify"),
        ("biloom train quicks", "quickstart"),
        ("biloom train quickstart train.st", "train.steps="),
        ("biloom train quickstart --pr", "--print-config"),
    ],
)
def test_fish_completes(
    line: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not shutil.which("fish"):
        pytest.skip("no fish here")
    main(["completion", "fish"])
    file = tmp_path / "biloom.fish"
    file.write_text(capsys.readouterr().out)
    # It completes only commands that exist.
    program = tmp_path / "biloom"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    run = ["fish", "--no-config", "-c", f"source {file}; complete -C '{line}'"]
    answer = subprocess.run(
        run, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    assert [row.split("\t")[0] for row in answer.stdout.splitlines()] == [expected]


def test_zsh_completes_all_arguments_of_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "zsh"])
    text = capsys.readouterr().out
    assert '"(*):' not in text
    assert '"*:YAML file' in text


def test_other_commands_do_not_load_the_library() -> None:
    script = "import sys, pipeline.cli\nassert 'shtab' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)

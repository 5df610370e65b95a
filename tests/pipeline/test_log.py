"""With BILOOM_LOG=json, standard error has one JSON object per line and nothing else."""

import json
import logging
import re
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline import console as console_module
from pipeline import log
from pipeline.cli import main
from pipeline.commands import inspection
from pipeline.console import Console
from pipeline.exit_codes import ExitCode
from pipeline.log import error_line, json_line, libraries_logged, tell
from pipeline.stopping import Stopped

Tiny = Any  # of conftest.py
Command = Any
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILOOM_LOG", "json")


def objects(text: str) -> list[dict[str, Any]]:
    """The objects of standard error, without their times."""
    found = []
    for line in text.splitlines():
        record = json.loads(line)
        time = record.pop("time")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
        age = datetime.now(UTC) - datetime.fromisoformat(time)
        assert abs(age.total_seconds()) < 3600
        assert list(record)[:3] == ["level", "stage", "message"]
        found.append(record)
    return found


def written(capsys: Capture) -> list[dict[str, Any]]:
    out, err = capsys.readouterr()
    assert out == ""
    return objects(err)


def entry(message: str, level: str = "info", stage: str = "", **fields: Any) -> dict[str, Any]:
    return {"level": level, "stage": stage, "message": message, **fields}


def test_what_the_console_shows_becomes_objects_with_the_stage(capsys: Capture) -> None:
    log.set_stage("")
    console = Console()
    console.line("first")
    console.stage("prepare", "s3://bucket/run/prepare")
    console.line("two\nlines \x1b[1m")
    console.warn("look")
    console.table("splits", ["split", "tokens"], [["train", "12"], ["valid", "3"]])
    console.passage("a ", "word", " here")
    assert not console.is_terminal
    rows = [{"split": "train", "tokens": "12"}, {"split": "valid", "tokens": "3"}]
    assert written(capsys) == [
        entry("first"),
        entry("prepare", stage="prepare", folder="s3://bucket/run/prepare"),
        entry("two\nlines \\x1b[1m", stage="prepare"),
        entry("look", "warning", "prepare"),
        entry("splits", stage="prepare", rows=rows),
        entry("  a [word] here", stage="prepare"),
    ]


def test_a_bar_becomes_objects_with_its_figures(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now)
    log.set_stage("train")
    with Console().bar("train", 1000) as bar:
        bar.update(100)
        now = 5.0
        bar.update(110)
        now = 10.0
        bar.update(200, "5 tokens/s", {"train_loss": float("nan"), "dropped": {"empty": 2}})
    [record] = written(capsys)
    assert record == entry(
        "train:  20%  5 tokens/s  1:20 left",
        stage="train",
        done=200,
        total=1000,
        rate=10.0,
        train_loss=None,
        dropped={"empty": 2},
    )


def test_a_console_of_a_further_process_writes_nothing(capsys: Capture, tmp_path: Path) -> None:
    from rich.console import Console as RichConsole

    with open(tmp_path / "nowhere", "w") as nowhere:
        Console(RichConsole(file=nowhere)).line("unseen")
    assert capsys.readouterr() == ("", "")


def test_secrets_are_hidden(capsys: Capture) -> None:
    url = "https://user:pass@host/a?token=abc"
    tell(url, page=url, inner=[{url: url}])
    text = capsys.readouterr().err
    assert "pass" not in text
    assert "abc" not in text
    assert objects(text)[0]["page"] == "https://***@host/a?token=***"


def test_a_stage_writes_only_objects(tiny: Tiny, tmp_path: Path, biloom: Command) -> None:
    done = biloom.run("tokenizer", *tiny.arguments(tmp_path))
    assert (done.returncode, done.stdout) == (0, "")
    found = objects(done.stderr)
    assert {one["stage"] for one in found} == {"tokenizer"}
    assert found[0]["folder"] == f"{tmp_path}/tokenizer"
    assert found[-1]["message"].startswith("done in ")


@pytest.mark.parametrize(
    ("error", "code"),
    [(ValueError("odd"), ExitCode.BUG), (Stopped(15), ExitCode.STOPPED)],
)
def test_the_last_object_has_the_exit_code(
    error: BaseException, code: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> int:
        raise error

    monkeypatch.setattr(inspection, "inspect", fail)
    assert main(["inspect", "x"]) == code
    [record] = written(capsys)
    assert record["exit_code"] == code
    if code == ExitCode.BUG:
        assert record["level"] == "error"
        assert record["traceback"].endswith("ValueError: odd\n")
    else:
        assert record["message"] == "stopped; the same command continues from what is saved"


def test_a_mistake_is_an_object(capsys: Capture, tmp_path: Path) -> None:
    assert main(["status", str(tmp_path)]) == 2
    [record] = written(capsys)
    assert (record["level"], record["exit_code"]) == ("error", 2)
    assert "holds no stage of a run" in record["message"]


def test_a_wrong_command_line_is_an_object(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["fly"])
    [record] = written(capsys)
    assert (record["level"], record["exit_code"]) == ("error", 2)
    assert "invalid choice: 'fly'" in record["message"]
    assert main([]) == 2
    assert written(capsys)[0]["message"].startswith("usage: biloom")


def test_warnings_and_logs_of_libraries_are_objects(capsys: Capture) -> None:
    log.set_stage("")
    with libraries_logged():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.getLogger("boto").error("refused")
        logging.getLogger("boto").info("unseen")
    assert written(capsys) == [
        entry("old", "warning", category="DeprecationWarning"),
        entry("refused", "error", logger="boto"),
    ]
    assert not any(isinstance(one, log._Handler) for one in logging.getLogger().handlers)


def test_a_last_line_without_a_text_layer_is_an_object_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [record] = objects(error_line("lost", 3))
    assert record == entry("lost", "error", record["stage"], exit_code=3)
    monkeypatch.delenv("BILOOM_LOG")
    assert error_line("lost", 3) == "biloom: lost"


@pytest.mark.parametrize("value", ["JSON", "text", "1"])
def test_another_format_is_refused(
    value: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILOOM_LOG", value)
    assert main(["--version"]) == 2
    assert capsys.readouterr() == (
        "",
        f"biloom: BILOOM_LOG={value}: must be json, or unset for text\n",
    )


def test_an_empty_value_means_text(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILOOM_LOG", "")
    Console().line("text")
    tell("a note")
    assert capsys.readouterr() == ("  text\n", "biloom: a note\n")


def test_lines_of_several_threads_do_not_mix() -> None:
    script = (
        "import threading\nfrom pipeline.log import tell\n"
        "threads = [threading.Thread(target=lambda: [tell('x' * 5000) for _ in range(50)]) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\n[thread.join() for thread in threads]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert len(objects(done.stderr)) == 200


def test_an_object_holds_whole_numbers_truth_and_nothing() -> None:
    record = json.loads(json_line("info", "m", {"a": 1, "b": True, "c": None, "d": Path("/x")}))
    assert [record[key] for key in "abcd"] == [1, True, None, "/x"]

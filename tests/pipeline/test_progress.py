"""Progress is passed on in a thread: to the metrics file, and to the record that status reads."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import progress
from pipeline.cli import main
from pipeline.console import Console
from pipeline.progress import read_record, recorded, set_page
from preprocess.files import storage
from tests.pipeline.test_prometheus import parse, value

Tiny = Any  # of conftest.py
Command = Any
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "METRICS_SECONDS", 0.02)
    monkeypatch.setattr(progress, "RECORD_SECONDS", 0.02)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_progress_is_recorded_while_the_block_runs(tmp_path: Path) -> None:
    path = str(tmp_path / "status.json")
    console = Console()
    console.stage("prepare", "/run/prepare")
    with recorded(path), console.bar("prepare", 40) as bar:
        bar.update(10)
        bar.update(20, "12 tokens", {"tokens": 12})
        until(lambda: (read_record(path) or {}).get("done") == 20)
    record = read_record(path)
    assert record
    expected = {"stage": "prepare", "folder": "/run/prepare", "work": "prepare", "planned": 40}
    assert record.items() >= {**expected, "note": "12 tokens", "figures": {"tokens": 12}}.items()
    assert record["began"] <= record["moved"] <= record["written"] <= time.time()


def test_the_state_in_which_work_fails_is_recorded(tmp_path: Path) -> None:
    path, console = str(tmp_path / "status.json"), Console()
    console.stage("prepare", "/run/prepare")

    def fail() -> None:
        with recorded(path), console.bar("prepare", 40) as bar:
            until(lambda: read_record(path))
            progress._writers[-1]._seconds = 60.0
            bar.update(39)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (read_record(path) or {})["done"] == 39


def test_a_command_that_makes_nothing_writes_no_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILOOM_METRICS", str(tmp_path / "biloom.prom"))
    (tmp_path / "run" / "train").mkdir(parents=True)
    assert main(["status", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "biloom.prom").exists()


def test_short_work_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "RECORD_SECONDS", 10.0)
    before = threading.active_count()
    with recorded(str(tmp_path / "status.json")):
        pass
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


def test_the_page_of_a_job_is_recorded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "RECORD_SECONDS", 60.0)
    path = str(tmp_path / "status.json")
    Console().stage("prepare", "/run/prepare")
    with recorded(path):
        set_page("http://flink/job")
        until(lambda: read_record(path))
        assert (read_record(path) or {})["page"] == "http://flink/job"


def test_a_store_that_fails_does_not_fail_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(path: str, data: bytes) -> None:
        calls.append(path)
        raise OSError("no store")

    monkeypatch.setattr(storage, "write_bytes", fail)
    with recorded("memory://progress/status.json"):
        until(lambda: len(calls) > 1)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stage": 1}'])
def test_a_damaged_record_is_no_record(text: str, tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    assert read_record(str(path)) is None
    path.write_text(text)
    assert read_record(str(path)) is None


def test_progress_that_is_repeated_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "time", lambda: now)
    console = Console()
    console.stage("train", "/run/train")
    with console.bar("train", 10) as bar:
        for now, done, figures in ((101.0, 1, {}), (102.0, 1, {}), (103.0, 1, {"loss": 1})):
            bar.update(done, "", figures)
            moved = progress._now.moved
            assert moved == (101.0 if now < 103 else 103.0)


def test_a_command_writes_its_metrics_and_at_its_end_its_exit_code(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tmp_path / "metrics" / "biloom.prom"
    monkeypatch.setenv("BILOOM_METRICS", str(path))
    assert main(["train", *tiny.arguments(tmp_path / "run")]) == 0
    text = path.read_text()
    found = parse(text)
    assert (value(found, "running"), value(found, "exit_code")) == (0, 0)
    assert value(found, "train_step") == value(found, "work_done") == 40
    assert value(found, "work_planned") == 40
    assert value(found, "train_loss") > 0
    assert value(found, "train_tokens_per_second") > 0
    assert value(found, "valid_perplexity") > 1
    assert value(found, "tokens") == 40 * 15
    [labels] = found["biloom_running"]
    assert dict(labels) == {"stage": "train", "folder": f"{tmp_path}/run/train"}
    assert list(path.parent.iterdir()) == [path], "no temporary file is left"
    assert not progress._writers
    capsys.readouterr()


def test_a_failed_command_has_its_exit_code_in_the_metrics(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tmp_path / "biloom.prom"
    monkeypatch.setenv("BILOOM_METRICS", str(path))

    def fail(*_: object) -> None:
        until(path.exists)
        assert value(parse(path.read_text()), "running") == 1
        raise MemoryError

    monkeypatch.setattr("pipeline.stages.tokenizer.make", fail)
    assert main(["tokenizer", *tiny.arguments(tmp_path / "run")]) == 3
    assert value(parse(path.read_text()), "exit_code") == 3
    assert "memory ran out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (
            "s3://bucket/x.prom",
            "BILOOM_METRICS=s3://bucket/x.prom: must be a local file, which a collector reads",
        ),
        ("{tmp}", "BILOOM_METRICS={tmp}: is a folder; name a file in it"),
        (
            "{tmp}/file/x.prom",
            "BILOOM_METRICS: {tmp}/file: cannot write here (File exists); name another output folder",
        ),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(
    path: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BILOOM_METRICS", path.format(tmp=tmp_path))
    assert main(["status", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"biloom: {problem.format(tmp=tmp_path)}\n"


def test_a_killed_command_leaves_its_last_metrics(
    tiny: Tiny, tmp_path: Path, biloom: Command
) -> None:
    path = tmp_path / "biloom.prom"
    environment = {**os.environ, "BILOOM_METRICS": str(path)}
    words = tiny.arguments(
        tmp_path / "run", "train.steps=1000000", "train.checkpoint_steps=1000000"
    )
    with biloom.start("train", *words, env=environment) as running:
        until(path.exists)
        running.kill()
    assert value(parse(path.read_text()), "running") == 1


def test_a_record_holds_what_json_has(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    with recorded(str(path)):
        until(path.exists)
    assert json.loads(path.read_text())["biloom"]

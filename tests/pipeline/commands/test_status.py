"""`biloom status`: what a run folder says of each stage."""

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from subprocess import Popen, run
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.commands import status as module
from pipeline.commands.status import status_of
from pipeline.lifecycle.order import STAGE_ORDER
from preprocess.files.manifest import FileRecord, hash_file, read_manifest, write_manifest

Tiny = Any  # of conftest.py
Capture = pytest.CaptureFixture[str]
FORMER = Path(__file__).parents[2] / "fixtures" / "version-0.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run."""
    copy = tmp_path / "run"
    shutil.copytree(FORMER / "finished", copy)
    return copy


def told(path: Path | str, capsys: Capture) -> tuple[int, dict[str, list[str]], list[str]]:
    """The exit code, the rows of the table by stage, and the lines below it."""
    code = main(["status", str(path)])
    out, err = capsys.readouterr()
    assert err == ""
    first, head, *lines = out.splitlines()
    assert first == f"run  {path}"
    assert head == "  stages: stage | state | size | time | finished"
    rows = [line.strip().split(" | ") for line in lines[: len(STAGE_ORDER)]]
    assert [row[0] for row in rows] == list(STAGE_ORDER)
    return code, {row[0]: row[1:] for row in rows}, [line[2:] for line in lines[len(rows) :]]


def test_a_finished_run_is_done_with_sizes_times_and_dates(folder: Path, capsys: Capture) -> None:
    for stage in STAGE_ORDER:
        os.utime(folder / stage / "manifest.json", (0, 1_700_000_000))
    code, rows, lines = told(folder, capsys)
    assert (code, lines) == (0, [])
    assert {row[0] for row in rows.values()} == {"done"}
    assert rows["prepare"][1:3] == ["25.1kB", "0:00"]
    assert rows["train"][1:3] == ["64.2kB", "0:02"]
    assert rows["evaluate"][1] == "-"
    assert {row[3][:10] for row in rows.values()} <= {"2023-11-14", "2023-11-15"}


@pytest.mark.parametrize(
    ("killed", "line"),
    [
        ("prepare", "prepare: unfinished work: 2 of 5 units read, 0 finished"),
        ("train", "train: unfinished work: saved at step 10 of 40"),
        ("embed", "embed: unfinished work: 1 of 1 units read, 0 finished"),
    ],
)
def test_a_killed_stage_is_unfinished_and_says_what_is_there(
    killed: str, line: str, capsys: Capture
) -> None:
    code, rows, lines = told(FORMER / f"killed-{killed}", capsys)
    next_ = f"next: run the same command again, which resumes {killed}"
    assert (code, lines) == (0, [line, next_])
    states = {stage: row[0] for stage, row in rows.items()}
    assert states == dict.fromkeys(STAGE_ORDER, "not begun") | {killed: "unfinished"}
    assert rows[killed][1:] == ["-", "-", "-"]


def test_work_that_saved_nothing_yet_is_reported(folder: Path) -> None:
    work = folder / "train" / "_work"
    work.mkdir()
    (work / "asked.json").write_text('{"train.steps": 40}')
    found = status_of(str(folder), "train")
    assert found.state == "done"
    assert found.notes == ("unfinished work: nothing to resume from yet",)


@pytest.fixture
def sleeper() -> Iterator[Popen[bytes]]:
    with Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def put_lock(stage: Path, process: int) -> str:
    began = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]
    (stage / "_work").mkdir(parents=True, exist_ok=True)
    lock = {"host": socket.gethostname(), "process": process, "began": began}
    (stage / "_work" / "lock.json").write_text(json.dumps(lock))
    return f"process {process} on {socket.gethostname()}"


def test_a_stage_at_work_is_running_and_says_which_process_writes_it(
    tmp_path: Path, sleeper: Popen[bytes], capsys: Capture
) -> None:
    who = put_lock(tmp_path / "prepare", sleeper.pid)
    code, rows, lines = told(tmp_path, capsys)
    assert (code, rows["prepare"][0]) == (0, "running")
    assert lines == [f"prepare: being written by {who}"]
    sleeper.kill()
    sleeper.wait()
    _, rows, lines = told(tmp_path, capsys)
    assert rows["prepare"][0] == "killed"
    assert lines == [
        f"prepare: locked by {who}, which no longer runs; the next run takes over",
        "next: run the same command again, which resumes prepare",
    ]


def test_a_finished_stage_that_is_added_to_is_running(folder: Path, sleeper: Popen[bytes]) -> None:
    put_lock(folder / "embed", sleeper.pid)
    assert status_of(str(folder), "embed").state == "running"


def change_content(stage: Path) -> None:
    manifest = json.loads((stage / "manifest.json").read_text())
    manifest["content"] = "0" * 64
    (stage / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("changed", "refused", "what"),
    [
        ("tokenizer", ["prepare"], "tokenizer"),
        ("prepare", ["train", "evaluate"], "corpus"),
        ("train", ["evaluate", "export"], "checkpoint"),
        ("export", ["embed"], "model"),
    ],
)
def test_a_stage_made_from_another_input_than_the_one_beside_it_is_refused(
    changed: str, refused: list[str], what: str, folder: Path, capsys: Capture
) -> None:
    change_content(folder / changed)
    code, rows, lines = told(folder, capsys)
    assert code == 1
    assert [stage for stage, row in rows.items() if row[0] == "refused"] == refused
    assert lines == [
        f"{stage}: made from another {what} than the one in {folder / changed} now; --overwrite "
        "makes it again"
        for stage in refused
    ]


def test_a_stage_made_from_an_input_that_was_continued_is_not_refused(
    folder: Path, capsys: Capture
) -> None:
    path = folder / "export" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["details"]["replaces"] = [manifest["content"]]
    path.write_text(json.dumps({**manifest, "content": "0" * 64}))
    code, rows, lines = told(folder, capsys)
    assert (code, rows["embed"][0]) == (0, "done")
    assert lines == [
        f"embed: made from another model than the one in {folder / 'export'} now; the next run "
        "follows it, because it was continued"
    ]


def test_an_input_that_the_config_names_is_the_one_that_counts(
    folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder / "prepare", elsewhere)
    change_content(folder / "prepare")
    config = folder / "train" / "config.yaml"
    train, evaluate = config.read_text().split("\nevaluate:")
    own = train.replace("  corpus: null", f"  corpus: {elsewhere}")
    another = evaluate.replace("  corpus: null", "  corpus: /nowhere", 1)
    config.write_text(f"{own}\nevaluate:{another}")
    assert status_of(str(folder), "train").state == "done"
    change_content(elsewhere)
    found = status_of(str(folder), "train")
    assert found.state == "refused"
    assert found.notes[0].startswith(f"made from another corpus than the one in {elsewhere} now; ")
    shutil.rmtree(elsewhere)
    assert status_of(str(folder), "train").state == "done"


def test_a_damaged_manifest_is_reported(folder: Path, capsys: Capture) -> None:
    (folder / "train" / "manifest.json").write_text("{")
    code, rows, lines = told(folder, capsys)
    assert (code, rows["train"]) == (1, ["damaged", "-", "-", "-"])
    assert lines[0].startswith("train: manifest.json is damaged (")
    assert lines[0].endswith("make it again with `biloom train --overwrite`")
    assert len(lines) == 1


def test_missing_files_are_reported(folder: Path, capsys: Capture) -> None:
    (folder / "export" / "model.safetensors").unlink()
    code, rows, lines = told(folder, capsys)
    assert (code, rows["export"][0]) == (1, "damaged")
    assert lines == ["export: model.safetensors listed in manifest.json, but missing"]
    (folder / "export" / "config.json").unlink()
    assert told(folder, capsys)[2] == [
        "export: config.json and 1 more listed in manifest.json, but missing"
    ]


def test_figures_that_are_not_known_are_left_out(folder: Path) -> None:
    (folder / "train" / "stats.json").unlink()
    train = str(folder / "train")
    # As versions wrote it that did not list these files.
    write_manifest(train, replace(read_manifest(train), beside=()))
    found = status_of(str(folder), "train")
    assert (found.state, found.time) == ("done", "-")


def test_damaged_unfinished_work_is_reported(folder: Path, capsys: Capture) -> None:
    work = folder / "train" / "_work" / ("a" * 64)
    work.mkdir(parents=True)
    (work / "asked.json").write_text("{")
    code, rows, lines = told(folder, capsys)
    assert (code, rows["train"][0]) == (1, "damaged")
    [line] = [line for line in lines if "asked.json" in line]
    assert line.startswith(f"train: _work/{'a' * 64}/asked.json is damaged (")


@pytest.mark.parametrize("name", ["config.yaml", "stats.json"])
def test_damaged_files_beside_the_result_are_reported(
    folder: Path, capsys: Capture, name: str
) -> None:
    train = str(folder / "train")
    records = (
        FileRecord(one, *hash_file(f"{train}/{one}")) for one in ("config.yaml", "stats.json")
    )
    write_manifest(train, replace(read_manifest(train), beside=tuple(records)))
    path = folder / "train" / name
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    code, rows, lines = told(folder, capsys)
    assert (code, rows["train"][0]) == (1, "damaged")
    [line] = [line for line in lines if name in line]
    assert line.startswith(f"train: {name} is damaged (hash ")
    assert line.endswith("make it again with `biloom train --overwrite`")


def test_a_run_in_a_store_has_a_status_and_a_report(folder: Path, capsys: Capture) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            module.storage.write_bytes(f"memory://status/{file.relative_to(folder)}", data)
    code, rows, lines = told("memory://status", capsys)
    assert (code, lines) == (0, [])
    assert rows["train"][:3] == ["done", "64.2kB", "0:02"]
    assert rows["train"][3].startswith(f"{datetime.now():%Y-}")
    assert main(["report", "memory://status"]) == 0
    assert module.storage.exists("memory://status/report.html")


def test_status_loads_neither_torch_nor_beam(folder: Path) -> None:
    script = (
        f"import sys\nfrom pipeline.cli import main\nmain(['status', {str(folder)!r}])\n"
        "print('LOADED', [m for m in ('torch', 'apache_beam') if m in sys.modules])"
    )
    answer = run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.endswith("LOADED []\n")

"""`biloom status`: the progress of a stage that another machine runs, whose clock may differ."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import pytest

from pipeline.commands import status as module
from pipeline.lifecycle import heartbeat
from pipeline.progress import Progress
from preprocess.work import folder as folders
from tests.pipeline.commands.test_status import Capture, told


class Remote:
    """An unfinished stage in a store, begun on another machine."""

    def __init__(self, root: str) -> None:
        self.root, self.work = root, f"{root}/prepare/_work/{'a' * 64}"
        write = module.storage.write_bytes
        write(f"{self.work}/asked.json", b"{}")
        write(f"{self.work}/plan.bin", b"damaged, and not read")
        record = {"host": "node-7", "process": 12, "began": "1", "place": "there", "holder": "x"}
        write(f"{root}/prepare/_work/lock.json", json.dumps(record).encode())

    def record(self, **fields: Any) -> None:
        figures = {"units": 1_000_000, "units_read": 300_000, "units_finished": 250_000}
        progress = Progress("prepare", "s3://x", "prepare", 25.0, 100.0, 1.5, "2M tokens", figures)
        own = {"written": time.time(), "process": "process 12 on node-7", "biloom": "0.1.0"}
        record = {**asdict(progress), **own, **fields}
        module.storage.write_bytes(f"{self.work}/status.json", json.dumps(record).encode())


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    monkeypatch.setattr(heartbeat, "WATCH_SECONDS", 0.1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    ago(1.0, monkeypatch)
    yield Remote("memory://remote-status")
    module.storage.remove_tree("memory://remote-status")


def ago(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the lock file be written ``seconds`` ago."""
    monkeypatch.setattr(heartbeat, "modified", lambda path: time.time() - seconds)


def test_a_run_in_a_store_tells_its_host_heartbeat_and_progress_without_listing_its_units(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    # By a clock that is an hour late.
    remote.record(
        moved=time.time() - 3608,
        written=time.time() - 3600,
        page="http://flink:8081/#/job/running/1/overview",
    )
    listed = []
    former = module.storage.list_names

    def list_names(folder: str) -> list[str]:
        listed.append(folder)
        return former(folder)

    for place in (module.storage, folders):
        monkeypatch.setattr(place, "list_names", list_names)
    ago(4.0, monkeypatch)
    code, rows, lines = told(remote.root, capsys)
    assert (code, rows["prepare"][0]) == (0, "running")
    assert lines == [
        "prepare: being written by process 12 on node-7; last heartbeat 0:04 ago",
        "prepare: 25%, 2M tokens, 300,000 of 1,000,000 units read, 250,000 finished, last progress 0:08 ago",
        "prepare: the job's page: http://flink:8081/#/job/running/1/overview",
    ]
    assert not any(path.endswith(("units", "drops", "finished", "progress")) for path in listed)


def test_a_run_in_a_store_whose_process_was_killed_is_killed(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    remote.record(moved=time.time() - 4000, page="http://gone")
    ago(3700.0, monkeypatch)
    code, rows, lines = told(remote.root, capsys)
    assert (code, rows["prepare"][0]) == (0, "killed")
    assert lines[0] == (
        "prepare: locked by process 12 on node-7, which no longer runs (last heartbeat 1:01:40 ago); "
        "the next run takes over"
    )
    assert lines[1].startswith("prepare: 25%, 2M tokens, 300,000 of 1,000,000 units")
    assert lines[2:] == ["next: run the same command again, which resumes prepare"]


def test_a_run_without_progress_is_told_with_advice(remote: Remote, capsys: Capture) -> None:
    remote.record(moved=time.time() - 400, planned=0.0, figures={}, work="sample")
    _, rows, lines = told(remote.root, capsys)
    assert rows["prepare"][0] == "running"
    assert lines[1:] == [
        "prepare: sample: 2M tokens, last progress 6:40 ago",
        "prepare: no progress for more than 5:00; see 'When nothing moves' on the page Operations of "
        "the documentation",
    ]


def test_the_record_of_a_former_run_is_not_taken_for_the_one_that_resumes_it(
    remote: Remote, capsys: Capture
) -> None:
    moved = datetime(2026, 1, 2, 3, 4, 5)
    remote.record(
        moved=moved.timestamp(),
        written=moved.timestamp() + 900,
        process="process 9 on node-3",
        page="x",
    )
    _, rows, lines = told(remote.root, capsys)
    assert rows["prepare"][0] == "running"
    [line] = lines[1:]
    assert line.endswith("250,000 finished, last progress 2026-01-02 03:04:05")

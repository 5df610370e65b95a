"""Whether the holder of a lock runs is told by its process, its heartbeat, or by watching it."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.lifecycle import heartbeat as module
from pipeline.lifecycle.heartbeat import Heartbeat, heartbeat
from preprocess.files import processes, storage
from preprocess.files.modified import modified

ELSEWHERE = {"host": "elsewhere", "process": 1, "began": "1", "holder": "x", "place": "there"}
WHO = "process 1 on elsewhere"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.3)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)


@pytest.fixture(params=["local", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield f"{tmp_path}/lock.json" if request.param == "local" else "memory://beats/lock.json"
    storage.remove_tree("memory://beats")


def put(path: str, **fields: Any) -> None:
    storage.write_bytes(path, json.dumps({**ELSEWHERE, **fields}).encode())


def aged(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "modified", lambda path: (modified(path) or 0.0) - seconds)


def test_no_lock_or_a_damaged_one_has_no_holder(path: str) -> None:
    assert heartbeat(path) is None
    storage.write_bytes(path, b"{")
    assert heartbeat(path) is None


def test_a_process_of_this_machine_is_judged_at_once(path: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        began = processes.start_of(process.pid)
        own = {**processes.this_process()._asdict(), "process": process.pid, "began": began}
        put(path, **own)
        found = heartbeat(path)
        process.kill()
    who = f"process {process.pid} on {socket.gethostname()}"
    assert found
    assert (found.who, found.has_ended) == (who, False)
    assert found.age is not None
    gone = heartbeat(path)
    assert gone
    assert gone.has_ended
    assert os.getpid() != process.pid


@pytest.mark.parametrize("age", [1.0, 45.0])
def test_a_recent_heartbeat_of_another_machine_is_a_sign_of_life(
    path: str, age: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(path)
    aged(age, monkeypatch)
    began = time.monotonic()
    found = heartbeat(path)
    assert found
    assert (found.who, found.has_ended) == (WHO, False)
    assert found.age
    assert age <= found.age < age + 10
    assert time.monotonic() - began < module.WATCH_SECONDS


@pytest.mark.parametrize("age", [3600.0, -3600.0])
def test_a_lock_that_is_not_renewed_while_it_is_watched_is_abandoned(
    path: str, age: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(path)
    aged(age, monkeypatch)
    found = heartbeat(path)
    assert found
    assert found.has_ended
    assert found.age is not None
    assert found.age >= max(age, 0)


def test_a_lock_that_is_renewed_while_it_is_watched_is_alive_whatever_the_clocks_say(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 20.0)
    put(path)
    aged(3600.0, monkeypatch)
    timer = threading.Timer(0.1, lambda: put(path, beat=1))
    timer.start()
    assert heartbeat(path) == Heartbeat(WHO, False, 0.0)
    timer.join()


def test_a_store_that_tells_no_time_is_watched(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(path)
    monkeypatch.setattr(module, "modified", lambda path: None)
    assert heartbeat(path) == Heartbeat(WHO, True, None)


def test_a_lock_of_version_0_1_which_is_not_renewed_may_be_alive(path: str) -> None:
    storage.write_bytes(path, json.dumps({"host": "a", "process": 1, "began": "1"}).encode())
    assert heartbeat(path) == Heartbeat("process 1 on a", False, None)

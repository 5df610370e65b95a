"""The usable cores, and threads that can be started."""

import os
import threading
from pathlib import Path

import pytest

from preprocess.work import resources
from preprocess.work.resources import check_threads, usable_cores


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with 8 cores, and the folder of its cgroups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(resources, "CGROUPS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/", {}, 8),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/", {"cpu.max": "10000 100000"}, 1),
        ("0::/", {"cpu.max": "1600000 100000"}, 8),
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2),
        # Inside a container, the path of the host leads nowhere.
        ("0::/docker/1234", {"cpu.max": "200000 100000"}, 2),
        (
            "3:memory:/x\n2:cpu,cpuacct:/x",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        ("2:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("0::/", {"cpu.max": "what"}, 8),
    ],
)
def test_a_quota_limits_the_cores(
    lines: str,
    files: dict[str, str],
    expected: int,
    cores: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in files.items():
        (cores / name).parent.mkdir(parents=True, exist_ok=True)
        (cores / name).write_text(f"{text}\n")
    read = Path.read_text

    def read_text(path: Path, *arguments: str) -> str:
        return f"{lines}\n" if str(path) == "/proc/self/cgroup" else read(path, *arguments)

    monkeypatch.setattr(Path, "read_text", read_text)
    assert usable_cores() == expected


def test_the_affinity_limits_the_cores(cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert usable_cores() == 1


def test_threads_that_can_be_started_leave_nothing_behind() -> None:
    before = threading.active_count()
    check_threads(5)
    assert threading.active_count() == before


def test_a_thread_that_cannot_be_started_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start, started = threading.active_count(), threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        check_threads(5)
    assert threading.active_count() == before

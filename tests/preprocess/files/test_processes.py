"""A process is judged by its number only where the number means that process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from preprocess.files import processes
from preprocess.files.processes import flock, has_ended, start_of, this_process, unlock

Sleeper = Any  # subprocess.Popen[bytes]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
SHOW = "from preprocess.files.processes import this_process; print(this_process().place)"


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_running_process_has_not_ended(sleeper: Sleeper) -> None:
    began = start_of(sleeper.pid)
    assert began
    assert has_ended(sleeper.pid, began) is False
    assert has_ended(sleeper.pid, "1") is True, "another process has the number"


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_process_has_ended(sleeper: Sleeper, reaped: bool) -> None:
    began = start_of(sleeper.pid) or ""
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
    assert has_ended(sleeper.pid, began) is True


def test_a_hidden_process_cannot_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with /proc mounted with hidepid, for a process of another user."""

    def refuse(process: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(processes, "start_of", lambda process: None)
    assert has_ended(123, "1") is None


def test_a_child_is_another_process_in_the_same_place() -> None:
    me = this_process()
    assert me.process == os.getpid()
    assert me.began == start_of(os.getpid())
    assert places() == [me.place]
    child = os.fork()
    if not child:
        os._exit(0 if this_process()[1:] == (os.getpid(), start_of(os.getpid()), me.place) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_another_pid_namespace_or_host_name_is_another_place() -> None:
    me = this_process().place
    (namespace,) = places("unshare", "--pid", "--fork", "--mount-proc")
    assert namespace not in ("", me)
    (host,) = places("unshare", "--uts", "sh", "-c", 'hostname other; exec "$@"', "sh")
    assert host not in ("", me)


def test_a_namespace_with_the_processes_of_its_parent_in_proc_is_no_place() -> None:
    assert places("unshare", "--pid", "--fork") == [""]


def places(*before: str) -> list[str]:
    """Return the place of a new Python process, started by the command ``before``."""
    probe = [*before, "true"]
    if before and subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("creating namespaces is not permitted here")
    run = [*before, sys.executable, "-c", SHOW]
    root = Path(__file__).parents[3]
    answer = subprocess.run(run, capture_output=True, text=True, check=True, cwd=root)
    return answer.stdout.split("\n")[:-1]


def test_a_system_without_file_locks_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    flock(handle)
    unlock(handle)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(OSError, match="no file locks on this system"):
        flock(handle)
    os.close(handle)

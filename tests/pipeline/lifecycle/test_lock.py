"""A lock is respected while its holder runs, and taken over when the holder has ended."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

import pipeline.lifecycle.holder as holders
import pipeline.lifecycle.lock as locks
from pipeline.console import Console
from pipeline.lifecycle.heartbeat import heartbeat
from pipeline.lifecycle.lock import LockedError, lock
from preprocess.files import exclusive, processes, storage
from preprocess.files.errors import StorageError
from preprocess.work.aside import move_aside

Sleeper = Any  # subprocess.Popen[bytes]

HERE = socket.gethostname()
SILENCE = 0.4


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SILENCE_SECONDS", SILENCE)
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(exclusive, "SETTLE_SECONDS", 0.2)


@dataclass(frozen=True)
class Folder:
    """A folder to lock."""

    path: str

    @property
    def file(self) -> str:
        return storage.join(self.path, "_work", "lock.json")

    def hold_for_another(self, **holder: Any) -> None:
        """Write a lock file as version 0.1 does; with ``holder``, as this version does."""
        record = {"host": HERE, "process": 1, "began": "1", **holder}
        storage.write_bytes(self.file, json.dumps(record).encode())

    @contextmanager
    def renewed(self, **holder: Any) -> Iterator[None]:
        """Renew the lock file for another, as its heartbeat does."""
        is_over = threading.Event()

        def beat() -> None:
            number = 0
            while not is_over.wait(SILENCE / 4):
                number += 1
                self.hold_for_another(**holder, beat=number)

        self.hold_for_another(**holder, beat=0)
        thread = threading.Thread(target=beat)
        thread.start()
        yield
        is_over.set()
        thread.join()

    def take(self) -> str:
        """Take and release the lock, and return what was printed."""
        printed = StringIO()
        console = Console(RichConsole(file=printed, width=1000))
        with lock(self.path, self.file, console):
            assert json.loads(storage.read_bytes(self.file))["process"] == os.getpid()
        assert not storage.exists(self.file)
        return printed.getvalue()


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    yield Folder(str(tmp_path / "stage") if request.param == "local" else "memory://locked/stage")
    storage.remove_tree("memory://locked")


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def began(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]


def of(sleeper: Sleeper, **holder: Any) -> dict[str, Any]:
    return {"process": sleeper.pid, "began": began(sleeper.pid), **holder}


def waited_for(who: str) -> str:
    return (
        f"  waiting 0 s to see whether {who}, which holds the lock, still runs\n"
        f"  took over the lock of {who}, which has not renewed it for 0 s\n"
    )


# Free folders


def test_a_free_folder_is_created_locked_and_released_silently(folder: Folder) -> None:
    assert folder.take() == ""
    assert folder.take() == ""
    if not storage.is_remote(folder.path):
        assert list(Path(folder.path).iterdir()) == []


def test_a_block_that_fails_releases_the_lock(folder: Folder) -> None:
    with pytest.raises(RuntimeError), lock(folder.path, folder.file, Console()):
        raise RuntimeError
    assert not storage.exists(folder.file)


@pytest.mark.parametrize("moment", ["create", "take_over"])
def test_an_interrupt_right_after_taking_the_lock_leaves_none(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    if moment == "take_over":
        folder.hold_for_another(host="elsewhere")
    take = getattr(locks.Lease, moment)

    def interrupted(*arguments: Any) -> None:
        assert take(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(locks.Lease, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.take()
    assert not storage.exists(folder.file)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write here"):
        Folder(str(tmp_path / "file" / "stage")).take()


def test_a_folder_that_another_process_just_moved_aside_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = storage.check_writable
    moves = iter(range(2))

    def moved(path: str) -> None:
        check(path)
        if next(moves, None) is not None:
            move_aside(path)

    monkeypatch.setattr(storage, "check_writable", moved)
    assert Folder(str(tmp_path / "stage")).take() == ""
    monkeypatch.setattr(storage, "check_writable", lambda path: None)
    with pytest.raises(FileNotFoundError):
        Folder(str(tmp_path / "none" / "stage")).take()


def test_a_file_system_without_locks_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert Folder(str(tmp_path / "stage")).take() == (
        "  cannot lock this folder (No locks available); a guard file takes the lock's place\n"
    )
    assert list((tmp_path / "stage").iterdir()) == []


# Holders of this host


def test_the_lock_of_a_running_process_is_refused_at_once(folder: Folder, sleeper: Sleeper) -> None:
    for holder in ({}, {"holder": "other", "place": processes.this_process().place}):
        folder.hold_for_another(**of(sleeper, **holder))
        with pytest.raises(LockedError) as caught:
            folder.take()
        assert str(caught.value) == (
            f"{folder.path} is being written by process {sleeper.pid} on {HERE}; wait for it, or "
            "name another output folder"
        )
        assert storage.exists(folder.file)


@pytest.mark.parametrize("has_heartbeat", [True, False])
@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_process_that_has_ended_is_taken_over_at_once(
    folder: Folder, sleeper: Sleeper, reaped: bool, has_heartbeat: bool
) -> None:
    new = {"holder": "other", "place": processes.this_process().place} if has_heartbeat else {}
    folder.hold_for_another(**of(sleeper, **new))
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
    assert folder.take() == f"  took over the lock of process {sleeper.pid}, which has ended\n"


def test_a_reused_process_number_does_not_keep_the_lock(folder: Folder, sleeper: Sleeper) -> None:
    folder.hold_for_another(**of(sleeper, began="1"))
    assert "which has ended" in folder.take()


# Holders elsewhere


ELSEWHERE = [
    pytest.param({"host": "elsewhere"}, id="version 0.1, another host"),
    pytest.param({"host": "elsewhere", "holder": "other", "place": "there"}, id="another host"),
    pytest.param({"holder": "other", "place": "there"}, id="another PID namespace"),
    pytest.param({"holder": "other", "place": ""}, id="a system without PID namespaces"),
]


@pytest.mark.parametrize("holder", ELSEWHERE)
def test_the_lock_of_a_silent_holder_elsewhere_is_taken_over(
    folder: Folder, holder: dict[str, Any]
) -> None:
    folder.hold_for_another(**holder)
    assert folder.take() == waited_for(f"process 1 on {holder.get('host', HERE)}")


@pytest.mark.parametrize("holder", ELSEWHERE[1:])
def test_the_lock_of_a_holder_elsewhere_that_renews_it_is_refused_before_the_silence(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, holder: dict[str, Any]
) -> None:
    monkeypatch.setattr(processes, "SILENCE_SECONDS", 3600)
    who = f"process 1 on {holder.get('host', HERE)}"
    with folder.renewed(**holder):
        for _ in range(2):
            with pytest.raises(LockedError, match=f"is being written by {who}; wait for it"):
                folder.take()
    assert storage.exists(folder.file)


def test_a_system_without_pid_namespaces_judges_by_the_heartbeat_only(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, sleeper: Sleeper
) -> None:
    me = processes.this_process()._replace(place="")
    monkeypatch.setattr(holders, "this_process", lambda: me)
    sleeper.kill()
    sleeper.wait()
    folder.hold_for_another(process=sleeper.pid, holder="other", place="")
    assert folder.take() == waited_for(f"process {sleeper.pid} on {HERE}")


def test_a_lock_that_is_released_while_it_is_watched_is_taken(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "SILENCE_SECONDS", 3600)
    folder.hold_for_another(host="elsewhere")
    release = threading.Timer(0.2, storage.remove, (folder.file,))
    release.start()
    assert folder.take() == (
        "  waiting 3600 s to see whether process 1 on elsewhere, which holds the lock, still runs\n"
    )
    release.join()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"host": "x", "process": "1", "began": ""}', '{"host":']
)
def test_a_damaged_lock_file_is_taken_over_after_the_silence(folder: Folder, content: str) -> None:
    storage.write_bytes(folder.file, content.encode())
    assert heartbeat(folder.file) is None
    assert folder.take() == waited_for("an unknown process")


def test_one_of_several_observers_takes_a_silent_lock_over(folder: Folder) -> None:
    folder.hold_for_another(host="elsewhere", holder="other", place="there")
    end = threading.Event()

    def observe(_: int) -> str:
        try:
            with lock(folder.path, folder.file, Console()) as held:
                end.wait(10)
                held.check()
        except LockedError:
            return "refused"
        return "taken"

    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(observe, number) for number in range(4)]
        while sum(run.done() for run in runs) < 3:
            time.sleep(0.01)
        end.set()
    assert sorted(run.result() for run in runs) == ["refused", "refused", "refused", "taken"]


def test_a_lock_file_that_is_replaced_while_it_is_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = [errno.ESTALE]

    def read(path: str) -> bytes:
        if errors:
            raise OSError(errors.pop(), "Stale file handle")
        return b"new"

    monkeypatch.setattr(storage, "read_bytes", read)
    assert holders.read_lock("lock.json") == b"new"
    errors += [errno.ESTALE, errno.ESTALE]
    with pytest.raises(OSError, match="Stale"):
        holders.read_lock("lock.json")
    errors += [errno.EIO]
    with pytest.raises(OSError, match="Stale"):
        holders.read_lock("lock.json")

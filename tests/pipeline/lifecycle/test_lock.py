"""A lock is respected while its process runs, and taken over when it has ended."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from pipeline.console import Console
from pipeline.lifecycle.lock import LockedError, holder_of, lock
from preprocess.files.errors import StorageError

Sleeper = Any  # subprocess.Popen[bytes]


@dataclass(frozen=True)
class Folder:
    """A folder to lock."""

    path: Path

    @property
    def file(self) -> Path:
        return self.path / "_work" / "lock.json"

    def hold_for_another(self, **holder: Any) -> None:
        self.file.parent.mkdir(parents=True)
        self.file.write_text(json.dumps({"host": socket.gethostname(), **holder}))

    def take(self) -> str:
        """Take and release the lock, and return what was printed."""
        printed = StringIO()
        console = Console(RichConsole(file=printed, width=1000))
        with lock(str(self.path), str(self.file), console):
            assert json.loads(self.file.read_text())["process"] == os.getpid()
        assert not self.file.exists()
        return printed.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "stage")


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def began(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19]


def test_a_free_folder_is_created_locked_and_released_silently(folder: Folder) -> None:
    assert folder.take() == ""
    assert folder.take() == ""


def test_a_block_that_fails_releases_the_lock(folder: Folder) -> None:
    with (
        pytest.raises(RuntimeError),
        lock(str(folder.path), str(folder.file), Console()),
    ):
        raise RuntimeError
    assert not folder.file.exists()


def test_the_lock_of_a_running_process_is_refused(folder: Folder, sleeper: Sleeper) -> None:
    folder.hold_for_another(process=sleeper.pid, began=began(sleeper.pid))
    with pytest.raises(LockedError) as caught:
        folder.take()
    assert str(caught.value) == (
        f"{folder.path} is being written by process {sleeper.pid} on {socket.gethostname()}; "
        f"wait for it, or remove {folder.file} if that process has ended"
    )
    assert folder.file.exists()


def test_the_lock_of_another_host_is_refused(folder: Folder) -> None:
    folder.hold_for_another(host="elsewhere", process=1, began="")
    with pytest.raises(LockedError, match="is being written by process 1 on elsewhere"):
        folder.take()


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_process_that_has_ended_is_taken_over(
    folder: Folder, sleeper: Sleeper, reaped: bool
) -> None:
    folder.hold_for_another(process=sleeper.pid, began=began(sleeper.pid))
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
    assert folder.take() == (f"  took over the lock of process {sleeper.pid}, which has ended\n")


def test_a_reused_process_number_does_not_keep_the_lock(folder: Folder, sleeper: Sleeper) -> None:
    folder.hold_for_another(process=sleeper.pid, began="1")
    assert "which has ended" in folder.take()


def test_an_empty_lock_file_is_taken_over(folder: Folder) -> None:
    folder.file.parent.mkdir(parents=True)
    folder.file.touch()
    assert folder.take() == "  took over the lock of an unknown process, which has ended\n"


def test_a_lock_that_another_process_took_meanwhile_is_not_removed(folder: Folder) -> None:
    with lock(str(folder.path), str(folder.file), Console()):
        folder.file.write_text('{"host": "elsewhere", "process": 1, "began": ""}')
    assert "elsewhere" in folder.file.read_text()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StorageError, match="cannot write here"):
        Folder(file / "stage").take()


def test_the_holder_of_a_lock_is_returned(folder: Folder, sleeper: Sleeper) -> None:
    assert holder_of(str(folder.file)) is None
    folder.hold_for_another(process=sleeper.pid, began=began(sleeper.pid))
    who = f"process {sleeper.pid} on {socket.gethostname()}"
    assert holder_of(str(folder.file)) == (who, False)
    sleeper.kill()
    sleeper.wait()
    assert holder_of(str(folder.file)) == (who, True)

"""A lock file that gives a folder one writer; a lock whose process has ended is taken over."""

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.console import Console
from preprocess.errors import UserError
from preprocess.files import storage


class LockedError(UserError):
    """Another process is writing the folder; the message says which."""


@contextmanager
def lock(folder: str, path: str, console: Console) -> Iterator[Callable[[], None]]:
    """Hold the lock of ``folder`` while the block runs.

    Args:
        folder: the folder to write.
        path: its lock file.
        console: where a takeover is shown.

    Raises:
        LockedError: another process, or another host, holds the lock.
        StorageError: the folder cannot be written.
    """
    storage.check_writable(folder)
    mine = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "began": _process_start(os.getpid()),
    }
    with one_at_a_time(folder):
        _take(folder, path, mine, console)
    try:
        yield lambda: None
    finally:
        # The folder may have been moved aside.
        if _read(path) == mine:
            # Not while another process creates the folder for its lock.
            with one_at_a_time(folder):
                storage.remove(path)
                storage.remove_if_empty(path.rpartition("/")[0])


def _take(folder: str, path: str, mine: dict[str, Any], console: Console) -> None:
    if storage.create_exclusive(path, json.dumps(mine).encode()):
        return
    holder = _read(path)
    if holder and not _is_gone(holder):
        raise LockedError(
            f"{folder} is being written by process {holder['process']} on {holder['host']}; "
            f"wait for it, or remove {path} if that process has ended"
        )
    who = f"process {holder['process']}" if holder else "an unknown process"
    console.line(f"took over the lock of {who}, which has ended")
    storage.write_bytes(path, json.dumps(mine).encode())


@contextmanager
def one_at_a_time(folder: str) -> Iterator[None]:
    """Let one process at a time run the block, by the kernel's advisory lock on a local folder.

    If two processes find a stale lock file, only one of them takes it over. A store and some network
    file systems have no advisory lock; there, both can take it over.
    """
    if storage.is_remote(folder):
        yield
        return
    handle = os.open(storage.local_path(folder), os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: str) -> dict[str, Any] | None:
    try:
        holder: dict[str, Any] = json.loads(storage.read_bytes(path))
        return holder
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def holder_of(path: str) -> tuple[str, bool] | None:
    """Return who holds the lock file ``path`` and whether that process has ended.

    None if there is no lock file, or it cannot be read.
    """
    holder = _read(path)
    if holder is None:
        return None
    return f"process {holder['process']} on {holder['host']}", _is_gone(holder)


def _is_gone(holder: dict[str, Any]) -> bool:
    if holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(holder["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    # Another process may have the same number by now, especially in a container.
    return bool(holder["began"] != _process_start(holder["process"]))


def _process_start(process: int) -> str:
    """Return the start time of a process in clock ticks since boot.

    Empty if the system does not provide it, or if the process is a zombie, as in a container without
    init.
    """
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            state, *fields = file.read().rsplit(b")", 1)[1].split()
    except OSError:
        return ""
    return "" if state in (b"Z", b"X") else fields[18].decode()

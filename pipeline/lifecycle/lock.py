"""One writer a folder; a lock whose process is gone is told and taken."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.console import Console
from preprocess.errors import UserError
from preprocess.files import storage


class LockedError(UserError):
    """A folder that another process is writing; the message says which."""


@contextmanager
def lock(folder: str, path: str, console: Console) -> Iterator[None]:
    """Be the only writer of ``folder``, by the lock file ``path``, while the block runs.

    Raises:
        LockedError: another process, or another host, holds it.
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
        yield
    finally:
        if _read(path) == mine:
            storage.remove(path)


def _take(folder: str, path: str, mine: dict[str, Any], console: Console) -> None:
    if storage.create_exclusive(path, json.dumps(mine).encode()):
        return
    holder = _read(path)
    if holder and not _is_gone(holder):
        raise LockedError(
            f"{folder} is being written by process {holder['process']} on {holder['host']}; "
            f"wait for it, or remove {path} if that process is gone"
        )
    who = f"process {holder['process']}" if holder else "an unknown process"
    console.line(f"takes over the lock of {who}, which is gone")
    storage.write_bytes(path, json.dumps(mine).encode())


@contextmanager
def one_at_a_time(folder: str) -> Iterator[None]:
    """Of two processes that find a stale lock, the second finds the first's: the kernel sees to it.

    A store has no such lock; there, and on some network file systems, a stale one can be won twice.
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
    """Who holds the lock file ``path``, and whether that process is gone; None if nobody does."""
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
    # Another process may have the number by now, above all in a container.
    return bool(holder["began"] != _process_start(holder["process"]))


def _process_start(process: int) -> str:
    """When a process began, in the kernel's clock ticks; empty where the system does not tell.

    Empty also for a dead one that its parent has not yet asked about, as in a container without init.
    """
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            state, *fields = file.read().rsplit(b")", 1)[1].split()
    except OSError:
        return ""
    return "" if state in (b"Z", b"X") else fields[18].decode()

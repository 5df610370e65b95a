"""A lock file that gives a folder one writer; the lock of a process that has ended is taken over."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from pipeline.console import Console
from pipeline.lifecycle.holder import read_holder, read_lock
from pipeline.lifecycle.lease import Lease
from preprocess.errors import UserError
from preprocess.files import processes, storage
from preprocess.files.exclusive import one_at_a_time

POLL_SECONDS = 1.0
"""Time between two looks at the lock file of a process that may have ended."""
ATTEMPTS = 10


class LockedError(UserError):
    """Another process is writing the folder; the message says which."""


@contextmanager
def lock(folder: str, path: str, console: Console, wait: bool = True) -> Iterator[Lease]:
    """Hold the lock of ``folder`` while the block runs.

    The lock of a process of this host and PID namespace is taken over if that process has ended. Any
    other lock is watched: it is taken over if it does not change for `processes.SILENCE_SECONDS` by the
    clock of this process.

    Args:
        folder: the folder to write.
        path: its lock file.
        console: where waiting and a takeover are shown.
        wait: watch a lock whose holder cannot be judged, instead of raising an error at once.

    Yields:
        The lease. Call its ``check`` before the result is published.

    Raises:
        LockedError: another process holds the lock.
        LeaseLost: the block fails, or writes into the folder, after another process took the lock
            over.
        StorageError: the folder cannot be written.
    """
    lease = Lease(folder, path)
    try:
        _take(folder, path, lease, console, wait)
        try:
            with lease.kept():
                yield lease
        except UserError:
            raise
        except Exception:
            # It may be a consequence: another process removes the files that this one reads.
            lease.check()
            raise
    finally:
        lease.release(console)


def _take(folder: str, path: str, lease: Lease, console: Console, wait: bool) -> None:
    while not _create(folder, lease, console):
        seen = read_lock(path)
        ended = _wait_for_end(folder, path, seen, console, wait) if seen is not None else ""
        if seen is None or not ended:
            continue
        if lease.take_over(seen):
            console.line(f"took over the lock of {ended}")
            return
        if (now := read_lock(path)) is not None:
            raise _locked(folder, now)


def _create(folder: str, lease: Lease, console: Console) -> bool:
    for attempt in count(1):
        storage.check_writable(folder)
        try:
            with one_at_a_time(folder) as reason:
                created = lease.create()
            break
        except FileNotFoundError:
            # Another process has just moved the folder aside.
            if attempt == ATTEMPTS:
                raise
    if reason:
        console.line(f"cannot lock this folder ({reason}); a guard file takes the lock's place")
    return created


def _wait_for_end(folder: str, path: str, seen: bytes, console: Console, wait: bool) -> str:
    """Wait until the holder of a lock file has ended.

    Args:
        folder: the locked folder.
        path: its lock file.
        seen: the content of the lock file.
        console: where waiting is shown.
        wait: False raises an error if the holder has to be watched.

    Returns:
        The holder and how it ended, for people; empty if it released the lock.

    Raises:
        LockedError: the holder runs, or may run and ``wait`` is False.
    """
    holder = read_holder(seen)
    ended = holder.has_ended() if holder else None
    if holder and ended:
        return f"process {holder.identity.process}, which has ended"
    if ended is False or not wait:
        raise _locked(folder, seen)
    silence = f"{processes.SILENCE_SECONDS:.0f} s"
    who = holder or "an unknown process"
    console.line(f"waiting {silence} to see whether {who}, which holds the lock, still runs")
    start = time.monotonic()
    while True:
        # Before reading, so that this process may be suspended in between.
        waited = time.monotonic() - start
        now = read_lock(path)
        if now is None:
            return ""
        if now != seen:
            raise _locked(folder, now)
        if waited > processes.SILENCE_SECONDS:
            return f"{who}, which has not renewed it for {silence}"
        time.sleep(POLL_SECONDS)


def _locked(folder: str, content: bytes) -> LockedError:
    who = read_holder(content) or "an unknown process"
    return LockedError(
        f"{folder} is being written by {who}; wait for it, or name another output folder"
    )

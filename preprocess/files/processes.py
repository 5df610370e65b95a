"""The identity of a process, whether that process has ended, and locks between processes.

A process number means something only in one PID namespace of one running kernel. Containers may share
a host name and have different PID namespaces, and a machine may have the name of another one.
"""

import errno
import hashlib
import os
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

SILENCE_SECONDS = 60.0
"""If a process has not renewed its file for this long, it is considered to have ended."""


class ProcessIdentity(NamedTuple):
    """A process, as other processes can recognise it.

    Attributes:
        host: the host name, for messages only.
        process: the process number.
        began: the start time in clock ticks since boot, because process numbers are reused; empty if
            the system does not provide it.
        place: names the host, its boot and the PID namespace in which the number is valid; empty if
            the system does not provide it.
    """

    host: str
    process: int
    began: str
    place: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    return _identity(os.getpid())


@lru_cache(maxsize=1)
def _identity(process: int) -> ProcessIdentity:
    return ProcessIdentity(socket.gethostname(), process, start_of(process) or "", _place())


def _place() -> str:
    """Return the ``place`` of this process.

    The host name is part of it, because virtual machines restored from one snapshot have one boot. The
    time namespace is part of it, because start times are relative to it.
    """
    try:
        # In a new PID namespace, /proc may still be that of the parent namespace.
        if str(Path("/proc/self").readlink()) != str(os.getpid()):
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        parts = [socket.gethostname(), boot, str(Path("/proc/self/ns/pid").readlink())]
        with suppress(FileNotFoundError):  # before Linux 5.6
            parts.append(str(Path("/proc/self/ns/time").readlink()))
    except OSError:
        return ""
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=8).hexdigest()


def has_ended(process: int, began: str) -> bool | None:
    """Return True if a process of this PID namespace has ended, and None if it cannot be told.

    Args:
        process: its number.
        began: its start time, as in `ProcessIdentity`.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    start = start_of(process)
    # Without a start time the process may be hidden, because it belongs to another user.
    return None if start is None else start != began


def start_of(process: int) -> str | None:
    """Return the start time of a process in clock ticks since boot.

    Empty for a zombie, as in a container without init; None if the system does not tell.
    """
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            state, *fields = file.read().rsplit(b")", 1)[1].split()
    except OSError:
        return None
    return "" if state in (b"Z", b"X") else fields[18].decode()


def flock(handle: int, *, is_shared: bool = False, waits: bool = True) -> None:
    """Lock an open file or folder in the kernel, until `unlock` or until all its handles are closed.

    Args:
        handle: its file descriptor.
        is_shared: let other processes hold a shared lock at the same time.
        waits: wait for other processes.

    Raises:
        BlockingIOError: another process holds the lock, and ``waits`` is False.
        OSError: the file system or the operating system has no such locks.
    """
    # Not at the top of the module, so that models and caches can be read on Windows.
    try:
        import fcntl
    except ImportError as error:
        raise OSError(errno.ENOLCK, "no file locks on this system") from error
    fcntl.flock(
        handle, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB)
    )


def unlock(handle: int) -> None:
    """Release the lock of `flock`, also for the copies of the handle in forked processes."""
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_UN)

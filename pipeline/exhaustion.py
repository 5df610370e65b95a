"""Errors of a process that has used up a resource: memory, threads, processes or open files."""

import errno
import os
import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

Resource = Literal["memory", "threads", "processes", "files"]

_TEXTS: dict[Resource, re.Pattern[str]] = {
    "threads": re.compile(
        r"can't start new thread|pthread_create failed|Thread creation failed"
        r"|unable to create (native )?thread"
    ),
    "processes": re.compile(r"BlockingIOError: \[Errno 11\]|fork: (retry|Resource temporarily)"),
    "files": re.compile(r"\[Errno (23|24)\]|Too many open files"),
    "memory": re.compile(
        r"\bMemoryError\b(?=[:(]|$)|OutOfMemoryError|bad_alloc|\[Errno 12\]|[Cc]annot allocate memory"
        r"|can't allocate memory|not enough memory|out of memory|failed to map segment"
        # Of Python's import machinery, which loses the MemoryError.
        r"|SystemError: error return without exception set",
        re.MULTILINE,
    ),
}
"""Messages of libraries when a resource runs out. Threads come first, because their messages may also
mention memory."""
_ERRNOS: dict[int, Resource] = {
    errno.ENOMEM: "memory",
    errno.EMFILE: "files",
    errno.ENFILE: "files",
}
_HAPPENED: dict[Resource, tuple[str, str]] = {
    "memory": ("memory ran out", ""),
    "threads": (
        "no further thread can be started",
        "; raise the limit of processes (ulimit -u) or memory",
    ),
    "processes": (
        "no further process can be started",
        "; raise the limit of processes (ulimit -u)",
    ),
    "files": ("no further file can be opened", "; raise the limit of open files (ulimit -n)"),
}
"""What happened, and what helps if no limit is known."""
_MEMORY = (("ulimit -v", resource.RLIMIT_AS, 1024), ("ulimit -d", resource.RLIMIT_DATA, 1024))
_PROCESSES = (("ulimit -u", resource.RLIMIT_NPROC, 1),)
_LIMITS: dict[Resource, tuple[tuple[str, int, int], ...]] = {
    "memory": _MEMORY,
    "threads": (*_PROCESSES, *_MEMORY),  # a thread needs address space for its stack
    "processes": (*_PROCESSES, *_MEMORY),
    "files": (("ulimit -n", resource.RLIMIT_NOFILE, 1),),
}
"""Limits of a process by resource: name in a shell, number, and unit in bytes or pieces."""
_DETAIL_CHARACTERS = 200


def exhausted(error: BaseException | None) -> str:
    """Return what ran out and what helps, if ``error`` or one of its causes says so; else "".

    The limits of this process that are set are named, such as "ulimit -v 1000000".
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if found := _of(error):
            # Of a thread or a file, the error says nothing more.
            said = " ".join(str(error).split()) if found == "memory" else ""
            return _message(found, said)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return ""


def exhausted_in(text: str, here: bool = True) -> str:
    """Return what ran out and what helps, if the output of a worker says so; else "".

    Args:
        text: the output, for instance a traceback.
        here: whether the worker is a process of this machine, which has the limits of this process.
    """
    found = _kind_of(text)
    return _message(found, here=here) if found else ""


def _of(error: BaseException) -> Resource | None:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, OSError):
        if error.errno == errno.EAGAIN and error.filename is None:
            return "processes"
        return _ERRNOS.get(error.errno or 0)
    # torch reports a GPU's memory by an error of its own.
    if type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError | ImportError | SystemError)
    ):
        return _kind_of(f"{type(error).__name__}: {error}")
    return None


def _kind_of(text: str) -> Resource | None:
    return next((name for name, pattern in _TEXTS.items() if pattern.search(text)), None)


def _message(missing: Resource, detail: str = "", here: bool = True) -> str:
    happened, advice = _HAPPENED[missing]
    if detail:
        happened += f" ({detail[:_DETAIL_CHARACTERS]})"
    limits = ", ".join(_limits(missing)) if here else ""
    return happened + (f"; raise the limit ({limits})" if limits else advice)


def _limits(missing: Resource) -> Iterator[str]:
    for name, number, unit in _LIMITS[missing]:
        value = resource.getrlimit(number)[0]
        # The kernel does not count the processes of root.
        if value != resource.RLIM_INFINITY and not (
            number == resource.RLIMIT_NPROC and not os.geteuid()
        ):
            yield f"{name} {value // unit}"
    if missing in ("threads", "processes"):
        with suppress(OSError, ValueError):  # no such file, or "max"
            yield f"pids.max of the cgroup {int(Path('/sys/fs/cgroup/pids.max').read_text())}"

"""Errors of a process that has used up a resource: memory, threads, processes or open files."""

import errno

MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory"),
    *("failed to map segment", "bad_alloc"),
)
"""Parts of messages, in lower case, of libraries that could not allocate memory."""


def exhausted(error: BaseException | None) -> str:
    """Return what ran out and what helps, if ``error`` or one of its causes says so; else ""."""
    while error is not None:
        if found := _of(error):
            return found
        error = error.__cause__
    return ""


def _of(error: BaseException) -> str:
    text = str(error).lower()
    number = error.errno if isinstance(error, OSError) else None
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # of torch, for GPUs
        or number == errno.ENOMEM
        or (isinstance(error, RuntimeError | ImportError) and any(part in text for part in MEMORY))
    ):
        first = str(error).splitlines()[:1]
        return f"memory ran out ({first[0][:200]})" if first else "memory ran out"
    if "can't start new thread" in text:
        return (
            "no further thread can be started; raise the limit of processes (ulimit -u) or memory"
        )
    if number == errno.EAGAIN and isinstance(error, OSError) and error.filename is None:
        return "no further process can be started; raise the limit of processes (ulimit -u)"
    if number in (errno.EMFILE, errno.ENFILE):
        return "no further file can be opened; raise the limit of open files (ulimit -n)"
    return ""

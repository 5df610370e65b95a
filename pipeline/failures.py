"""How an error is reported: as a message with an exit code, or as a bug with its traceback."""

import errno
import sys
import traceback

from pipeline.exit_codes import ExitCode
from preprocess.errors import JobError, UserError, one_line, printable, without_secrets

FIXABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR),
)
"""Errors of the file system that a user can fix, such as a full disk; reported without a traceback."""
RESUME = "Run the same command again to resume"
REPORT = (
    "biloom: this is a bug; please report it with the traceback, the command and the output of "
    "`biloom --version`. Finished work is kept"
)

MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory"),
    *("failed to map segment", "bad_alloc"),
)
"""Parts of messages, in lower case, of libraries that could not allocate memory."""


def report_error(error: Exception) -> ExitCode:
    """Print the message of an error, or its traceback if it is a bug; return the exit code."""
    if isinstance(error, JobError):
        return _told(str(error), ExitCode.FAILED)
    if isinstance(error, UserError):
        return _told(str(error), ExitCode.USER_ERROR)
    if isinstance(error, OSError) and error.errno in FIXABLE:
        name = one_line(str(error.filename or "a file"))
        return _told(f"{name}: {error.strerror}", ExitCode.USER_ERROR)
    if reason := exhausted(error):
        return _told(f"{reason}. {RESUME}", ExitCode.FAILED)
    print(without_secrets("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    print(REPORT, file=sys.stderr)
    return ExitCode.BUG


def _told(message: str, code: ExitCode) -> ExitCode:
    print(f"biloom: {printable(message)}", file=sys.stderr)
    return code


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
        said = " ".join(str(error).split())[:200]
        return f"memory ran out ({said})" if said else "memory ran out"
    if "can't start new thread" in text:
        return (
            "no further thread can be started; raise the limit of processes (ulimit -u) or memory"
        )
    if number == errno.EAGAIN and isinstance(error, OSError) and error.filename is None:
        return "no further process can be started; raise the limit of processes (ulimit -u)"
    if number in (errno.EMFILE, errno.ENFILE):
        return "no further file can be opened; raise the limit of open files (ulimit -n)"
    return ""

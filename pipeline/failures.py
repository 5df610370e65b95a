"""How an error is reported: as a message with an exit code, or as a bug with its traceback."""

import errno
import sys
import traceback

from pipeline.exhaustion import exhausted
from pipeline.exit_codes import ExitCode
from pipeline.log import is_json, tell
from preprocess.errors import JobError, UserError, one_line, printable, without_secrets
from preprocess.files.errors import NO_SPACE

FIXABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR),
)
"""Errors of the file system that a user can fix; reported without a traceback."""
RESUME = "Run the same command again to resume"
REPORT = (
    "this is a bug; please report it with the traceback, the command and the output of "
    "`biloom --version`. Finished work is kept"
)


def report_error(error: Exception) -> ExitCode:
    """Print the message of an error, or its traceback if it is a bug; return the exit code."""
    if isinstance(error, JobError):
        return _told(str(error), ExitCode.FAILED)
    if isinstance(error, UserError):
        return _told(str(error), ExitCode.USER_ERROR)
    if isinstance(error, OSError) and error.errno in NO_SPACE + FIXABLE:
        reason = f"{one_line(str(error.filename or 'a file'))}: {error.strerror}"
        if error.errno in FIXABLE:
            return _told(reason, ExitCode.USER_ERROR)
        return _told(f"{reason}; free some space. {RESUME}", ExitCode.FAILED)
    if reason := exhausted(error):
        return _told(f"{reason}. {RESUME}", ExitCode.FAILED)
    shown = without_secrets("".join(traceback.format_exception(error)))
    if not is_json():
        print(shown, end="", file=sys.stderr)
    tell(REPORT, "error", exit_code=ExitCode.BUG, traceback=shown)
    return ExitCode.BUG


def _told(message: str, code: ExitCode) -> ExitCode:
    tell(printable(message), "error", exit_code=code)
    return code

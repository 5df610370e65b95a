"""The exit codes of the `biloom` command."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended. A shell shows 128 + N for a process that signal N killed."""

    DONE = 0
    DAMAGED = 1
    USER_ERROR = 2
    FAILED = 3
    BUG = 70
    STOPPED = 75
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141


MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.DAMAGED: "`check`, `cache verify` or `status` found damage or a stage made from other "
    "inputs; `cache get` or `trace` found nothing",
    ExitCode.USER_ERROR: "a mistake that you can correct; finished work is kept",
    ExitCode.FAILED: "the job failed, for instance because a process was lost or memory ran out; the "
    "same command resumes",
    ExitCode.BUG: "a bug in biloom; please report the traceback",
    ExitCode.STOPPED: "stopped by SIGTERM, SIGHUP or SIGUSR1, and saved; the same command resumes",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C (SIGINT), and saved; the same command resumes",
    ExitCode.OUTPUT_CLOSED: "the program that read the output, such as `head`, has ended",
}
"""What each code means, for the help and the documentation."""

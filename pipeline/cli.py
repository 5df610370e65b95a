"""The `biloom` command. A command imports what it needs only when it runs."""

import errno
import io
import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from pipeline.commands.parser import make_parser
from pipeline.commands.registry import COMMANDS
from pipeline.stopping import STOPPED, STOPPED_MESSAGE, JobStopped, stoppable
from preprocess.errors import UserError, one_line, printable

DESCRIPTION = "Pretrain bidirectional language models on any corpus, and use their vectors."
EPILOG = (
    "CONFIG is a YAML file or the name of a shipped one (quickstart, base, chinese, ...); several "
    "are merged in order. KEY=VALUE overrides one setting. A finished stage is not run again; the "
    "same command resumes an interrupted one. `biloom COMMAND --help` lists the main settings of a "
    "command."
)
FIXABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Errors of the file system that a user can fix, such as a full disk; reported without a traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: something is damaged or missing; 2: a user's mistake; 130: stopped by SIGINT, SIGTERM
    or SIGHUP; 141: the reader of standard output closed it (128 + SIGPIPE), so the work may be
    incomplete. A second signal kills the process, so that a shell shows 128 + its number.

    Args:
        arguments: the command line without the program's name; None means ``sys.argv[1:]``.
    """
    if arguments is None:
        _use_utf8()
    parser = make_parser(COMMANDS, DESCRIPTION, EPILOG)
    options = parser.parse(sys.argv[1:] if arguments is None else arguments)
    if "run" not in options:
        return _without_command(options)
    # A file name may have characters that the terminal's encoding does not have.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with stoppable():
            code: int = options.run(options)
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        print("", STOPPED_MESSAGE, *getattr(stop, "__notes__", ()), sep="\n", file=sys.stderr)
        if arguments is None and isinstance(stop, JobStopped):
            # Threads of the engine would continue to work, or abort the process when Python exits.
            sys.stdout.flush()
            os._exit(STOPPED)
        return STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"biloom: {printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in FIXABLE:
            raise
        name = one_line(str(error.filename or "a file"))
        print(f"biloom: {name}: {error.strerror}", file=sys.stderr)
        return 2


def _use_utf8() -> None:
    """Start this program again in Python's UTF-8 mode, if the locale is another.

    A path means the same whether it comes from the shell or from a config file, which is UTF-8, and a
    run does the same on every machine. From Python 3.15 on, this mode is the default.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    # The workers inherit it.
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _without_command(options: Namespace) -> int:
    """Print the version, or, if no command is given, the help; return the exit code."""
    if getattr(options, "version", False):
        from pipeline.version import biloom_version

        print(f"biloom {biloom_version()}")
        return 0
    print(options.format_help(), end="", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

"""The `biloom` command. A command imports what it needs only when it runs."""

import io
import os
import sys
import threading
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress

from pipeline.commands.parser import make_parser
from pipeline.commands.registry import COMMANDS
from pipeline.exit_codes import ExitCode
from pipeline.failures import report_error
from pipeline.log import METRICS, check_log, is_json, libraries_logged, set_stage, tell
from pipeline.repeated_requests import repeated_requests_told
from pipeline.stopping import JobStopped, Stopped, stoppable, tell_stop
from preprocess.work.resources import check_threads, usable_cores

DESCRIPTION = "Pretrain bidirectional language models on any corpus, and use their vectors."
EPILOG = (
    "CONFIG is a YAML file or the name of a shipped one (quickstart, base, chinese, ...); several "
    "are merged in order. KEY=VALUE overrides one setting. A finished stage is not run again; the "
    "same command resumes an interrupted one. `biloom COMMAND --help` lists the main settings of a "
    "command."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, see `ExitCode`.

    A second signal kills the process, so that a shell shows 128 + its number.

    Args:
        arguments: the command line without the program's name; None means ``sys.argv[1:]``.
    """
    set_stage("")
    try:
        with libraries_logged(), repeated_requests_told(tell):
            done = _main(arguments)
        _end_metrics(done)
        return done
    except KeyboardInterrupt as stop:
        code = stop.code if isinstance(stop, Stopped) else ExitCode.INTERRUPTED
        tell_stop(code, getattr(stop, "__notes__", ()))
        _end_metrics(code)
        if arguments is None:
            _leave(code, isinstance(stop, JobStopped))
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _end_metrics(ExitCode.OUTPUT_CLOSED)
        return ExitCode.OUTPUT_CLOSED
    except Exception as error:
        code = report_error(error)
        _end_metrics(code)
        if arguments is None:
            _leave(code, code == ExitCode.FAILED)
        return code


def _end_metrics(code: int) -> None:
    """Write the metrics of the command's end, if there is a metrics file."""
    if os.environ.get(METRICS):
        from pipeline.progress import end

        end(code)


def _leave(code: ExitCode, lost: bool) -> None:
    """End the process at once if threads of an engine may hold it.

    They would continue to work, keep the process alive, or abort it while Python exits. A library that
    was loaded in part, because memory ran out, may crash then.

    Args:
        code: the exit code.
        lost: whether the command ended in the middle of its work.
    """
    others = set(threading.enumerate()) - {threading.current_thread()}
    if lost or not all(thread.daemon for thread in others):
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


def _main(arguments: Sequence[str] | None) -> int:
    if arguments is None:
        _use_utf8()
    check_log()
    if os.environ.get(METRICS):
        from pipeline.progress import check_metrics

        check_metrics()
    options = _parsed(sys.argv[1:] if arguments is None else arguments)
    if "run" not in options:
        return _without_command(options)
    # A file name may have characters that the terminal's encoding does not have.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with stoppable():
        if arguments is None:
            _limit_threads()
        code: int = options.run(options)
        sys.stdout.flush()
    return code


def _parsed(arguments: Sequence[str]) -> Namespace:
    parser, refused = make_parser(COMMANDS, DESCRIPTION, EPILOG), io.StringIO()
    try:
        with redirect_stderr(refused if is_json() else sys.stderr):
            return parser.parse(arguments)
    except SystemExit as stop:
        if text := refused.getvalue():
            tell(text.strip(), "error", exit_code=stop.code)
        raise


def _limit_threads() -> None:
    """Let native libraries start as many threads as there are usable cores, if they can be started."""
    cores = usable_cores()
    # Native libraries respect the affinity, but not the CPU quota of a container.
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    # One process per core reads a corpus, and each needs no threads for its tokenizer.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    check_threads(cores)


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
    if is_json():
        tell(options.format_help(), "error", exit_code=ExitCode.USER_ERROR)
    else:
        print(options.format_help(), end="", file=sys.stderr)
    return ExitCode.USER_ERROR


if __name__ == "__main__":
    sys.exit(main())

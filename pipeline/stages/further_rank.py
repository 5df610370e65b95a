"""The program of a process that `pipeline.training.ranks` starts."""

import os
import pickle
import sys
import time

from pipeline.exit_codes import ExitCode
from pipeline.failures import report_error
from preprocess.work.resources import check_threads, end_with_parent, usable_cores

TOLD_SECONDS = 60.0
"""How long to wait to be killed by rank 0, which reports which process was lost."""


def main() -> int:
    """Read the rank and its work from standard input, take part in the training, return the exit code."""
    try:
        end_with_parent(int(sys.argv[1]))
        check_threads(usable_cores())
        return _join()
    except Exception as error:
        return report_error(error)


def _join() -> int:
    from lightning_modules.training.ranks.distribution import LostProcess
    from pipeline.stages.train import join_as

    processes, work = pickle.load(sys.stdin.buffer)
    try:
        return int(join_as(processes, *work))
    except LostProcess:
        time.sleep(TOLD_SECONDS)
        return ExitCode.FAILED


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of torch may abort a process while Python exits.
    os._exit(code)

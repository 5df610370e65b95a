"""torchrun, whose exit code is that of biloom.

torchrun itself ends with exit code 1 after a signal and after any failure, so that a restart policy cannot
tell "stopped and saved" from a mistake in the config. Run it as torchrun:

    python torchrun.py --nnodes=2 ... --no-python biloom train CONFIG
"""

import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

STOPPED, FAILED = 75, 3


def run(arguments: Sequence[str]) -> int:
    """Run torchrun, and return the exit code.

    Args:
        arguments: the arguments of torchrun.

    Returns:
        75 after a signal, which torchrun has passed on to biloom; else the exit code of the process that
        failed first, or 3 if it was killed; 0 if none failed.
    """
    try:
        main(list(arguments))
    except SignalException:
        return STOPPED
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else FAILED
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

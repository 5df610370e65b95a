"""Start the other processes of a training on this machine, and watch them.

No process outlives the one that started it, and a process that dies ends the training with a message
that names it.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.exit_codes import ExitCode
from pipeline.log import tell
from pipeline.stopping import STOP_SIGNALS
from pipeline.training.processes import Processes
from preprocess.errors import JobError, UserError

BLOCKED = (*STOP_SIGNALS, signal.SIGUSR2)
"""Signals that a process leaves pending until training handles them."""
MODULE = "pipeline.stages.further_rank"
POLL_SECONDS = 0.1
NOTICE_SECONDS = 2.0
"""How long the cause of a broken connection, the death of a process, may take to be noticed."""
LEAVE_SECONDS = 30.0
"""How long the main thread may take to notice that a process has died."""
END_SECONDS = 60.0
"""How long a process may take to end after the last step."""


class LocalRanks:
    """The processes that this process started.

    Args:
        processes: the processes of the training.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._over, self._lost = threading.Event(), threading.Event()
        self._error: UserError | None = None

    def start(self, port: int, work: Any) -> None:
        """Start the processes, and a thread that watches them.

        Args:
            port: where they meet.
            work: arguments of `pipeline.stages.train.join_as` after the first; pickled.
        """
        root = str(Path(__file__).parents[2])
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        former = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        try:
            for rank in self._processes.started:
                own = self._processes.of_rank(rank, port)
                child = subprocess.Popen(
                    # Without -P, a folder `pipeline` in the current folder would be imported.
                    [sys.executable, "-P", "-m", MODULE, str(os.getpid())],
                    stdin=subprocess.PIPE,
                    env=environment,
                )
                self._children[rank] = child
                assert child.stdin
                with suppress(BrokenPipeError):  # it has died, which is reported later
                    child.stdin.write(pickle.dumps((own, work)))
                    child.stdin.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
        if self._children:
            threading.Thread(target=self._watch, daemon=True).start()

    def check(self) -> None:
        """Raise an error that names a process that has died.

        Raises:
            JobError: a process was killed or failed.
            UserError: a process stopped because of a user's mistake, which it has reported.
        """
        if self._error:
            raise self._error

    def lost(self) -> UserError | None:
        """Return the error about a process that has died, if one dies soon."""
        if self._children:
            self._lost.wait(NOTICE_SECONDS)
        return self._error

    def finish(self) -> None:
        """Wait for the processes to end, which they do after the last step."""
        self._over.set()
        for child in self._children.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End all processes."""
        self._over.set()
        for child in self._children.values():
            child.kill()
        for child in self._children.values():
            child.wait()
            if child.stdin:
                with suppress(BrokenPipeError):
                    child.stdin.close()

    def _watch(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            for rank, child in self._children.items():
                if child.poll():
                    self._error = _died(rank, child.pid, child.returncode)
                    self._lost.set()
                    self._leave()
                    return

    def _leave(self) -> None:
        """End this process if its main thread does not: it may be in code that waits forever."""
        if self._over.wait(LEAVE_SECONDS):
            return
        tell(str(self._error), "error", sys.__stderr__, exit_code=ExitCode.FAILED)
        self.kill()
        os._exit(ExitCode.FAILED)


def _died(rank: int, process: int, code: int) -> UserError:
    name = f"the process of rank {rank} (number {process}) of this training"
    again = "the same command resumes from the last checkpoint"
    if code == -signal.SIGKILL:
        return JobError(f"{name} was killed by SIGKILL, perhaps because memory ran out; {again}")
    if code < 0:
        return JobError(f"{name} was killed by {_signal_name(-code)}; {again}")
    kind = UserError if code == ExitCode.USER_ERROR else JobError
    return kind(
        f"{name} ended with exit code {code}; its own message is above. Correct the cause; then {again}"
    )


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"

"""Watch a running Beam job, and interrupt it if it makes no progress or has run out of a resource."""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from pipeline.beam.engine_output import EngineOutput
from pipeline.beam.unit_bar import Look
from pipeline.beam.worker_call import source_version
from pipeline.config.runners import RunnerConfig
from pipeline.console import clock, count
from pipeline.exit_codes import ExitCode
from pipeline.log import error_line
from pipeline.stopping import STOP_SIGNALS, Resender

FAILED_SECONDS = 10.0
"""How long a job may continue after a worker reported an error; the engine may stop it or retry.

Also how long the direct runner may be still after one of its threads ran out of a resource.
"""
FINISHED_SECONDS = 30.0
"""How long a job may continue after its last unit is finished."""
LEAVE_SECONDS = 20.0
"""How long an engine may hold an interrupted job, and the process after it."""
SHOWN_LINES = 5
"""Lines of the engine's output in the message about a stalled job."""

Reason = Literal["stalled", "failed", "exhausted", "finished"]


class Guard:
    """Interrupts the job that runs in its block, in the main thread, if it makes no progress.

    Attributes:
        interrupted: whether one of `STOP_SIGNALS` arrived.
        reason: why the guard interrupted the job; None if it did not.
        message: how far the job had come, and which logs to read.
    """

    def __init__(self, config: RunnerConfig, units: int, output: EngineOutput) -> None:
        self._config, self._units, self._output = config, units, output
        self._last: Look | None = None
        self._moved = time.monotonic()
        self._ended, self._told = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._resender = Resender(self._lost)
        self.interrupted = False
        self.reason: Reason | None = None
        self.message = ""

    def __enter__(self) -> None:
        # Started now, because later there may be no memory for a thread.
        threading.Thread(target=self._leave, daemon=True).start()
        self._main = threading.current_thread() is threading.main_thread()
        self._former: dict[int, Any] = {}
        if self._main:  # signal handlers can be set in the main thread only
            for number in STOP_SIGNALS:
                former = signal.getsignal(number)
                # SIGINT in any case, because the guard sends it.
                if callable(former) or number == signal.SIGINT:
                    self._former[number] = signal.signal(number, self._on_signal)
            self._resender.begin()
        self._moved = time.monotonic()

    def __exit__(self, *_: object) -> None:
        if self._main:
            self._resender.end()
        with self._lock:
            self._ended.set()
            self._told.set()
        for number, former in self._former.items():
            # After a stop, the handler is the one that lets a second signal kill the process.
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, former)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Where Ctrl-C is ignored, as under nohup, the guard's own signal is not.
        former = self._former[number]
        self.interrupted = bool(self.reason) or callable(former)
        if self.reason:
            raise KeyboardInterrupt
        if callable(former):
            former(number, frame)

    def _lost(self, error: BaseException | None) -> int | None:
        # The guard's own; `stoppable` sends the user's signal again.
        ours = self.reason and type(error) is KeyboardInterrupt
        return signal.SIGINT if ours else None

    def see(self, look: Look | None) -> None:
        """Note the progress, or None if the records cannot be read at the moment."""
        now = time.monotonic()
        if look and look != self._last:
            self._last, self._moved = look, now
        still = now - self._moved
        limit: float
        reason: Reason
        if self._last and self._last.failures:
            limit, reason = FAILED_SECONDS, "failed"
        elif self._last and self._last.finished >= self._units:
            limit, reason = FINISHED_SECONDS, "finished"
        elif self._config.kind == "direct" and self._output.exhausted:
            # The other engines repeat the work.
            limit, reason = FAILED_SECONDS, "exhausted"
        else:
            limit, reason = self._config.stall_seconds, "stalled"
        if still > limit:
            self._interrupt(reason)

    def _interrupt(self, reason: Reason) -> None:
        with self._lock:
            if self._ended.is_set() or self.reason or not self._main:
                return
            self.message = self._describe(reason)
            self.reason = reason
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
            self._told.set()

    def _leave(self) -> None:
        """Kill the process if the engine does not react to the interrupt."""
        self._told.wait()
        if self.reason is None:
            return
        if self._ended.wait(LEAVE_SECONDS):
            if self.reason == "finished":
                return
            # The main thread ends when the process begins to exit.
            threading.main_thread().join()
            time.sleep(LEAVE_SECONDS)
        else:
            # Without a text layer, which needs memory.
            line = error_line(self.message, ExitCode.FAILED)
            os.write(2, f"{line}\n".encode(errors="replace"))
        for child in _children():
            os.kill(child, signal.SIGKILL)
        os._exit(ExitCode.FAILED)

    def _describe(self, reason: Reason = "stalled") -> str:
        if reason == "exhausted":
            return exhausted_message(self._config, self._output.exhausted)
        look = self._last
        state = (
            f"{count(look.sums['bytes'])}B read, {look.tokenised:,} of {self._units:,} units through "
            f"the first pass, {look.finished:,} finished"
            if look
            else "the records of its units cannot be read"
        )
        shown = "".join(f"\n    {line}" for line in list(self._output.lines)[-SHOWN_LINES:])
        return (
            f"no progress for {clock(time.monotonic() - self._moved)} (runner.stall_seconds), so the "
            f"job was stopped; {state}. {where_to_look(self._config)}. Run the same command to "
            "resume" + (f". Last output of the engine:{shown}" if shown else "")
        )


def exhausted_message(config: RunnerConfig, reason: str) -> str:
    """Return the message about a job that ran out of a resource; ``reason`` says which."""
    return f"the job failed: {reason}. {needing_less(config)}Run the same command to resume"


def needing_less(config: RunnerConfig) -> str:
    """Return the settings with which a job needs less memory, threads and files."""
    advice = "A smaller prepare.unit_bytes needs less memory. "
    if config.kind != "direct" or config.options.mode == "in_memory":
        return advice
    return (
        f"Fewer runner.options.workers need less; runner.options.mode=in_memory the least. {advice}"
    )


def where_to_look(config: RunnerConfig) -> str:
    """Return which logs or services to check after a job has failed or stopped."""
    if config.kind == "direct":
        return "Check that input and output can be reached"
    if config.kind == "dask":
        return "Check that the cluster has workers, and read their logs"
    if config.kind == "dataflow":
        return "Read the job's log in the Google Cloud console"
    advice = "Read the logs of the engine and of its workers"
    if config.options.environment_type == "EXTERNAL":
        advice = (
            f"Read the log of the worker pool ({config.options.environment_config}), whose `python` "
            f"needs apache_beam and biloom {source_version()}; then the engine's log"
        )
    if config.kind == "flink" and config.options.cluster:
        advice += ". The cluster needs as many free slots as the job's parallelism"
    return advice


def _children() -> list[int]:
    """Return the child processes of this one; empty if the system is not Linux."""
    children: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        children += map(int, task.read_text().split())
    return children

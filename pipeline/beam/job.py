"""Run a Beam job with a progress bar, and stop it if it makes no progress.

An engine can wait forever: for a worker whose Python lacks Beam, for a worker that died when it
started, or for a job that has ended. Progress is measured by the units' records in the store, so it
is the same on every engine. If no record changes, the job is interrupted as by Ctrl-C, which is how
any engine can be stopped.
"""

import io
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import apache_beam as beam

from pipeline.beam.engines import make_pipeline
from pipeline.beam.requirements import RunnerError
from pipeline.beam.unit_bar import Look, unit_bar
from pipeline.beam.worker_call import failures, job_runs, source_version, user_errors
from pipeline.config.runners import RunnerConfig
from pipeline.console import Console, clock, count
from pipeline.stopping import STOP_SIGNALS, JobStopped
from preprocess.errors import UserError

FAILED_SECONDS = 10.0
"""How long a job may continue after a worker reported an error; the engine may stop it or retry."""
FINISHED_SECONDS = 30.0
"""How long a job may continue after its last unit is finished."""
LEAVE_SECONDS = 20.0
"""How long an engine may hold an interrupted job, and the process after it."""
LAST_LINES, LINE_CHARACTERS = 40, 300
"""Lines of the engine's output that are kept, and the length to which each is cut."""
SHOWN_LINES = 5
"""Lines of the engine's output in the message about a stalled job."""

Reason = Literal["stalled", "failed", "finished"]


class Stalled(UserError):  # noqa: N818
    """A job made no progress for `runner.stall_seconds`; the message says how far it had come."""


def run_job(
    config: RunnerConfig,
    work: str,
    console: Console,
    name: str,
    total: int,
    units: int,
    steps: beam.PTransform,
    effort: int = 1,
) -> None:
    """Run the Beam job ``steps``.

    Args:
        config: the engine.
        work: folder of the units' records.
        console: where progress is shown.
        name: name shown at the progress bar.
        total: raw bytes to read.
        units: number of units.
        steps: transform from the pipeline to the numbers of the finished units.
        effort: time per byte relative to tokenising. The direct runner starts worker processes only if
            total x effort is large.

    Raises:
        RunnerError: the engine cannot run the job.
        Stalled: no progress for `runner.stall_seconds`.
        UserError: workers reported user errors.
    """
    output = _LastOutput()
    guard = _Guard(config, units, output)
    try:
        with (
            guard,
            user_errors(work),
            job_runs(work),
            unit_bar(work, console, name, total, units, guard.see),
            output.captured(),
            make_pipeline(config, total * effort) as pipeline,
        ):
            _ = pipeline | steps | "finished" >> beam.Map(int)
    except BaseException as error:
        # Of any type, because Beam replaces an interrupt in a worker's call by another error.
        if guard.interrupted:
            match guard.reason:
                case "finished":
                    return
                case "failed":
                    raise UserError("\n".join(failures(work))) from None
                case "stalled":
                    raise Stalled("\n".join([guard.message, *_notes(error)])) from None
                case None:
                    raise _stopped(error) from None
        if isinstance(error, Exception) and not isinstance(error, UserError):
            if config.kind != "direct":
                _raise_engine_error(config, error)
            for line in output.lines:
                error.add_note(line)
        raise


def _stopped(error: BaseException) -> JobStopped:
    """Return the exception for a job that the user stopped, with the notes of ``error``."""
    stopped = JobStopped()
    for note in _notes(error):
        stopped.add_note(note)
    return stopped


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


class _Guard:
    """Interrupts the job that runs in its block, in the main thread, if it makes no progress.

    Attributes:
        interrupted: whether one of `STOP_SIGNALS` arrived.
        reason: why the guard sent it; None if the user did.
        message: how far the job had come, and which logs to read.
    """

    def __init__(self, config: RunnerConfig, units: int, output: "_LastOutput") -> None:
        self._config, self._units, self._output = config, units, output
        self._last: Look | None = None
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.interrupted = False
        self.reason: Reason | None = None
        self.message = ""

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()
        self._former: dict[int, Any] = {}
        if self._main:  # signal handlers can be set in the main thread only
            for number in STOP_SIGNALS:
                former = signal.getsignal(number)
                # SIGINT in any case, because the guard sends it.
                if callable(former) or number == signal.SIGINT:
                    self._former[number] = signal.signal(number, self._on_signal)
        self._moved = time.monotonic()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended.set()
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

    def see(self, look: Look | None) -> None:
        """Note the progress, or None if the records cannot be read at the moment."""
        now = time.monotonic()
        if look and look != self._last:
            self._last, self._moved = look, now
        still = now - self._moved
        if self._last and self._last.failures:
            limit, reason = FAILED_SECONDS, "failed"
        elif self._last and self._last.finished >= self._units:
            limit, reason = FINISHED_SECONDS, "finished"
        else:
            limit, reason = self._config.stall_seconds, "stalled"
        if still > limit:
            self._interrupt(reason)  # type: ignore[arg-type]

    def _interrupt(self, reason: Reason) -> None:
        with self._lock:
            if self._ended.is_set() or self.reason or not self._main:
                return
            self.reason, self.message = reason, self._describe()
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
        threading.Thread(target=self._leave, daemon=True).start()

    def _leave(self) -> None:
        """Kill the process if the engine does not react to the interrupt."""
        if self._ended.wait(LEAVE_SECONDS):
            if self.reason == "finished":
                return
            # The main thread ends when the process begins to exit.
            threading.main_thread().join()
            time.sleep(LEAVE_SECONDS)
        else:
            print(f"biloom: {self.message}", file=sys.__stderr__, flush=True)
        for child in _children():
            os.kill(child, signal.SIGKILL)
        os._exit(2)

    def _describe(self) -> str:
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
            f"job was stopped; {state}. {_where_to_look(self._config)}. Run the same command to "
            "resume" + (f". Last output of the engine:{shown}" if shown else "")
        )


def _where_to_look(config: RunnerConfig) -> str:
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


class _LastOutput(io.TextIOBase):
    """Keeps the last lines that Beam and the engine wrote, to explain a failure."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        self._over = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._over and threading.current_thread() is self._thread:
            return self._former.write(text)
        self.lines += [line[:LINE_CHARACTERS] for line in text.splitlines() if line.strip()]
        return len(text)

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Capture logs and standard error, which would bury our message."""
        self._former, self._thread = sys.stderr, threading.current_thread()
        root, threads = logging.getLogger(), set(threading.enumerate())
        handlers, root.handlers = root.handlers, [logging.StreamHandler(self)]
        sys.stderr = self
        failed = True
        try:
            yield
            failed = False
        finally:
            # Workers that are threads of this process still write about the failure. Keep capturing
            # their output, so that only our message is seen.
            self._over = failed and bool(set(threading.enumerate()) - threads)
            if not self._over:
                sys.stderr, root.handlers = self._former, handlers


def _raise_engine_error(config: RunnerConfig, error: Exception) -> None:
    """Raise RunnerError if ``error`` comes from the engine or its workers' Python, not from biloom."""
    text = str(error)
    if "No module named" in text:
        raise RunnerError(
            f"a worker cannot import biloom ({_line_with('No module named', text)}); install "
            f"biloom {source_version()} with the extra 'beam' in the workers' Python"
        ) from error
    unreachable = "StatusCode.UNAVAILABLE" in text
    if unreachable or (isinstance(error, RuntimeError) and "Traceback" not in text):
        reason = _line_with("details =" if unreachable else "", text)
        raise RunnerError(
            f"the engine could not run the job ({reason}). {_where_to_look(config)}. Run the same "
            "command to resume"
        ) from error


def _line_with(words: str, text: str) -> str:
    lines = [line for line in text.splitlines() if words in line]
    return lines[-1].strip()[:LINE_CHARACTERS] if lines else words


def _children() -> list[int]:
    """Return the child processes of this one; empty if the system is not Linux."""
    children: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        children += map(int, task.read_text().split())
    return children

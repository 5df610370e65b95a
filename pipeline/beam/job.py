"""A Beam job from its steps to its end, with a bar, and with an end also where nothing moves.

An engine can wait for ever: for a worker whose Python lacks Beam, for one that died as it started,
for a job that is over. Progress is what the units' records in the store say, so it is the same on
every engine; where none of them changes, the job is ended as Ctrl-C would end it, since that is what
engines can be left by.
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
from typing import Literal

import apache_beam as beam

from pipeline.beam.engines import RunnerError, make_pipeline
from pipeline.beam.unit_bar import Look, unit_bar
from pipeline.beam.worker_call import failures, source_version, user_errors
from pipeline.config.runners import RunnerConfig
from pipeline.console import Console, clock, count
from preprocess.errors import UserError

FAILED_SECONDS = 10.0
"""A worker told a mistake: the engine may end the job by itself, or go on trying."""
FINISHED_SECONDS = 30.0
"""Every unit is finished: so long the engine has to say that the job is."""
LEAVE_SECONDS = 20.0
"""How long an engine has to let go of an ended job, and the process to end."""
LAST_LINES, LINE_CHARACTERS = 40, 300
TOLD_LINES = 5
"""Of an engine's last lines, told where nothing moves."""

Reason = Literal["stalled", "failed", "finished"]


class Stalled(UserError):  # noqa: N818
    """Nothing moved for `runner.stall_seconds`; the message says what was seen last."""


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
    """Run ``steps`` over ``units`` of ``total`` raw bytes, whose records lie in ``work``.

    effort: how much longer a byte takes than in tokenising, for the choice of processes.

    Raises:
        RunnerError: the engine cannot run it.
        Stalled: nothing moved for `runner.stall_seconds`.
        UserError: what workers found wrong.
    """
    words = _LastWords()
    guard = _Guard(config, units, words)
    try:
        with (
            guard,
            user_errors(work),
            unit_bar(work, console, name, total, units, guard.see),
            words.kept(),
            make_pipeline(config, total * effort) as pipeline,
        ):
            _ = pipeline | steps | "finished" >> beam.Map(int)
    except BaseException as error:
        # Whatever it has become: Beam makes another error of one that comes up in a worker's call.
        if guard.interrupted:
            match guard.reason:
                case "finished":
                    return
                case "failed":
                    raise UserError("\n".join(failures(work))) from None
                case "stalled":
                    raise Stalled(guard.message) from None
                case None:
                    raise KeyboardInterrupt from None
        if isinstance(error, Exception) and not isinstance(error, UserError):
            if config.kind != "direct":
                _tell_trouble_of_the_engine(config, error)
            for line in words.lines:
                error.add_note(line)
        raise


class _Guard:
    """Ends the job that runs inside its block, in the main thread, where it cannot end itself."""

    def __init__(self, config: RunnerConfig, units: int, words: "_LastWords") -> None:
        self._config, self._units, self._words = config, units, words
        self._last: Look | None = None
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self.interrupted = False
        self.reason: Reason | None = None
        self.message = ""
        """What was seen before nothing moved any more, and where to look."""

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:  # signals, and so Ctrl-C, know no other
            self._former = signal.signal(signal.SIGINT, self._on_interrupt)
        self._moved = time.monotonic()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended.set()
        if self._main:
            signal.signal(signal.SIGINT, self._former)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        # Where Ctrl-C is ignored, as behind nohup, ours is not.
        self.interrupted = bool(self.reason) or callable(self._former)
        if self.reason:
            raise KeyboardInterrupt
        if callable(self._former):
            self._former(number, frame)

    def see(self, look: Look | None) -> None:
        """Take in a look at the records, or None where the store let nobody look."""
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
            self.reason, self.message = reason, self._what_was_seen()
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGINT)
        threading.Thread(target=self._leave, daemon=True).start()

    def _leave(self) -> None:
        """End the process where an engine holds on to it."""
        if self._ended.wait(LEAVE_SECONDS):
            if self.reason == "finished":
                return
            # It ends when the process begins to.
            threading.main_thread().join()
            time.sleep(LEAVE_SECONDS)
        else:
            print(f"biloom: {self.message}", file=sys.__stderr__, flush=True)
        for child in _children():
            os.kill(child, signal.SIGKILL)
        os._exit(2)

    def _what_was_seen(self) -> str:
        look = self._last
        state = (
            f"{count(look.sums['bytes'])}B read, {look.tokenised:,} of {self._units:,} units were "
            f"through the first pass, {look.finished:,} finished"
            if look
            else "the records of its units could not be read"
        )
        said = "".join(f"\n    {line}" for line in list(self._words.lines)[-TOLD_LINES:])
        return (
            f"nothing moved for {clock(time.monotonic() - self._moved)} (runner.stall_seconds), so "
            f"the job was ended; {state}. {_where_to_look(self._config)}. The same command goes on "
            "from here" + (f". The engine's last words:{said}" if said else "")
        )


def _where_to_look(config: RunnerConfig) -> str:
    if config.kind == "direct":
        return "Look whether input and output answer"
    if config.kind == "dask":
        return "Look whether the cluster has workers, and into their logs"
    if config.kind == "dataflow":
        return "Look into the job's log in the Google Cloud console"
    logs = "Look into the logs of the engine and of its workers"
    if config.options.environment_type == "EXTERNAL":
        logs = (
            f"Look into the log of the worker pool ({config.options.environment_config}), which "
            "starts the `python` of its PATH: that one needs apache_beam and biloom "
            f"{source_version()}; then into the engine's own log"
        )
    if config.kind == "flink" and config.options.cluster:
        logs += ", and whether the cluster still has as many slots as the job's parallelism"
    return logs


class _LastWords(io.TextIOBase):
    """Keeps the last lines that Beam and the engine wrote, for where they explain something."""

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
    def kept(self) -> Iterator[None]:
        """Take in what is logged and written to standard error, where it would drown a message."""
        self._former, self._thread = sys.stderr, threading.current_thread()
        root, threads = logging.getLogger(), set(threading.enumerate())
        handlers, root.handlers = root.handlers, [logging.StreamHandler(self)]
        sys.stderr = self
        failed = True
        try:
            yield
            failed = False
        finally:
            # Workers that are threads of ours still complain of what has ended; to be heard by
            # nobody, while we say why.
            self._over = failed and bool(set(threading.enumerate()) - threads)
            if not self._over:
                sys.stderr, root.handlers = self._former, handlers


def _tell_trouble_of_the_engine(config: RunnerConfig, error: Exception) -> None:
    """Raise RunnerError where ``error`` tells of the engine or of its workers' Python, not of us."""
    text = str(error)
    if "No module named" in text:
        raise RunnerError(
            f"a worker cannot load biloom ({_line_with('No module named', text)}); install "
            f"biloom {source_version()} with its extra 'beam' into the workers' Python"
        ) from error
    unreachable = "StatusCode.UNAVAILABLE" in text
    if unreachable or (isinstance(error, RuntimeError) and "Traceback" not in text):
        said = _line_with("details =" if unreachable else "", text)
        raise RunnerError(
            f"the engine could not run the job ({said}). {_where_to_look(config)}. The same "
            "command goes on from here"
        ) from error


def _line_with(words: str, text: str) -> str:
    lines = [line for line in text.splitlines() if words in line]
    return lines[-1].strip()[:LINE_CHARACTERS] if lines else words


def _children() -> list[int]:
    """The processes that this one started, where the system tells (Linux)."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        found += [int(number) for number in task.read_text().split()]
    return found

"""The progress of the stage that this process runs, and where it is written.

The console shows it. A thread also writes it to two files, so that a slow store never delays the work:
the record ``status.json`` in the stage's folder of unfinished work, which `biloom status` reads, and the
file that BILOOM_METRICS names (`pipeline.prometheus`).
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.log import METRICS, LogError, set_stage
from pipeline.prometheus import exposition
from pipeline.version import biloom_version
from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.durability import never_synced
from preprocess.files.processes import this_process

METRICS_SECONDS = 5.0
"""Time between two writes of the metrics file."""
RECORD_SECONDS = 10.0
"""Time between two writes of ``status.json``, and before the first one."""
JOIN_SECONDS = 5.0
"""How long the end of a stage waits for a write that a store delays."""

Figures = Mapping[str, Any]
"""Numbers by name, such as "tokens"; under "dropped", the dropped documents by reason."""


@dataclass
class Progress:
    """The progress of a stage.

    Attributes:
        stage: name of the stage; empty before the first one.
        folder: its folder.
        work: name of the part of it that runs, as shown at the bar; empty if there is no bar.
        done: amount of work done, in the units of ``planned``.
        planned: amount of work; 0 if unknown.
        rate: amount per second, since this process began the part.
        note: the figures as text.
        figures: the figures.
        page: web page of the engine's job; empty if there is none.
        began: when the stage began. Times are in seconds since 1970.
        moved: when the progress last changed.
    """

    stage: str = ""
    folder: str = ""
    work: str = ""
    done: float = 0.0
    planned: float = 0.0
    rate: float = 0.0
    note: str = ""
    figures: Figures = field(default_factory=dict)
    page: str = ""
    began: float = 0.0
    moved: float = 0.0


_now = Progress()
_writers: list["_Writer"] = []


def begin_stage(name: str, folder: str) -> None:
    """Set the stage that runs."""
    global _now
    set_stage(name)
    now = time.time()
    _now = Progress(one_line(name), one_line(folder), began=now, moved=now)


def write_metrics() -> None:
    """Write the metrics file, if there is one, from now on until `end`.

    Called by the commands that make something, so that `biloom status` does not overwrite their file.
    """
    if os.environ.get(METRICS) and _now.stage and not _writers:
        _start(_Writer(_write_metrics, METRICS_SECONDS, at_once=True))


class Meter:
    """Passes the updates of a bar on.

    Args:
        work: name of the bar.
        planned: amount of work, 0 if unknown.
    """

    def __init__(self, work: str, planned: float) -> None:
        self._first: tuple[float, float] | None = None
        _now.work, _now.planned = one_line(work), planned
        _now.done, _now.rate, _now.note, _now.figures = 0.0, 0.0, "", {}
        _now.moved = time.time()

    def update(self, done: float, note: str = "", figures: Figures | None = None) -> None:
        """Note the progress, as in `pipeline.console.Bar`."""
        now = time.monotonic()
        # Work of an earlier run does not count for the speed of this one.
        began, first = self._first = self._first or (now, done)
        _now.rate = (done - first) / (now - began) if now > began else 0.0
        if (done, figures or {}) != (_now.done, _now.figures):
            _now.moved = time.time()
        _now.done, _now.note, _now.figures = done, note, figures or {}


@contextmanager
def figures_kept() -> Iterator[None]:
    """Let the part of the stage that ran before the block, and its figures, be the present ones after it."""
    before = {name: getattr(_now, name) for name in _OF_A_PART}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(_now, name, value)


_OF_A_PART = ("work", "done", "planned", "rate", "note", "figures")
"""Fields of `Progress` that a `Meter` sets, without the time."""


def set_page(page: str) -> None:
    """Set the web page of the engine's job, and record it at once."""
    _now.page = page
    for writer in _writers:
        writer.write_soon()


@contextmanager
def recorded(path: str) -> Iterator[None]:
    """Write the progress to ``path`` every `RECORD_SECONDS` while the block runs."""

    def write() -> None:
        record = {
            **asdict(_now),
            "written": time.time(),
            "process": str(this_process()),
            "biloom": biloom_version(),
        }
        with never_synced():
            storage.write_bytes(path, json.dumps(record).encode())

    writer = _Writer(write, RECORD_SECONDS)
    _start(writer)
    try:
        yield
    except BaseException:
        # The state in which the work was left, unless it was so short that nothing was recorded.
        writer.end(write if writer.has_written else None)
        raise
    finally:
        _writers.remove(writer)
        writer.end()


def read_record(path: str) -> dict[str, Any] | None:
    """Return the fields of `Progress`, "written", "process" and "biloom"; None if there is no record.

    The process is written as in `pipeline.lifecycle.heartbeat.Heartbeat.who`. A damaged record is ignored,
    because it is only shown.
    """
    with suppress(FileNotFoundError, NotADirectoryError, ValueError):
        record = json.loads(storage.read_bytes(path))
        shape = {**asdict(Progress()), "written": 0.0, "process": "", "biloom": ""}
        if isinstance(record, dict) and all(
            _is_like(record.get(key), value) for key, value in shape.items()
        ):
            return record
    return None


def _is_like(found: object, value: object) -> bool:
    return (
        isinstance(found, float | int) if isinstance(value, float) else type(found) is type(value)
    )


def check_metrics() -> None:
    """Check that the metrics file can be written.

    Raises:
        LogError: it is a URL, or cannot be written.
    """
    path = os.environ.get(METRICS)
    if not path:
        return
    if storage.is_remote(path):
        raise LogError(f"{METRICS}={one_line(path)}: must be a local file, which a collector reads")
    if storage.local_path(path).is_dir():
        raise LogError(f"{METRICS}={one_line(path)}: is a folder; name a file in it")
    try:
        storage.check_writable(storage.absolute(path).rpartition("/")[0] or "/")
    except UserError as error:
        raise LogError(f"{METRICS}: {error}") from error


def end(exit_code: int) -> None:
    """Write the metrics of the command's end, if there is a metrics file."""
    global _now
    while _writers:
        _writers.pop().end(lambda: _write_metrics(exit_code))
    _now = Progress()


def _write_metrics(exit_code: int | None = None) -> None:
    # A page with the figures of one moment: the fields are changed by another thread.
    text = exposition(asdict(_now), biloom_version(), time.time(), exit_code)
    with never_synced():
        storage.write_bytes(os.environ[METRICS], text.encode())


class _Writer:
    """A thread that calls ``write`` every few seconds; its errors are ignored."""

    def __init__(self, write: Callable[[], None], seconds: float, at_once: bool = False) -> None:
        self._write, self._seconds = write, seconds
        self._wake, self._is_over = threading.Event(), False
        self.has_written = False
        if at_once:
            self._wake.set()
        self.thread = threading.Thread(target=self._run, name="biloom-progress", daemon=True)

    def write_soon(self) -> None:
        self._wake.set()

    def end(self, last: Callable[[], None] | None = None) -> None:
        """End the thread, and call ``last``, whose errors are ignored, too."""
        self._is_over = True
        self._wake.set()
        self.thread.join(JOIN_SECONDS)
        if last and not self.thread.is_alive():
            with suppress(Exception):
                last()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._seconds)
            if self._is_over:
                return
            self._wake.clear()
            self.has_written = True
            with suppress(Exception):
                self._write()


def _start(writer: _Writer) -> None:
    _writers.append(writer)
    writer.thread.start()

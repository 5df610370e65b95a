"""Long steps of the driver, such as listing the inputs, shown by the same bars as the work itself.

A step that is short shows nothing. On a large corpus, these steps take minutes.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.console import Bar, Console, clock, shown_on
from pipeline.progress import figures_kept

QUIET_SECONDS = 3.0
"""A phase that ends before shows nothing."""
POLL_SECONDS = 0.5
"""Time between two updates of the bar."""
LISTING, COMPARING, CHECKING = "listing inputs", "comparing inputs", "checking files"
COLLECTING, WRITING = "collecting records", "writing the manifest"
MOVING, REMOVING = "moving files", "removing files"
"""Names of phases."""


class Phase:
    """What a phase has done so far.

    Args:
        unit: what is counted, in the plural, such as "files"; empty if nothing is counted.
        total: how many there are; 0 if unknown.
    """

    def __init__(self, unit: str = "", total: int = 0) -> None:
        self._unit, self._total, self._began = unit, total, time.monotonic()
        self._done = 0

    def add(self, number: int = 1) -> None:
        """Count more of them as done."""
        self._done += number

    def show(self, bar: Bar) -> None:
        """Update the bar. Without a total, the note has the time since the phase began."""
        done, parts = self._done, list[str]()
        if done:
            of = f" of {self._total:,}" if self._total else ""
            parts.append(f"{done:,}{of} {self._unit}")
        if not self._total:
            parts.append(clock(time.monotonic() - self._began))
        bar.update(done, "  ".join(parts))


_running: list[Phase] = []


@contextmanager
def phase(name: str, unit: str = "", total: int = 0) -> Iterator[Phase]:
    """Show a bar while the block runs, if the block takes more than a few seconds.

    Nothing is shown before this process announced a stage (`Console.stage`), or for a phase inside another
    one. No other bar may be shown in the block.

    Args:
        name: name of the bar.
        unit: what is counted, in the plural; empty if nothing is counted.
        total: how many there are; 0 if unknown.
    """
    present, console = Phase(unit, total), shown_on()
    if console is None or _running:
        yield present
        return
    ended = threading.Event()
    arguments = (console, name, total, present, ended)
    watcher = threading.Thread(target=_watch, args=arguments, name="biloom-phase", daemon=True)
    watcher.start()
    _running.append(present)
    try:
        yield present
    finally:
        _running.remove(present)
        ended.set()
        watcher.join()


def _watch(console: Console, name: str, total: int, present: Phase, ended: threading.Event) -> None:
    if ended.wait(QUIET_SECONDS):
        return
    # If the output cannot be written, the next line that the stage prints reports it.
    with suppress(OSError), figures_kept(), console.bar(name, total) as bar:
        present.show(bar)
        while not ended.wait(POLL_SECONDS):
            present.show(bar)

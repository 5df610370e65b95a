"""A progress bar drawn from the records that running units write, the same on every engine."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipeline.beam.worker_call import failures
from pipeline.console import Console, count
from preprocess.work.done import record_counts
from preprocess.work.progress import DROPPED, ProgressSums

POLL_SECONDS = 0.5
LOOK_SHARE = 0.1
"""Largest share of the time spent on reading records, which are slow to read from a store."""
RATE_SECONDS = 30.0
"""Time span of the speed that is shown."""
REASONS = 3
"""How many reasons of dropped documents are shown."""


@dataclass(frozen=True)
class Look:
    """The progress that the records show at one moment.

    Attributes:
        sums: bytes, documents, tokens and drops, over all units.
        tokenised: number of units whose first pass is finished.
        compared: number of drop lists that are written.
        finished: number of units whose last pass is finished.
        failures: messages that workers reported.
    """

    sums: Counter[str]
    tokenised: int
    compared: int
    finished: int
    failures: tuple[str, ...] = ()


class Looker:
    """Reads the records of all units, again with each call of `look`.

    Args:
        work: folder of the units' records.
    """

    def __init__(self, work: str) -> None:
        self._work, self._sums = work, ProgressSums(work)

    def look(self) -> Look:
        """Return the present progress.

        Raises:
            OSError, ValueError: the records cannot be read at the moment.
        """
        sums = self._sums.read()
        return Look(sums, *record_counts(self._work), tuple(failures(self._work)))


@contextmanager
def unit_bar(
    work: str,
    console: Console,
    name: str,
    total: int,
    units: int,
    seen: Callable[[Look | None], None],
) -> Iterator[None]:
    """Show a progress bar while the block runs.

    Args:
        work: folder of the units' records.
        console: where the bar is shown.
        name: name of the bar.
        total: raw bytes to read.
        units: number of units.
        seen: called after each reading of the records, with the progress, or with None if they cannot
            be read.
    """
    ended = threading.Event()
    with console.bar(name, total) as bar:

        def watch() -> None:
            wait, rate, looker = POLL_SECONDS, _Rate(), Looker(work)
            while not ended.wait(wait):
                began = time.monotonic()
                # A store that fails once, or memory that is short, must not end the watch of the job.
                look = None
                with suppress(OSError, ValueError, MemoryError):
                    look = looker.look()
                wait = max(POLL_SECONDS, (time.monotonic() - began) / LOOK_SHARE)
                with suppress(MemoryError):
                    seen(look)
                    if look:
                        note = _note(look, total, units, rate)
                        bar.update(look.sums["bytes"], note, _figures(look, units))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


class _Rate:
    """Bytes per second over the last `RATE_SECONDS`."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def __call__(self, done: int) -> float:
        now = time.monotonic()
        self._looks.append((now, done))
        while now - self._looks[0][0] > RATE_SECONDS:
            self._looks.popleft()
        began, first = self._looks[0]
        return (done - first) / (now - began) if now > began else 0.0


def _figures(look: Look, units: int) -> dict[str, Any]:
    counts = {key: look.sums[key] for key in ("bytes", "documents", "tokens")}
    counts |= {"units": units, "units_read": look.tokenised, "drop_lists": look.compared}
    # Units report while they work on a long text, so that progress is seen then, too.
    counts |= {"units_finished": look.finished, "reports": look.sums["writes"]}
    return {**counts, "dropped": _drops(look)}


def _drops(look: Look) -> dict[str, int]:
    """Return the number of dropped documents by reason."""
    return {k.removeprefix(DROPPED): n for k, n in look.sums.items() if k.startswith(DROPPED)}


def _note(look: Look, total: int, units: int, rate: _Rate) -> str:
    sums = look.sums
    speed = rate(sums["bytes"])
    if sums["bytes"] >= total and look.tokenised >= units:
        if not look.finished:
            return "deduplicating"
        return f"last pass: {look.finished:,} of {units:,} units"
    parts = [f"{count(speed)}B/s"] if speed else []
    parts += [f"{count(sums['documents'])} documents", f"{count(sums['tokens'])} tokens"]
    most = sorted(_drops(look).items(), key=lambda drop: (-drop[1], drop[0]))[:REASONS]
    if most:
        parts.append("dropped: " + ", ".join(f"{count(n)} {reason}" for reason, n in most))
    return "  ".join(parts)

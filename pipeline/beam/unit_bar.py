"""A bar over units at work, drawn from the records they write, on every engine alike."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.beam.worker_call import failures
from pipeline.console import Console, count
from preprocess.work.folder import record_counts
from preprocess.work.progress import DROPPED, ProgressSums

POLL_SECONDS = 0.5
LOOK_SHARE = 0.1
"""Of the time, spent with looking: the records of thousands of units on a store take a while."""
RATE_SECONDS = 30.0
REASONS = 3
"""Reasons of drops that fit on a line."""


@dataclass(frozen=True)
class Look:
    """What the records in a folder of unfinished work say at one moment."""

    sums: Counter[str]
    tokenised: int
    """Units through the first pass."""
    compared: int
    """Drop lists."""
    finished: int
    """Units through the last pass."""
    failures: tuple[str, ...] = ()


class Looker:
    """Looks at the records of all units in ``work``, again and again."""

    def __init__(self, work: str) -> None:
        self._work, self._sums = work, ProgressSums(work)

    def look(self) -> Look:
        """What they say now.

        Raises:
            OSError, ValueError: the store lets nobody look just now.
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
    """Show a bar of ``total`` raw bytes in ``units`` while the block runs.

    ``seen`` is called with every look, and with None where the store did not let us look.
    """
    ended = threading.Event()
    with console.bar(name, total) as bar:

        def watch() -> None:
            wait, rate, looker = POLL_SECONDS, _Rate(), Looker(work)
            while not ended.wait(wait):
                began = time.monotonic()
                # The next look is soon; a store that fails now must not cost the bar.
                try:
                    look = looker.look()
                except (OSError, ValueError):
                    look = None
                wait = max(POLL_SECONDS, (time.monotonic() - began) / LOOK_SHARE)
                if look:
                    bar.update(look.sums["bytes"], _note(look, total, units, rate))
                seen(look)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


class _Rate:
    """Bytes a second of late: what a former run did, and a pause long ago, do not count."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def __call__(self, done: int) -> float:
        now = time.monotonic()
        self._looks.append((now, done))
        while now - self._looks[0][0] > RATE_SECONDS:
            self._looks.popleft()
        began, first = self._looks[0]
        return (done - first) / (now - began) if now > began else 0.0


def _note(look: Look, total: int, units: int, rate: _Rate) -> str:
    sums = look.sums
    speed = rate(sums["bytes"])
    drops = {k.removeprefix(DROPPED): n for k, n in sums.items() if k.startswith(DROPPED)}
    if sums["bytes"] >= total and look.tokenised >= units:
        if not look.finished:
            return "deduplicating"
        return f"last pass: {look.finished:,} of {units:,} units"
    parts = [f"{count(speed)}B/s"] if speed else []
    parts += [f"{count(sums['documents'])} documents", f"{count(sums['tokens'])} tokens"]
    most = sorted(drops.items(), key=lambda drop: (-drop[1], drop[0]))[:REASONS]
    if most:
        parts.append("dropped: " + ", ".join(f"{count(n)} {reason}" for reason, n in most))
    return "  ".join(parts)

"""A bar over units at work, drawn from the records they write."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.console import Console, count
from pipeline.stage import Place
from preprocess.progress import progress_sums

POLL_SECONDS = 0.5


@contextmanager
def unit_bar(place: Place, console: Console, name: str, total: int) -> Iterator[None]:
    """Show a bar of ``total`` raw bytes while the block runs."""
    ended = threading.Event()
    with console.bar(name, total) as bar:

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                # The next look is soon; a store that fails now must not cost the bar.
                try:
                    sums = progress_sums(place.work)
                except (OSError, ValueError):
                    continue
                note = f"{count(sums['documents'])} documents  {count(sums['tokens'])} tokens"
                bar.update(sums["bytes"], note)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

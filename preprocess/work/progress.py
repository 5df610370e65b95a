"""How far running units are, through files: the same on every engine and every machine."""

import json
import math
import time
from collections import Counter
from collections.abc import Sequence

from preprocess.files.durability import never_synced
from preprocess.files.storage import join, list_names, read_bytes, write_bytes
from preprocess.work.folder import progress_folder

TELL_SECONDS = 2.0
DROPPED = "dropped."
"""What the keys of drop reasons begin with."""


class Progress:
    """A running unit's counts, rewritten every few seconds."""

    def __init__(self, work: str, unit: int) -> None:
        self._path = join(progress_folder(work), f"{unit:06d}.json")
        self.bytes = self.documents = self.tokens = 0
        self.dropped: Sequence[Counter[str]] = ()
        """Counts by reason, to be added up when they are told."""
        # That a unit was begun is told at once: a large first document may take its time.
        self._told = -math.inf
        self.tell()

    def tell(self, final: bool = False) -> None:
        """Write the counts if they are due, or ``final``."""
        if final or time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            counts = {"bytes": self.bytes, "documents": self.documents, "tokens": self.tokens}
            dropped = sum(self.dropped, Counter())
            reasons = {DROPPED + reason: number for reason, number in dropped.items()}
            record = {"final": final, "counts": {**counts, **reasons}}
            with never_synced():
                write_bytes(self._path, json.dumps(record).encode())


class ProgressSums:
    """The counts of all units of a job, read again and again: of a unit that is through, once."""

    def __init__(self, work: str) -> None:
        self._folder = progress_folder(work)
        self._through: set[str] = set()
        self._sums: Counter[str] = Counter()

    def read(self) -> Counter[str]:
        """Bytes, documents, tokens and ``dropped.REASON`` so far.

        Raises:
            OSError, ValueError: a record cannot be read just now.
        """
        running: Counter[str] = Counter()
        for name in list_names(self._folder):
            if name in self._through:
                continue
            record = json.loads(read_bytes(join(self._folder, name)))
            if record["final"]:
                self._through.add(name)
                self._sums.update(record["counts"])
            else:
                running.update(record["counts"])
        return self._sums + running

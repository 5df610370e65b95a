"""Progress of running units, reported through files so that it works with every Beam engine."""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence

from preprocess.files.bulk.at_once import at_once
from preprocess.files.durability import never_synced
from preprocess.files.storage import join, list_names, read_bytes, write_bytes
from preprocess.work.folder import progress_folder

WRITE_SECONDS = 2.0
"""Minimum seconds between two writes of the progress record of a unit."""
DROPPED = "dropped."
"""Prefix of the keys that count dropped documents; the reason follows it."""


class Progress:
    """Counts of a running unit, which `write` saves for `ProgressSums`.

    Update the attributes and call `write` after each piece of work, for example each block. Each record
    differs from the one before, so the unit is seen to make progress even if its counts are the same.

    Args:
        work: folder of unfinished work.
        unit: the unit's number.
        step: name of a further step over the same unit. Its record has no counts unless they are set,
            and exists only if the step takes longer than `WRITE_SECONDS`.

    Attributes:
        bytes: raw bytes read so far.
        documents: documents read so far.
        tokens: tokens made so far.
        dropped: counters of dropped documents by reason; their sum is reported.
    """

    def __init__(self, work: str, unit: int, step: str = "") -> None:
        name = f"{unit:06d}-{step}" if step else f"{unit:06d}"
        self._path, self._step, self._writes = join(progress_folder(work), f"{name}.json"), step, 0
        self.bytes = self.documents = self.tokens = 0
        self.dropped: Sequence[Counter[str]] = ()
        self._lock = threading.Lock()  # one thread may compute while another writes
        if step:
            self._written = time.monotonic()
            return
        # Report the start immediately, because a large first document may take long.
        self._written = -math.inf
        self.write()

    def write(self, final: bool = False) -> None:
        """Write the record if the last one is older than `WRITE_SECONDS`.

        Args:
            final: write in any case, and mark the unit as finished.
        """
        with self._lock:
            if final and self._step and not self._writes:
                return
            if final or time.monotonic() - self._written > WRITE_SECONDS:
                self._written = time.monotonic()
                self._writes += 1
                counts = {"bytes": self.bytes, "documents": self.documents, "tokens": self.tokens}
                counts["writes"] = self._writes
                dropped = sum(self.dropped, Counter())
                reasons = {DROPPED + reason: number for reason, number in dropped.items()}
                record = {"final": final, "counts": {**counts, **reasons}}
                with never_synced():
                    write_bytes(self._path, json.dumps(record).encode())


class ProgressSums:
    """Reader of the counts of all units, which can be read repeatedly at little cost.

    Args:
        work: folder of unfinished work.
    """

    def __init__(self, work: str) -> None:
        self._folder = progress_folder(work)
        # Records of finished units are read once.
        self._finished: set[str] = set()
        self._sums: Counter[str] = Counter()

    def read(self) -> Counter[str]:
        """Return the sums of bytes, documents, tokens, writes and ``dropped.REASON`` over all units.

        A damaged record is ignored, because the sums are only displayed.

        Raises:
            OSError: a record cannot be read now; a later call may succeed.
        """
        running: Counter[str] = Counter()
        names = [name for name in list_names(self._folder) if name not in self._finished]
        paths = [join(self._folder, name) for name in names]
        for name, data in zip(names, at_once(self._folder, read_bytes, paths), strict=True):
            record = _parse(data)
            if record is None:
                continue
            final, counts = record
            if final:
                self._finished.add(name)
                self._sums.update(counts)
            else:
                running.update(counts)
        return self._sums + running


def _parse(data: bytes) -> tuple[bool, dict[str, int]] | None:
    """Return a record; None if it is damaged, because a unit that is done will not write it again."""
    try:
        record = json.loads(data)
        final, counts = record["final"], record["counts"]
        if type(final) is bool and all(type(number) is int for number in counts.values()):
            return final, counts
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    return None

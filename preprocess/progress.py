"""How far running units are, through files: the same on every engine and every machine."""

import json
import time
from collections import Counter

from preprocess.storage import TEMPORARY, join, list_names, read_bytes, write_bytes

TELL_SECONDS = 2.0


class Progress:
    """A running unit's counts, rewritten every few seconds."""

    def __init__(self, work: str, unit: int) -> None:
        self._path = join(work, "progress", f"{unit:06d}.json")
        self._told = time.monotonic()
        self.bytes = self.documents = self.tokens = 0

    def tell(self, final: bool = False) -> None:
        """Write the counts if they are due, or ``final``."""
        if final or time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            counts = {"bytes": self.bytes, "documents": self.documents, "tokens": self.tokens}
            write_bytes(self._path, json.dumps(counts).encode())


def progress_sums(work: str) -> Counter[str]:
    """Bytes, documents and tokens of all units so far."""
    sums: Counter[str] = Counter()
    folder = join(work, "progress")
    for name in list_names(folder):
        if not name.startswith(TEMPORARY):
            sums.update(json.loads(read_bytes(join(folder, name))))
    return sums

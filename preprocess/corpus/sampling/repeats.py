"""How much text of a corpus repeats earlier documents, estimated from a sample."""

import math
from collections.abc import Sequence

from preprocess.text.splits import text_hashes

HASH_BYTES = 16


class Repeats:
    """Counts the distinct text of a growing sample.

    The distinct text of a corpus grows with its size n as n ** exponent, with an exponent of 1 if
    nothing repeats (Heaps, "Information Retrieval", 1978, for distinct words). The exponent is taken
    from the sample and from halves of it, so the estimate for a corpus that is many times larger is
    uncertain.
    """

    def __init__(self) -> None:
        self._batches = 0
        self._bytes = [0, 0]
        self._distinct = [0, 0]
        self._all_distinct = 0
        self._seen: tuple[set[bytes], set[bytes]] = (set(), set())

    def add(self, texts: Sequence[str]) -> None:
        """Add a batch of cleaned texts, from one place of a corpus."""
        half = self._batches % 2
        self._batches += 1
        data = [text.encode() for text in texts]
        hashes = text_hashes(data)
        own, other = self._seen[half], self._seen[1 - half]
        for number, text in enumerate(data):
            key = hashes[HASH_BYTES * number : HASH_BYTES * (number + 1)]
            self._bytes[half] += len(text)
            if key not in own:
                own.add(key)
                self._distinct[half] += len(text)
                if key not in other:
                    self._all_distinct += len(text)

    @property
    def share(self) -> float:
        """Share of the bytes of the sample that are in documents equal to earlier ones, in [0, 1]."""
        total = sum(self._bytes)
        return 1 - self._all_distinct / total if total else 0.0

    def share_of(self, times: float) -> float:
        """Estimate the share of a corpus that is in documents equal to earlier ones.

        Args:
            times: size of the corpus as a multiple of the sample; at least 1.
        """
        halves = sum(self._distinct)
        if times <= 1 or not halves or not min(self._bytes):
            return self.share
        # The sample has twice the text of a half.
        exponent = min(1.0, max(0.0, math.log2(2 * self._all_distinct / halves)))
        return 1 - (1 - self.share) * math.pow(times, exponent - 1)

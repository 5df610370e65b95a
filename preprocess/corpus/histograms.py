"""Histograms of document length and tokens per word, summed over the units of a corpus."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

TOKENS_PER_WORD = (*(n / 4 for n in range(4, 25)), 8.0, 12.0, 16.0, 32.0, 64.0, 128.0)
"""Inclusive upper bounds of the bins of tokens per word; one more bin has all higher ratios."""


class Histograms:
    """Numbers of documents by length in tokens, and by tokens per word."""

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()
        self._ratios: Counter[int] = Counter()

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Count documents.

        Args:
            rows: the documents, of type `preprocess.shards.format.DOCUMENT`, shape (documents,).
        """
        _, bits = np.frexp(rows["tokens"].astype(np.float64))
        self._lengths.update(bits.tolist())
        rows = rows[rows["words"] > 0]
        bins = np.searchsorted(TOKENS_PER_WORD, rows["tokens"] / rows["words"])
        self._ratios.update(bins.tolist())

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Return the number of documents in each bin, by the lower bound of the bin.

        Returns:
            A dictionary with two histograms. Lower bounds are strings; empty bins are left out.

            tokens: bins of 0, 1, 2 to 3, 4 to 7, 8 to 15 ... tokens.
            tokens_per_word: bins of 0 to 1, and above each bound in `TOKENS_PER_WORD`. Documents
                without words are left out.
        """
        lengths = {
            str(1 << bits - 1 if bits else 0): n for bits, n in sorted(self._lengths.items())
        }
        bounds = (0.0, *TOKENS_PER_WORD)
        ratios = {f"{bounds[number]:g}": n for number, n in sorted(self._ratios.items())}
        return {"tokens": lengths, "tokens_per_word": ratios}

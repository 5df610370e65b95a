"""Distributions over the documents of a corpus, small enough to be summed over units."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

TOKENS_PER_WORD = (*(n / 4 for n in range(4, 25)), 8.0, 12.0, 16.0, 32.0, 64.0, 128.0)
"""Bounds of the bins of documents by tokens a word: the first holds 0 to 1, the last all above."""


class Histograms:
    """How many documents there are of each length, and of each number of tokens a word."""

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()
        self._ratios: Counter[int] = Counter()

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Count documents, (documents,) of type ``DOCUMENT``."""
        _, bits = np.frexp(rows["tokens"].astype(np.float64))
        self._lengths.update(bits.tolist())
        rows = rows[rows["words"] > 0]
        places = np.searchsorted(TOKENS_PER_WORD, rows["tokens"] / rows["words"])
        self._ratios.update(places.tolist())

    def to_dict(self) -> dict[str, dict[str, int]]:
        """Documents by the lower bound of their bin.

        ``tokens``: 0, 1, 2, 4, 8 ... tokens; ``tokens_per_word``: see `TOKENS_PER_WORD`.
        """
        lengths = {
            str(1 << bits - 1 if bits else 0): n for bits, n in sorted(self._lengths.items())
        }
        bounds = (0.0, *TOKENS_PER_WORD)
        ratios = {f"{bounds[place]:g}": n for place, n in sorted(self._ratios.items())}
        return {"tokens": lengths, "tokens_per_word": ratios}

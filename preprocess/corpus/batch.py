"""Batches of documents, which the first pass of prepare cleans and tokenises together."""

from collections.abc import Iterator
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from preprocess.reading.block import Block, Locations

BATCH_DOCUMENTS = 1024
"""Maximum documents to clean and tokenise together. Smaller batches are slower, and larger batches
are not faster."""

BATCH_CHARACTERS = 1 << 20
"""A batch with at least this many characters is full."""


class Batch:
    """Documents to clean and tokenise together.

    Attributes:
        texts: the texts as they were read.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._characters = 0
        self._origins: list[tuple[int, Block, int]] = []

    @property
    def full(self) -> bool:
        return len(self.texts) >= BATCH_DOCUMENTS or self._characters >= BATCH_CHARACTERS

    def fill(self, block: Block, begin: int) -> int:
        """Add documents of ``block`` from index ``begin`` until the batch is full.

        Returns:
            The index of the first document that was not added.
        """
        self._origins.append((len(self.texts), block, begin))
        texts = block.documents[begin : begin + BATCH_DOCUMENTS - len(self.texts)]
        characters = self._characters + sum(map(len, texts))
        if characters >= BATCH_CHARACTERS:
            sizes = accumulate(map(len, texts), initial=self._characters)
            last, characters = next(
                (n, size) for n, size in enumerate(sizes) if size >= BATCH_CHARACTERS
            )
            texts = texts[:last]
        self._characters = characters
        self.texts += texts
        return begin + len(texts)

    def ids(self) -> list[str]:
        """Return the id of each document; empty if it has none."""
        runs = self.locations_of(np.arange(len(self.texts)))
        return [locations.id(index) for locations, indexes in runs for index in indexes.tolist()]

    def where(self, number: int) -> str:
        """Return the location of the document with this number, as in `Rejected.where`."""
        first, block, index = next(o for o in reversed(self._origins) if o[0] <= number)
        return block.where(index + number - first)

    def locations_of(
        self, numbers: npt.NDArray[np.intp]
    ) -> Iterator[tuple[Locations, npt.NDArray[np.intp]]]:
        """Yield locations, and indexes into them, for some documents of the batch.

        Args:
            numbers: numbers of the documents in the batch, in rising order, shape (documents,).
        """
        runs: list[tuple[Locations, int]] = []
        bounds = [0]
        ends = [*(first for first, _, _ in self._origins[1:]), len(self.texts)]
        for (first, block, begin), end in zip(self._origins, ends, strict=True):
            for locations, start, stop in block.locations_of(begin, begin + end - first):
                runs.append((locations, start))
                bounds.append(bounds[-1] + stop - start)
        cuts = np.searchsorted(numbers, bounds).tolist()
        for (locations, start), first, (low, high) in zip(
            runs, bounds[:-1], pairwise(cuts), strict=True
        ):
            yield locations, numbers[low:high] - first + start

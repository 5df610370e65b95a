"""Documents in the order in which they are read, as indices into an array of token ids."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Int64Ids = npt.NDArray[np.int64]
Indices = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Documents:
    """Documents, or pieces of documents, in an order.

    A piece is a range of the positions of a document (see `preprocess.shards.stream`).

    Attributes:
        starts: index of the right token of the first position of each document, shape (documents,).
        positions: number of positions before each document, and of all, shape (documents + 1,).
        opens: whether a piece has the first position of its document, shape (documents,); None means
            that all documents are whole.
        closes: the same for the last position.
    """

    starts: Indices
    positions: Indices
    opens: npt.NDArray[np.bool_] | None = None
    closes: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, lengths: Indices, order: npt.NDArray[np.int64] | None = None) -> "Documents":
        """Return consecutive whole documents with these numbers of tokens.

        Args:
            lengths: number of tokens of each document, of a dtype that holds the sum of lengths + 1.
            order: the order in which they are read; None means as they are.
        """
        starts = np.cumsum(lengths, dtype=lengths.dtype) - lengths
        if order is not None:
            lengths, starts = lengths[order], starts[order]
        return cls(starts, cumulated(lengths + 1))

    def read(
        self,
        ids: npt.NDArray[Any],
        marks: tuple[int, int],
        start: int,
        left: Int64Ids,
        right: Int64Ids,
    ) -> None:
        """Write the tokens of consecutive positions.

        Args:
            ids: the tokens that ``starts`` refers to.
            marks: ids before and after a document.
            start: the first position.
            left: its size is the number of positions; gets the left token of each.
            right: the same for the right tokens.
        """
        end = start + len(left)
        # With the dtype of the array, because searchsorted would otherwise convert the array.
        bounds = np.array([start, end - 1], self.positions.dtype)
        first, last = np.searchsorted(self.positions, bounds, "right") - 1
        read = slice(first, last + 1)
        begins, ends = self.positions[read], self.positions[first + 1 : last + 2]
        spans = np.minimum(ends, end) - np.maximum(begins, start)
        # Index of the right token of each position; meaningless at the end of a document.
        tokens = np.arange(start, end) + np.repeat(self.starts[read] - begins, spans)
        if len(ids):
            left[:] = ids.take(tokens - 1, mode="clip")
            right[:] = ids.take(tokens, mode="clip")
        opened, closed = begins >= start, ends <= end
        if self.opens is not None and self.closes is not None:
            opened &= self.opens[read]
            closed &= self.closes[read]
        left[begins[opened] - start] = marks[0]
        right[ends[closed] - 1 - start] = marks[1]


def cumulated(sizes: Indices) -> Indices:
    """Return the sum of the sizes before each item, and of all, shape (items + 1,), of their dtype."""
    sums = np.zeros(len(sizes) + 1, sizes.dtype)
    np.cumsum(sizes, out=sums[1:])
    return sums

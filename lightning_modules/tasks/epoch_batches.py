"""Batches of texts of similar length, in an order that depends on the seed and the epoch only."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

POOL = 50
"""Batches whose texts are sorted by length, so that there is little padding."""


class EpochBatches(Sampler[list[int]]):
    """Batches of indices in an order that depends on a seed and the epoch only.

    Texts are shuffled, those of `POOL` batches sorted by length, and the batches shuffled.

    Args:
        lengths: length of each text.
        size: texts of a batch.
        seed: seed of the order; None means batches of similar length in a fixed order, for an
            evaluation.

    Attributes:
        lengths, size: the arguments.
    """

    def __init__(
        self, lengths: Sequence[int] | npt.NDArray[np.int64], size: int, seed: int | None
    ) -> None:
        self.lengths, self.size, self._seed = np.asarray(lengths), size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select an epoch; Lightning's Trainer calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        count, size = len(self.lengths), self.size
        if self._seed is None:
            order = np.argsort(self.lengths, kind="stable")
            yield from (order[start : start + size].tolist() for start in range(0, count, size))
            return
        draw = np.random.default_rng((self._seed, self._epoch))
        shuffled, batches = draw.permutation(count), []
        for first in range(0, count, size * POOL):
            pool = shuffled[first : first + size * POOL]
            pool = pool[np.argsort(self.lengths[pool], kind="stable")]
            batches += [pool[start : start + size] for start in range(0, len(pool), size)]
        yield from (batches[index].tolist() for index in draw.permutation(len(batches)))


def loader_of(data: Dataset[Any], batches: EpochBatches) -> "DataLoader[Any]":
    """Return a loader of a data set whose ``__getitem__`` makes a batch of a list of indices."""
    # The loader draws a number when it is started. Its own generator keeps torch's as it is.
    return DataLoader(data, batch_size=None, sampler=batches, generator=torch.Generator())

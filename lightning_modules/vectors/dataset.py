"""A vector cache as a torch data set."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from preprocess.vectors.cache import VectorCache
from preprocess.vectors.shard import Text


class Vectors(NamedTuple):
    """A text's vectors: text, none where the cache keeps none; vectors (layers, units, dim) float32."""

    text: Text | None
    vectors: Tensor


class Padded(NamedTuple):
    """A batch: vectors (batch, layers, units, dim), 0 beyond a text's; lengths (batch,) int64."""

    texts: list[Text | None]
    vectors: Tensor
    lengths: Tensor


class VectorDataset(Dataset[Vectors]):
    """The texts of a cache by number, in the order stored.

        loader = DataLoader(VectorDataset(cache), 32, collate_fn=pad)

    A text that was added twice at once is given twice. It can be pickled: a worker opens the cache
    again.

    Raises:
        CacheError: a shard is missing or damaged.
    """

    def __init__(self, cache: VectorCache) -> None:
        self.cache = cache
        sizes = [len(cache.block(number).keys) for number in range(len(cache.shards))]
        self._ends = np.cumsum(sizes)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, number: int) -> Vectors:
        """The text with that number; IndexError where there is none."""
        if not 0 <= number < len(self):
            raise IndexError(f"there is no text {number}; there are {len(self):,}")
        shard = int(np.searchsorted(self._ends, number, "right"))
        first = int(self._ends[shard - 1]) if shard else 0
        text, vectors = self.cache.at(self.cache.shards[shard], number - first)
        return Vectors(text, torch.from_numpy(vectors.astype(np.float32)))


def pad(batch: Sequence[Vectors]) -> Padded:
    """Texts to a batch, for a DataLoader's `collate_fn`."""
    lengths = torch.tensor([one.vectors.shape[1] for one in batch])
    layers, _, dim = batch[0].vectors.shape
    vectors = torch.zeros(len(batch), layers, int(lengths.max()), dim)
    for row, one in zip(vectors, batch, strict=True):
        row[:, : one.vectors.shape[1]] = one.vectors
    return Padded([one.text for one in batch], vectors, lengths)

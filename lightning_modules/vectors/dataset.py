"""A vector cache as a `torch.utils.data.Dataset`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from preprocess.vectors.cache import VectorCache
from preprocess.vectors.shard import Text


class Vectors(NamedTuple):
    """A text and its vectors.

    Attributes:
        text: the text, or None if the cache keeps no texts.
        vectors: (layers, units, dim) float32.
    """

    text: Text | None
    vectors: Tensor


class Padded(NamedTuple):
    """A batch of texts.

    Attributes:
        texts: the text of each row, or None if the cache keeps no texts.
        vectors: (batch, layers, units, dim) float32, 0 past the end of a text.
        lengths: units of each text, (batch,) int64.
    """

    texts: list[Text | None]
    vectors: Tensor
    lengths: Tensor


class VectorDataset(Dataset[Vectors]):
    """The texts of a vector cache and their vectors, indexed in the order they are stored.

    The dataset can be pickled; each worker of a `DataLoader` opens the cache itself.

    Example:
        >>> from biloom import VectorCache, VectorDataset
        >>> from lightning_modules.vectors.dataset import pad
        >>> dataset = VectorDataset(VectorCache.open("runs/base/embed"))
        >>> loader = DataLoader(dataset, batch_size=32, shuffle=True, collate_fn=pad)
        >>> for texts, vectors, lengths in loader:
        ...     vectors.shape  # (32, layers, units of the longest text, dim)

    Args:
        cache: the cache to read. A shard is read when one of its texts is requested.
    """

    def __init__(self, cache: VectorCache) -> None:
        self.cache = cache
        self._ends = np.cumsum(cache.sizes, dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of texts; a text that is stored twice counts twice."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Vectors:
        """Return the text with this index, counted from 0.

        Raises:
            IndexError: if ``index`` is negative or not below the number of texts.
            CacheError: if the text or its vectors are damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"no text has index {index}; the cache has {len(self):,} texts")
        shard = int(np.searchsorted(self._ends, index, "right"))
        first = int(self._ends[shard - 1]) if shard else 0
        text, vectors = self.cache.at(self.cache.shards[shard], index - first)
        return Vectors(text, torch.from_numpy(vectors.astype(np.float32)))


def pad(batch: Sequence[Vectors]) -> Padded:
    """Stack texts into a batch, padded to the longest one; the ``collate_fn`` of a `DataLoader`.

    Args:
        batch: at least one text; all have the same number of layers and the same dim.
    """
    lengths = torch.tensor([one.vectors.shape[1] for one in batch])
    layers, _, dim = batch[0].vectors.shape
    vectors = torch.zeros(len(batch), layers, int(lengths.max()), dim)
    for row, one in zip(vectors, batch, strict=True):
        row[:, : one.vectors.shape[1]] = one.vectors
    return Padded([one.text for one in batch], vectors, lengths)

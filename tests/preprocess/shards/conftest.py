"""Shards in memory for the tests of streams and windows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from preprocess.shards.format import Shard

Documents = Sequence[Sequence[int]]


@dataclass(frozen=True)
class MemoryShard(Shard):
    held: tuple[npt.NDArray[Any], ...] = ()

    @property
    def ids(self) -> npt.NDArray[Any]:
        return self.held[0]

    @property
    def lengths(self) -> npt.NDArray[np.uint32]:
        return self.held[1]


@pytest.fixture(scope="session")
def make_shards() -> Callable[..., list[Shard]]:
    """A function that makes a shard from the token ids of each document, in each of several shards."""

    def make(corpus: Sequence[Documents], sources: Sequence[str] = ()) -> list[Shard]:
        shards: list[Shard] = []
        for number, documents in enumerate(corpus):
            ids = np.array([token for document in documents for token in document], "<u2")
            lengths = np.array([len(document) for document in documents], "<u4")
            source = sources[number] if sources else "corpus"
            columns = "<u2", len(documents), len(ids), 0, 0, 0
            held = ids, lengths
            shards.append(
                MemoryShard("/nowhere", f"train-{number}", "train", source, *columns, held=held)
            )
        return shards

    return make


@pytest.fixture(scope="session")
def numbered(make_shards: Callable[..., list[Shard]]) -> Callable[..., list[Shard]]:
    """A function that makes shards from the lengths of their documents, with distinct token ids."""

    def make(*sizes: Sequence[int], sources: Sequence[str] = ()) -> list[Shard]:
        fresh = count(3)
        corpus = [[[next(fresh) for _ in range(n)] for n in shard] for shard in sizes]
        return make_shards(corpus, sources)

    return make

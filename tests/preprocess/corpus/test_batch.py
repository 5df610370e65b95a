"""Batches: every document is in one, with its place, whatever the blocks of the reader."""

import random
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.corpus import batch
from preprocess.corpus.batch import Batch
from preprocess.reading.block import Block, Locations


def make_block(number: int, runs: list[int]) -> Block:
    """Return a block with this many documents in each of its files, some of which may have none."""
    texts: list[str] = []
    locations = []
    for file, documents in enumerate(runs):
        numbers = partial(np.arange, 0, 7 * documents, 7)
        locations.append((len(texts), Locations(f"{number}-{file}.txt", "byte", numbers)))
        texts += [f"{number}-{file}.txt:{7 * index}" for index in range(documents)]
    return Block(texts, [], 0, 0, tuple(locations))


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=6), st.randoms())
def test_each_document_is_found_at_its_place(runs: list[list[int]], draw: random.Random) -> None:
    blocks = [make_block(number, one) for number, one in enumerate(runs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "BATCH_DOCUMENTS", 4)
        batches = [Batch()]
        for block in blocks:
            begin = 0
            while begin < len(block.documents):
                begin = batches[-1].fill(block, begin)
                if batches[-1].full:
                    batches.append(Batch())
    texts = [text for one in batches for text in one.texts]
    assert texts == [text for block in blocks for text in block.documents]
    for one in filter(lambda one: one.texts, batches):
        assert [one.where(number) for number in range(len(one.texts))] == one.texts
        kept = [number for number in range(len(one.texts)) if draw.random() < 0.6]
        found = [
            locations.of(index)
            for locations, indexes in one.locations_of(np.array(kept, np.intp))
            for index in indexes
        ]
        assert found == [one.texts[number] for number in kept]

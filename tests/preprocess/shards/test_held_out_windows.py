"""Held-out windows against plain lists: every position once per direction, for any rows and ranks."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.shards.format import Shard
from preprocess.shards.held_out_windows import evaluation_windows, window_count
from preprocess.shards.stream import TokenStream, boundary_ids
from preprocess.tokenizers.base import IGNORE

Boundary = Literal["eos", "bos_eos"]
Documents = Sequence[Sequence[int]]
MakeShards = Callable[..., list[Shard]]
Pair = tuple[int, int]

CORPORA = st.lists(
    st.lists(st.lists(st.integers(3, 60), max_size=5), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)
BOUNDARIES = st.sampled_from(["eos", "bos_eos"])
SIZES = st.integers(1, 30)


def pairs_of(corpus: Sequence[Documents], boundary: Boundary) -> list[Pair]:
    before, after = boundary_ids(boundary)
    documents = [document for shard in corpus for document in shard]
    return [pair for one in documents for pair in pairwise([before, *one, after])]


@settings(deadline=None)
@given(CORPORA, BOUNDARIES, SIZES, SIZES)
def test_each_position_is_read_once_per_direction_in_contiguous_rows(
    make_shards: MakeShards, corpus: list[Documents], boundary: Boundary, rows: int, unroll: int
) -> None:
    expected = pairs_of(corpus, boundary)
    stream = TokenStream(make_shards(corpus), boundary)
    batches = list(evaluation_windows(stream, rows, unroll))
    assert len(batches) == window_count(stream, rows, unroll)
    assert {ids.shape for ids, _ in batches} == {(2, unroll, min(rows, len(stream)))}
    ids, targets = (np.concatenate(part, 1) for part in zip(*batches, strict=True))
    held = targets != IGNORE
    assert not ids[~held].any()
    sizes = held.sum(1)  # (2, rows)
    assert sizes.max() - sizes.min() <= 1
    assert (sizes[0] == sizes[1]).all()
    forward: list[Pair] = []
    backward: list[Pair] = []
    for row, size in enumerate(sizes[0]):
        assert held[:, :size, row].all(), "padding is at the end"
        forward += zip(ids[0, :size, row].tolist(), targets[0, :size, row].tolist(), strict=True)
        mirrored = targets[1, :size, row][::-1].tolist(), ids[1, :size, row][::-1].tolist()
        backward += zip(*mirrored, strict=True)
    assert forward == expected
    assert backward == expected


@settings(deadline=None)
@given(CORPORA, SIZES, SIZES, st.integers(1, 5))
def test_ranks_divide_the_rows(
    make_shards: MakeShards, corpus: list[Documents], rows: int, unroll: int, world: int
) -> None:
    stream = TokenStream(make_shards(corpus), "eos")
    whole = list(evaluation_windows(stream, rows, unroll))
    shares = [list(evaluation_windows(stream, rows, unroll, (n, world))) for n in range(world)]
    widths = [batches[0][0].shape[2] for batches in shares if batches]
    # A rank whose rows have no positions may have no window.
    assert max(widths) <= -(-rows // world)
    for place, (ids, targets) in enumerate(whole):
        parts = [batches[place] for batches in shares if place < len(batches)]
        held = np.concatenate([part[1] for part in parts], 2)
        rows_held = (targets != IGNORE).any((0, 1))
        assert np.array_equal(held[..., (held != IGNORE).any((0, 1))], targets[..., rows_held])
        read = np.concatenate([part[0] for part in parts], 2)
        assert np.array_equal(read[..., (held != IGNORE).any((0, 1))], ids[..., rows_held])


def test_a_rank_without_rows_gets_no_window(make_shards: MakeShards) -> None:
    stream = TokenStream(make_shards([[[3, 4, 5]]]), "eos")
    shares = [list(evaluation_windows(stream, 2, 8, (n, 3))) for n in range(3)]
    assert [len(batches) for batches in shares] == [0, 1, 1]


@pytest.mark.parametrize("rows", [1, 3])
def test_an_empty_split_has_no_windows(rows: int) -> None:
    stream = TokenStream([], "eos")
    assert list(evaluation_windows(stream, rows, 4)) == []
    assert window_count(stream, rows, 4) == 0

"""Streams whose sources come more or less often than once a pass, against reading straight through."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.shards import windows as windows_module
from preprocess.shards.format import Shard
from preprocess.shards.stream import TokenStream
from preprocess.shards.windows import CorpusTooSmall, TrainingWindows
from preprocess.tokenizers.base import BOS, EOS

Order = Literal["shuffled", "as-given"]
ORDERS = st.sampled_from(["shuffled", "as-given"])
# Of each shard its source and the lengths of its documents.
CORPORA = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 4), min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)
FACTORS = st.fixed_dictionaries(
    {name: st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.6, 2.0, 3.7]) for name in "ab"}
)


@dataclass(frozen=True)
class MemoryShard(Shard):
    held: tuple[npt.NDArray[Any], ...] = ()

    @property
    def ids(self) -> npt.NDArray[Any]:
        return self.held[0]

    @property
    def lengths(self) -> npt.NDArray[np.uint32]:
        return self.held[1]


def make_shards(corpus: list[tuple[str, list[int]]]) -> list[MemoryShard]:
    """Shards of documents of those lengths, no two tokens alike."""
    fresh = count(3)
    shards = []
    for number, (source, sizes) in enumerate(corpus):
        lengths = np.array(sizes, "<u4")
        ids = np.array([next(fresh) for _ in range(sum(sizes))], "<u2")
        columns = "<u2", len(lengths), len(ids), 0, 0, 0
        shards.append(
            MemoryShard(
                "/nowhere", f"train-{number}", "train", source, *columns, held=(ids, lengths)
            )
        )
    return shards


def make_stream(
    corpus: list[tuple[str, list[int]]], order: Order, factors: Mapping[str, float]
) -> TokenStream:
    return TokenStream(make_shards(corpus), "bos_eos", order, 3, factors)


def straight(stream: TokenStream, number: int) -> tuple[list[int], list[int]]:
    left, right = stream.read(number, 0, int(stream.lengths(number, number + 1)[0]))
    return left.tolist(), right.tolist()


@settings(deadline=None, max_examples=60)
@given(CORPORA, FACTORS, ORDERS, st.integers(0, 9))
def test_a_pass_holds_whole_shards_as_often_as_planned(
    corpus: list[tuple[str, list[int]]], factors: dict[str, float], order: Order, number: int
) -> None:
    stream = make_stream(corpus, order, factors)
    left, right = straight(stream, number)
    assert left.count(BOS) == right.count(EOS)
    assert [t for t in left if t != BOS] == [t for t in right if t != EOS]
    found = Counter(right)
    for shard in make_shards(corpus):
        often = {found[token] for token in shard.ids.tolist()}
        assert len(often) <= 1
        factor = factors[shard.source]
        assert all(int(factor) <= times <= int(factor) + 1 for times in often)


@settings(deadline=None, max_examples=60)
@given(CORPORA, FACTORS, ORDERS, st.integers(1, 4), st.integers(1, 9), st.integers(1, 40))
def test_a_row_reads_its_stretch_of_every_pass_without_a_gap(
    corpus: list[tuple[str, list[int]]],
    factors: dict[str, float],
    order: Order,
    rows: int,
    unroll: int,
    block: int,
) -> None:
    stream = make_stream(corpus, order, factors)
    rows = min(rows, len(stream))
    if not rows:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows_module, "HELD_POSITIONS", block)
        windows = TrainingWindows(stream, rows, unroll)
    passes = 12
    expected: list[list[tuple[list[int], list[int]]]] = [[], []]
    for row in range(rows):
        forward: tuple[list[int], list[int]] = ([], [])
        backward: tuple[list[int], list[int]] = ([], [])
        for number in range(passes):
            left, right = straight(stream, number)
            size = len(left) // rows
            own = slice(row * size, (row + 1) * size)
            forward[0].extend(left[own])
            forward[1].extend(right[own])
            backward[0].extend(right[own][::-1])
            backward[1].extend(left[own][::-1])
        expected[0].append(forward)
        expected[1].append(backward)
    steps = len(expected[0][0][0]) // unroll
    # Any step first: each is exact without those before it.
    batches = {step: windows.batch(step) for step in reversed(range(steps))}
    for direction in (0, 1):
        for row in range(rows):
            for part in (0, 1):
                found = [batches[s][part][direction, :, row] for s in range(steps)]
                wanted = expected[direction][row][part][: steps * unroll]
                assert np.concatenate([*found, np.empty(0, int)]).tolist() == wanted


def test_a_source_of_one_shard_comes_in_some_passes_and_empty_passes_are_skipped() -> None:
    corpus = [("a", [2, 1]), ("b", [40])]
    stream = make_stream(corpus, "shuffled", {"a": 0.0, "b": 0.3})
    lengths = stream.lengths(0, 20).tolist()
    assert lengths.count(0) == 14
    assert lengths.count(41) == 6
    windows = TrainingWindows(stream, 4, 5)
    ids, _ = windows.batch(10)  # positions 50..54 of stretches of 10: the sixth pass of those
    sixth = [n for n, length in enumerate(lengths) if length][5]
    assert ids[0, :, 1].tolist() == stream.read(sixth, 10, 15)[0].tolist()
    assert len(stream) == 12, "on average"


def test_repeats_stand_side_by_side_as_given_and_are_shuffled_anew_otherwise() -> None:
    corpus = [("a", [1] * 6), ("b", [1])]
    as_given = make_stream(corpus, "as-given", {"a": 2.0})
    right = [t for t in straight(as_given, 0)[1] if t != EOS]
    assert right == [3, 4, 5, 6, 7, 8, 3, 4, 5, 6, 7, 8, 9]
    shuffled = make_stream([("a", [1] * 6)], "shuffled", {"a": 2.0})
    right = [t for t in straight(shuffled, 0)[1] if t != EOS]
    assert sorted(right[:6]) == sorted(right[6:]) == [3, 4, 5, 6, 7, 8]
    assert right[:6] != right[6:]
    # The first time around is what a pass without repeats would hold of the shard.
    once = [t for t in straight(make_stream([("a", [1] * 6)], "shuffled", {}), 0)[1] if t != EOS]
    assert once in (right[:6], right[6:])


def test_sources_have_their_shares_over_many_passes() -> None:
    corpus = [("a", [9] * 3)] * 4 + [("b", [9])]
    stream = make_stream(corpus, "shuffled", {"a": 130 / 240, "b": 65 / 10 * 0.5 * 2})
    windows = TrainingWindows(stream, 1, 10)
    a_tokens = 4 * 27
    ids = np.concatenate([windows.batch(step)[0][0, :, 0] for step in range(400)])
    share = np.count_nonzero((ids >= 3) & (ids < 3 + a_tokens)) / np.count_nonzero(ids >= 3)
    assert share == pytest.approx(0.5, abs=0.02)


def test_a_shard_of_another_source_is_left_alone() -> None:
    shards = make_shards([("a", [2]), ("a", [3])])
    renamed = [shards[0], replace(shards[1], source="b")]
    assert TokenStream(renamed, "eos", factors={"b": 2.0}).lengths(0, 3).tolist() == [11, 11, 11]
    assert TokenStream(shards, "eos", factors={"b": 2.0}).lengths(0, 3).tolist() == [7, 7, 7]


def test_a_corpus_of_fewer_positions_than_rows_is_refused_with_factors_too() -> None:
    with pytest.raises(CorpusTooSmall, match="has 15 positions"):
        TrainingWindows(make_stream([("a", [2, 1])], "shuffled", {"a": 3.0}), 16, 2)
    with pytest.raises(CorpusTooSmall, match="has 0 positions"):
        TrainingWindows(make_stream([("a", [2, 1])], "shuffled", {"a": 0.0}), 1, 2)

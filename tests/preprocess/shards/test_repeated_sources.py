"""Streams and windows whose sources are repeated, against reading whole passes."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import count
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.shards import windows as windows_module
from preprocess.shards.format import Shard
from preprocess.shards.stream import TokenStream
from preprocess.shards.windows import CorpusTooSmall, TrainingWindows
from preprocess.tokenizers.base import BOS, EOS

Order = Literal["shuffled", "as-given"]
SourceSizes = list[tuple[str, list[int]]]
"""Source, and lengths of the documents, of each shard."""

MakeStream = Callable[..., TokenStream]

ORDERS = st.sampled_from(["shuffled", "as-given"])
CORPORA = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 4), min_size=1, max_size=4)),
    min_size=1,
    max_size=5,
)
FACTORS = st.fixed_dictionaries(
    {name: st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.6, 2.0, 3.7]) for name in "ab"}
)


@pytest.fixture(scope="session")
def make_stream(numbered: Callable[..., list[Shard]]) -> MakeStream:
    def make(corpus: SourceSizes, order: Order, factors: Mapping[str, float]) -> TokenStream:
        sources, sizes = [source for source, _ in corpus], [one for _, one in corpus]
        return TokenStream(numbered(*sizes, sources=sources), "bos_eos", order, 3, factors)

    return make


def read_pass(stream: TokenStream, number: int) -> tuple[list[int], list[int]]:
    left, right = stream.read(number, 0, int(stream.lengths(number, number + 1)[0]))
    return left.tolist(), right.tolist()


@settings(deadline=None, max_examples=60)
@given(CORPORA, FACTORS, ORDERS, st.integers(0, 9))
def test_a_pass_holds_whole_shards_as_often_as_planned(
    make_stream: MakeStream,
    corpus: SourceSizes,
    factors: dict[str, float],
    order: Order,
    number: int,
) -> None:
    stream = make_stream(corpus, order, factors)
    left, right = read_pass(stream, number)
    assert left.count(BOS) == right.count(EOS)
    assert [t for t in left if t != BOS] == [t for t in right if t != EOS]
    counts = Counter(right)
    fresh = count(3)
    for source, sizes in corpus:
        repeats = {counts[next(fresh)] for _ in range(sum(sizes))}
        assert len(repeats) <= 1
        factor = factors[source]
        assert all(int(factor) <= n <= int(factor) + 1 for n in repeats)


@settings(deadline=None, max_examples=60)
@given(CORPORA, FACTORS, ORDERS, st.integers(1, 4), st.integers(1, 9), st.integers(1, 40))
def test_a_row_reads_its_stretch_of_every_pass_without_a_gap(
    make_stream: MakeStream,
    corpus: SourceSizes,
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
            left, right = read_pass(stream, number)
            size = len(left) // rows
            own = slice(row * size, (row + 1) * size)
            forward[0].extend(left[own])
            forward[1].extend(right[own])
            backward[0].extend(right[own][::-1])
            backward[1].extend(left[own][::-1])
        expected[0].append(forward)
        expected[1].append(backward)
    steps = len(expected[0][0][0]) // unroll
    # In reverse order, because a window must not depend on earlier ones.
    batches = {step: windows.batch(step) for step in reversed(range(steps))}
    for direction in (0, 1):
        for row in range(rows):
            for part in (0, 1):
                found = [batches[s][part][direction, :, row] for s in range(steps)]
                wanted = expected[direction][row][part][: steps * unroll]
                assert np.concatenate([*found, np.empty(0, int)]).tolist() == wanted


def test_a_source_may_be_in_some_passes_only_and_empty_passes_are_skipped(
    make_stream: MakeStream,
) -> None:
    corpus = [("a", [2, 1]), ("b", [40])]
    stream = make_stream(corpus, "shuffled", {"a": 0.0, "b": 0.3})
    lengths = stream.lengths(0, 20).tolist()
    assert lengths.count(0) == 14
    assert lengths.count(41) == 6
    windows = TrainingWindows(stream, 4, 5)
    ids = windows.batch(
        10
    ).ids  # positions 50 to 54 of stretches of 10, so the sixth non-empty pass
    sixth = [n for n, length in enumerate(lengths) if length][5]
    assert ids[0, :, 1].tolist() == stream.read(sixth, 10, 15)[0].tolist()
    assert len(stream) == 12, "on average"


def test_repeats_are_adjacent_as_given_and_differently_shuffled_otherwise(
    make_stream: MakeStream,
) -> None:
    corpus = [("a", [1] * 6), ("b", [1])]
    as_given = make_stream(corpus, "as-given", {"a": 2.0})
    right = [t for t in read_pass(as_given, 0)[1] if t != EOS]
    assert right == [3, 4, 5, 6, 7, 8, 3, 4, 5, 6, 7, 8, 9]
    shuffled = make_stream([("a", [1] * 6)], "shuffled", {"a": 2.0})
    right = [t for t in read_pass(shuffled, 0)[1] if t != EOS]
    assert sorted(right[:6]) == sorted(right[6:]) == [3, 4, 5, 6, 7, 8]
    assert right[:6] != right[6:]
    # The first repeat has the order of a pass without repeats.
    once = [t for t in read_pass(make_stream([("a", [1] * 6)], "shuffled", {}), 0)[1] if t != EOS]
    assert once in (right[:6], right[6:])


def test_sources_have_their_shares_over_many_passes(make_stream: MakeStream) -> None:
    corpus = [("a", [9] * 3)] * 4 + [("b", [9])]
    stream = make_stream(corpus, "shuffled", {"a": 130 / 240, "b": 65 / 10 * 0.5 * 2})
    windows = TrainingWindows(stream, 1, 10)
    a_tokens = 4 * 27
    ids = np.concatenate([windows.batch(step)[0][0, :, 0] for step in range(400)])
    share = np.count_nonzero((ids >= 3) & (ids < 3 + a_tokens)) / np.count_nonzero(ids >= 3)
    assert share == pytest.approx(0.5, abs=0.02)


def test_a_factor_applies_to_its_own_source_only(make_stream: MakeStream) -> None:
    both = make_stream([("a", [2]), ("b", [3])], "as-given", {"b": 2.0})
    assert both.lengths(0, 3).tolist() == [11, 11, 11]
    one = make_stream([("a", [2]), ("a", [3])], "as-given", {"b": 2.0})
    assert one.lengths(0, 3).tolist() == [7, 7, 7]


def test_fewer_positions_per_pass_than_rows_are_refused(make_stream: MakeStream) -> None:
    with pytest.raises(CorpusTooSmall, match="has 15 positions"):
        TrainingWindows(make_stream([("a", [2, 1])], "shuffled", {"a": 3.0}), 16, 2)
    with pytest.raises(CorpusTooSmall, match="has 0 positions"):
        TrainingWindows(make_stream([("a", [2, 1])], "shuffled", {"a": 0.0}), 1, 2)

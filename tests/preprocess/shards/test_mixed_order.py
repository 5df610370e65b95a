"""The mixed order: every position once, sources by their shares, whatever the size of a part."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.shards import mixed_order
from preprocess.shards.format import Shard
from preprocess.shards.stream import TokenStream
from preprocess.shards.windows import TrainingWindows
from preprocess.tokenizers.base import BOS, EOS

MakeShards = Callable[..., list[Shard]]
SourceSizes = list[tuple[str, list[int]]]
"""Source, and lengths of the documents, of each shard."""

CORPORA = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 6), min_size=1, max_size=5)),
    min_size=1,
    max_size=5,
)
FACTORS = st.fixed_dictionaries({name: st.sampled_from([0.3, 1.0, 1.6, 3.0]) for name in "ab"})


PART_POSITIONS = st.sampled_from([1 << 24, 40, 9])


@contextmanager
def parts_of(positions: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_order, "PART_POSITIONS", positions)
        yield


def stream_of(
    numbered: MakeShards,
    corpus: SourceSizes,
    factors: Mapping[str, float] | None = None,
    seed: int = 3,
) -> TokenStream:
    shards = numbered(*(sizes for _, sizes in corpus), sources=[source for source, _ in corpus])
    return TokenStream(shards, "bos_eos", "mixed", seed, factors)


def pairs(stream: TokenStream, number: int) -> list[tuple[int, int]]:
    left, right = stream.read(number, 0, int(stream.lengths(number, number + 1)[0]))
    return list(zip(left.tolist(), right.tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(size=PART_POSITIONS, corpus=CORPORA, factors=FACTORS, number=st.integers(0, 4))
def test_a_pass_holds_each_position_of_its_shards_once(
    numbered: MakeShards,
    size: int,
    corpus: SourceSizes,
    factors: dict[str, float],
    number: int,
) -> None:
    stream = stream_of(numbered, corpus, factors)
    shuffled = TokenStream(
        numbered(*(s for _, s in corpus), sources=[s for s, _ in corpus]),
        "bos_eos",
        "shuffled",
        3,
        factors,
    )
    with parts_of(size):
        assert Counter(pairs(stream, number)) == Counter(pairs(shuffled, number))


@settings(deadline=None, max_examples=40)
@given(size=PART_POSITIONS, corpus=CORPORA, factors=FACTORS, data=st.data())
def test_reading_does_not_depend_on_where_it_starts_or_what_was_read_before(
    numbered: MakeShards,
    size: int,
    corpus: SourceSizes,
    factors: dict[str, float],
    data: st.DataObject,
) -> None:
    with parts_of(size):
        whole = [pairs(stream_of(numbered, corpus, factors), number) for number in range(3)]
        stream = stream_of(numbered, corpus, factors)
        for _ in range(4):
            number = data.draw(st.integers(0, 2))
            first = data.draw(st.integers(0, len(whole[number])))
            end = data.draw(st.integers(first, len(whole[number])))
            left, right = stream.read(number, first, end)
            found = list(zip(left.tolist(), right.tolist(), strict=True))
            assert found == whole[number][first:end]


def test_parts_follow_one_another_and_are_nearly_equal(
    numbered: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_order, "PART_POSITIONS", 40)
    stream = stream_of(numbered, [("a", [9] * 9), ("b", [4] * 3), ("a", [5] * 7)])
    parts = stream.parts(2, 4)
    assert parts.passes.tolist() == [2] * 4 + [3] * 4, "147 positions are four parts of at most 40"
    assert parts.begins[:4].tolist() == [0, *np.cumsum(parts.lengths)[:3].tolist()]
    assert parts.lengths.sum() == 2 * 147
    assert set(parts.lengths.tolist()) <= {36, 37}
    assert [len(part) for part in stream_of(numbered, [("a", [9] * 3)]).parts(0, 5)] == [5] * 3


def test_each_part_has_all_sources_by_their_shares(
    numbered: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_order, "PART_POSITIONS", 500)
    corpus = [("big", [9] * 100)] * 8 + [("small", [3] * 40)]
    stream = stream_of(numbered, corpus, {"small": 10.0})
    of_small = 3 + 8 * 900
    parts = stream.parts(0, 1)
    assert len(parts.lengths) == 20
    for begin, length in zip(parts.begins.tolist(), parts.lengths.tolist(), strict=True):
        _, right = stream.read(0, begin, begin + length)
        documents = np.split(right, np.flatnonzero(right == EOS) + 1)
        kinds = [one[0] >= of_small for one in documents if len(one) > 1]
        small = np.count_nonzero((right >= of_small) | (right == EOS)) - 9 * kinds.count(False) // 9
        assert small == pytest.approx(80, abs=10)
        assert sum(a != b for a, b in pairwise(kinds)) > 15, "documents alternate"


def test_only_documents_at_the_ends_of_a_part_are_cut(
    numbered: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_order, "PART_POSITIONS", 50)
    stream = stream_of(numbered, [("a", [9] * 30)])
    found = pairs(stream, 0)
    cut = sum(a[1] != b[0] and (a[1] != EOS or b[0] != BOS) for a, b in pairwise(found))
    assert len(stream.parts(0, 1).lengths) == 6
    assert cut <= 2 * 5


def test_the_order_depends_on_the_seed_and_the_pass_and_never_changes(numbered: MakeShards) -> None:
    corpus = [("a", [1] * 4), ("b", [1] * 4)]

    def order(seed: int, number: int) -> list[int]:
        return [
            right
            for _, right in pairs(stream_of(numbered, corpus, seed=seed), number)
            if right > EOS
        ]

    assert order(1, 0) == [8, 5, 4, 9, 7, 3, 6, 10]
    assert len({tuple(order(*key)) for key in ((1, 0), (1, 1), (2, 0), (-1, 0))}) == 4


def test_few_parts_are_in_memory_and_rows_build_each_of_them_once(
    numbered: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_order, "PART_POSITIONS", 400)
    made: list[tuple[int, int]] = []
    make = mixed_order.MixedOrder._make

    def watched(self: mixed_order.MixedOrder, number: int, part: int) -> object:
        made.append((number, part))
        assert sum(len(ids) for ids, _ in self._held.values()) <= 400
        return make(self, number, part)

    monkeypatch.setattr(mixed_order.MixedOrder, "_make", watched)
    stream = stream_of(numbered, [("a", [9] * 100)] * 2 + [("b", [3] * 40)])
    windows = TrainingWindows(stream, 5, 4)
    for window in range(2 * windows.stretch // 4):
        windows.batch(window)
    # A row reads ahead of its window.
    assert made[:12] == [(number, part) for number in (0, 1) for part in range(6)]
    assert len(made) == len(set(made)) <= 14


def test_a_far_window_reads_only_its_part(
    numbered: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_order, "PART_POSITIONS", 400)
    opened: list[str] = []
    shards = numbered(*[[9] * 10] * 40)
    ids = type(shards[0]).ids.fget

    def watched(shard: Shard) -> object:
        opened.append(shard.name)
        return ids(shard)

    monkeypatch.setattr(type(shards[0]), "ids", property(watched))
    windows = TrainingWindows(TokenStream(shards, "eos", "mixed"), 2, 10)
    windows.batch(10**5 + 2)
    assert len(opened) <= 2 * 5, "a part of 400 positions has pieces of at most five shards"
    opened.clear()
    windows.batch(10**5 + 2)
    assert not opened


@settings(deadline=None, max_examples=40)
@given(
    size=PART_POSITIONS,
    corpus=CORPORA,
    factors=FACTORS,
    rows=st.integers(1, 4),
    windows=st.lists(st.integers(0, 60), min_size=1, max_size=5),
)
def test_a_window_is_the_same_in_any_process_whatever_was_read_before(
    numbered: MakeShards,
    size: int,
    corpus: SourceSizes,
    factors: dict[str, float],
    rows: int,
    windows: list[int],
) -> None:
    with parts_of(size):
        rows = min(rows, size, len(stream_of(numbered, corpus, factors)))

        def fresh(own: range) -> TrainingWindows:
            return TrainingWindows(stream_of(numbered, corpus, factors), rows, 5, own, 2, 0.5)

        if not rows:
            return
        whole = fresh(range(rows))
        for window in windows:
            found = whole.batch(window)
            for row in range(rows):
                for part, alone in zip(
                    found, fresh(range(row, row + 1)).batch(window), strict=True
                ):
                    assert part is not None
                    np.testing.assert_array_equal(part[..., row : row + 1], alone)

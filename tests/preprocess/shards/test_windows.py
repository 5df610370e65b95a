"""Training windows against the stream read straight through, from any window and in any process."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.shards import windows as windows_module
from preprocess.shards.format import Shard
from preprocess.shards.stream import Int64Ids, Order, TokenStream, boundary_ids
from preprocess.shards.windows import CorpusTooSmall, TrainingWindows
from preprocess.tokenizers.base import EOS

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
ORDERS = st.sampled_from(get_args(Order))


def zipped(read: tuple[Int64Ids, Int64Ids]) -> list[Pair]:
    return list(zip(read[0].tolist(), read[1].tolist(), strict=True))


def row_of(
    windows: TrainingWindows, steps: range, direction: int, row: int
) -> tuple[list[int], list[int]]:
    batches = [windows.batch(step) for step in steps]
    ids = np.concatenate([batch.ids[direction, :, row] for batch in batches])
    targets = np.concatenate([batch.targets[direction, :, row] for batch in batches])
    return ids.tolist(), targets.tolist()


@settings(deadline=None, max_examples=60)
@given(
    CORPORA,
    BOUNDARIES,
    ORDERS,
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 40),
)
def test_a_row_reads_its_stretch_of_every_pass_without_a_gap(
    make_shards: MakeShards,
    corpus: list[Documents],
    boundary: Boundary,
    order: Order,
    rows: int,
    unroll: int,
    block: int,
) -> None:
    stream = TokenStream(make_shards(corpus), boundary, order, 5)
    rows = min(rows, len(stream))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows_module, "HELD_POSITIONS", block)
        windows = TrainingWindows(stream, rows, unroll)
    length = windows.stretch
    steps = range(-(-3 * length // unroll))
    for row in range(rows):
        stretches = [stream.read(n, row * length, (row + 1) * length) for n in range(3)]
        left = np.concatenate([left for left, _ in stretches]).tolist()
        right = np.concatenate([right for _, right in stretches]).tolist()
        ids, targets = row_of(windows, steps, 0, row)
        assert (ids[: 3 * length], targets[: 3 * length]) == (left, right)
        ids, targets = row_of(windows, steps, 1, row)
        backward_ids = np.concatenate([right[::-1] for _, right in stretches]).tolist()
        backward_targets = np.concatenate([left[::-1] for left, _ in stretches]).tolist()
        assert ids[: 3 * length] == backward_ids
        assert targets[: 3 * length] == backward_targets


@settings(deadline=None, max_examples=60)
@given(CORPORA, BOUNDARIES, st.integers(1, 4), st.integers(1, 6))
def test_the_windows_of_a_pass_hold_each_position_once_per_direction(
    make_shards: MakeShards, corpus: list[Documents], boundary: Boundary, rows: int, unroll: int
) -> None:
    stream = TokenStream(make_shards(corpus), boundary)
    rows = min(rows, len(stream))
    windows = TrainingWindows(stream, rows, unroll)
    kept = rows * windows.stretch
    assert len(stream) - kept < rows
    expected = Counter(zipped(stream.read(0, 0, kept)))
    steps = range(-(-windows.stretch // unroll))
    counts: tuple[Counter[Pair], Counter[Pair]] = Counter(), Counter()
    for row in range(rows):
        for direction in (0, 1):
            ids, targets = (x[: windows.stretch] for x in row_of(windows, steps, direction, row))
            pairs = (ids, targets) if direction == 0 else (targets, ids)
            counts[direction].update(zip(*pairs, strict=True))
    assert counts == (expected, expected)


@settings(deadline=None, max_examples=60)
@given(
    CORPORA, ORDERS, st.integers(1, 3), st.integers(1, 9), st.lists(st.integers(0, 30), min_size=1)
)
def test_a_batch_depends_only_on_its_window_number(
    make_shards: MakeShards,
    corpus: list[Documents],
    order: Order,
    rows: int,
    unroll: int,
    steps: list[int],
) -> None:
    stream = TokenStream(make_shards(corpus), "bos_eos", order, 4)
    rows = min(rows, len(stream))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows_module, "HELD_POSITIONS", 20)
        windows = TrainingWindows(stream, rows, unroll, reset_state=0.5)
    for step in steps:
        fresh = TrainingWindows(
            TokenStream(make_shards(corpus), "bos_eos", order, 4), rows, unroll, reset_state=0.5
        )
        batch = windows.batch(step)
        for array, expected in zip(batch, fresh.batch(step), strict=True):
            np.testing.assert_array_equal(array, expected)
            assert array is not None
            assert array.shape == (2, unroll, rows)
            # Writing to a batch does not change later ones.
            array[:] = 1
        assert batch.ids.dtype == batch.targets.dtype == np.int64


@settings(deadline=None, max_examples=60)
@given(CORPORA, ORDERS, st.integers(1, 5), st.integers(1, 9), st.sampled_from([1, 2]), st.data())
def test_a_row_reads_the_same_in_any_process(
    make_shards: MakeShards,
    corpus: list[Documents],
    order: Order,
    rows: int,
    unroll: int,
    directions: int,
    data: st.DataObject,
) -> None:
    stream = TokenStream(make_shards(corpus), "bos_eos", order, 4)
    rows = min(rows, len(stream))
    cuts = sorted(data.draw(st.sets(st.integers(1, rows - 1), max_size=3)) if rows > 1 else [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows_module, "HELD_POSITIONS", data.draw(st.integers(1, 40)))
        whole = TrainingWindows(stream, rows, unroll, reset_state=0.5)
        parts = [
            TrainingWindows(stream, rows, unroll, range(first, end), directions, 0.5)
            for first, end in pairwise([0, *cuts, rows])
        ]
    for window in data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=9)):
        dealt = [part.batch(window) for part in parts]
        for all_rows, own in zip(whole.batch(window), zip(*dealt, strict=True), strict=True):
            assert all_rows is not None
            np.testing.assert_array_equal(np.concatenate(own, 2), all_rows[:directions])
            assert own[0].shape == (directions, unroll, ([*cuts, rows])[0])


def test_a_far_window_reads_no_earlier_text(
    numbered: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    shards = numbered(*[[9] * 10] * 40)
    ids = type(shards[0]).ids.fget

    def watched(shard: Shard) -> npt.NDArray[Any]:
        opened.append(shard.name)
        return ids(shard)

    monkeypatch.setattr(type(shards[0]), "ids", property(watched))
    monkeypatch.setattr(windows_module, "HELD_POSITIONS", 30)
    # Two rows of 20 shards of 100 positions each; window 150 is at position 1,500 of each row.
    windows = TrainingWindows(TokenStream(shards, "eos"), 2, 10)
    windows.batch(150)
    assert sorted(set(opened)) == ["train-15", "train-24", "train-35", "train-4"]
    opened.clear()
    windows.batch(10**6)
    assert len(set(opened)) <= 8, "finding a far window reads no text"
    opened.clear()
    windows.batch(10**6)
    assert opened == [], "windows in memory are not read again"


def test_rows_are_refilled_at_different_windows(
    numbered: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: set[int] = set()
    read = TokenStream.read

    def watched(self: TokenStream, number: int, start: int, end: int) -> tuple[Int64Ids, Int64Ids]:
        rows.add(start // windows.stretch)
        return read(self, number, start, end)

    monkeypatch.setattr(TokenStream, "read", watched)
    monkeypatch.setattr(windows_module, "HELD_POSITIONS", 40)
    windows = TrainingWindows(TokenStream(numbered([999, 999]), "eos"), 4, 10, directions=1)
    counts = []
    for window in range(1, 13):
        rows.clear()
        windows.batch(window)
        counts.append(len(rows))
    assert counts == [4] + [1] * 11, (
        "each row holds four windows, and one row is refilled per window"
    )


@settings(deadline=None, max_examples=60)
@given(CORPORA, BOUNDARIES, st.integers(1, 9))
def test_a_row_reads_whole_documents_between_boundaries_in_both_directions(
    make_shards: MakeShards, corpus: list[Documents], boundary: Boundary, unroll: int
) -> None:
    stream = TokenStream(make_shards(corpus), boundary)
    windows = TrainingWindows(stream, 1, unroll)
    steps = range(-(-2 * len(stream) // unroll))
    documents = [list(document) for shard in corpus for document in shard]
    for direction, expected in enumerate([documents, [one[::-1] for one in documents[::-1]]]):
        ids, _ = row_of(windows, steps, direction, 0)
        begins = np.flatnonzero(np.array(ids) == boundary_ids(boundary)[direction])
        assert begins[0] == 0
        found = [ids[first + 1 : end] for first, end in pairwise(begins.tolist())]
        assert found[: len(documents)] == expected


@pytest.mark.parametrize("boundary", ["eos", "bos_eos"])
def test_every_document_is_reset_with_probability_1_and_none_with_0(
    numbered: MakeShards, boundary: Boundary
) -> None:
    stream = TokenStream(numbered([2, 0, 5] * 9, [1] * 7), boundary, "mixed", 1)
    assert TrainingWindows(stream, 2, 7).batch(3).resets is None
    windows = TrainingWindows(stream, 2, 7, reset_state=1.0)
    for step in range(40):
        ids, _, resets = windows.batch(step)
        np.testing.assert_array_equal(
            resets, ids == np.array(boundary_ids(boundary))[:, None, None]
        )


def resets_of(stream: TokenStream, probability: float, steps: range) -> npt.NDArray[np.bool_]:
    """Return whether each document start that is read forward, or backward, is a reset."""
    windows = TrainingWindows(stream, 2, 10, reset_state=probability)
    found: tuple[list[bool], list[bool]] = [], []
    for step in steps:
        ids, _, resets = windows.batch(step)
        assert resets is not None
        for direction, mark in enumerate(stream.marks):
            found[direction].extend(resets[direction][ids[direction] == mark].tolist())
        assert not resets[ids > EOS].any()
    size = min(map(len, found))
    return np.array([found[0][:size], found[1][:size]])


def test_a_share_of_the_documents_is_reset_independently_in_each_direction_and_pass(
    numbered: MakeShards,
) -> None:
    # 2,000 documents of two positions, in one order for all passes.
    stream = TokenStream(numbered([1] * 2000), "bos_eos", "as-given", 1)
    of_pass = [resets_of(stream, 0.3, range(200 * n, 200 * (n + 1))) for n in (0, 1)]
    assert np.mean(of_pass) == pytest.approx(0.3, abs=0.02)
    flat = np.concatenate(of_pass).reshape(4, -1).astype(float)
    assert np.abs(np.corrcoef(flat) - np.eye(4)).max() < 0.1
    runs = np.diff(flat, axis=1)
    assert np.mean(runs != 0) == pytest.approx(2 * 0.3 * 0.7, abs=0.03), "neighbours differ freely"
    other = TokenStream(numbered([1] * 2000), "bos_eos", "as-given", 2)
    assert not np.array_equal(resets_of(other, 0.3, range(200)), of_pass[0])


def test_what_is_reset_with_a_probability_is_reset_with_a_higher_one(numbered: MakeShards) -> None:
    stream = TokenStream(numbered([1] * 500), "eos", "as-given", 1)
    few, many = (resets_of(stream, p, range(50)) for p in (0.2, 0.6))
    assert (few <= many).all()
    assert few.sum() < many.sum()


def test_the_resets_never_change(numbered: MakeShards) -> None:
    stream = TokenStream(numbered([1] * 30), "bos_eos", "as-given", 1)
    found = [
        "".join("-R"[reset] for reset in each) for each in resets_of(stream, 0.5, range(3)).tolist()
    ]
    assert found == ["-R--RRRR-R--R-R--R--RR--R-RRR-", "R-R-R-R--RR-R----R-R----R-RR-R"]


def test_a_window_longer_than_the_stretch_spans_several_passes(numbered: MakeShards) -> None:
    windows = TrainingWindows(TokenStream(numbered([2]), "eos"), 1, 7)
    ids, targets, _ = windows.batch(0)
    assert ids[0, :, 0].tolist() == [2, 3, 4, 2, 3, 4, 2]
    assert targets[0, :, 0].tolist() == [3, 4, 2, 3, 4, 2, 3]
    assert ids[1, :, 0].tolist() == [2, 4, 3, 2, 4, 3, 2]
    assert targets[1, :, 0].tolist() == [4, 3, 2, 4, 3, 2, 4]
    assert windows.passes(6) == 14.0


def test_the_positions_left_out_differ_between_passes(numbered: MakeShards) -> None:
    stream = TokenStream(numbered(*[[1, 2, 3]] * 7), "eos", "shuffled", 1)
    windows = TrainingWindows(stream, 8, 3)
    kept = 8 * windows.stretch
    assert kept < len(stream)
    left_out = [zipped(stream.read(number, kept, len(stream))) for number in range(4)]
    assert len({tuple(pairs) for pairs in left_out}) > 1


def test_a_split_of_fewer_positions_than_rows_is_refused(numbered: MakeShards) -> None:
    stream = TokenStream(numbered([3, 2]), "eos")
    assert TrainingWindows(stream, 7, 2).stretch == 1
    with pytest.raises(CorpusTooSmall) as error:
        TrainingWindows(stream, 8, 2)
    assert str(error.value) == (
        "the train split has 7 positions (tokens and document ends), fewer than train.rows = 8; "
        "add text or lower train.rows"
    )


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(CorpusTooSmall, match="has 0 positions"):
        TrainingWindows(TokenStream([], "eos", "shuffled"), 1, 1)

"""The stream's arithmetic against plain lists: every pair once, in order, whatever is asked first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.nn.window_maker import resets
from preprocess.shards import stream as token_stream
from preprocess.shards import windows as windows_module
from preprocess.shards.format import Shard
from preprocess.shards.stream import Int64Ids, TokenStream, boundary_ids
from preprocess.shards.windows import CorpusTooSmall, TrainingWindows
from preprocess.tokenizers.base import BOS, EOS

Boundary = Literal["eos", "bos_eos"]
Documents = Sequence[Sequence[int]]
Pair = tuple[int, int]

CORPORA = st.lists(
    st.lists(st.lists(st.integers(3, 60), max_size=5), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)
BOUNDARIES = st.sampled_from(["eos", "bos_eos"])


@dataclass(frozen=True)
class MemoryShard(Shard):
    held: tuple[npt.NDArray[Any], ...] = ()

    @property
    def ids(self) -> npt.NDArray[Any]:
        return self.held[0]

    @property
    def lengths(self) -> npt.NDArray[np.uint32]:
        return self.held[1]


def make_shards(corpus: Sequence[Documents]) -> list[Shard]:
    shards = []
    for number, documents in enumerate(corpus):
        ids = np.array([token for document in documents for token in document], "<u2")
        lengths = np.array([len(document) for document in documents], "<u4")
        columns = "<u2", len(documents), len(ids), 0, 0, 0
        shards.append(
            MemoryShard(
                "/nowhere", f"train-{number}", "train", "corpus", *columns, held=(ids, lengths)
            )
        )
    return shards


def numbered(*sizes: Sequence[int]) -> list[Shard]:
    """Shards of documents of those sizes, no two tokens alike."""
    fresh = iter(range(3, 60_000))
    return make_shards([[[next(fresh) for _ in range(n)] for n in shard] for shard in sizes])


def pairs_of(corpus: Sequence[Documents], boundary: Boundary) -> list[Pair]:
    before, after = boundary_ids(boundary)
    documents = [document for shard in corpus for document in shard]
    return [pair for one in documents for pair in pairwise([before, *one, after])]


def zipped(read: tuple[Int64Ids, Int64Ids]) -> list[Pair]:
    return list(zip(read[0].tolist(), read[1].tolist(), strict=True))


def documents_of(pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
    """The documents of a stream read with bos_eos, in the order read; refuses a broken one."""
    found: list[tuple[int, ...]] = []
    open_document: list[int] = []
    for left, right in pairs:
        assert left == (open_document[-1] if open_document else BOS)
        open_document.append(right)
        if right == EOS:
            found.append(tuple(open_document[:-1]))
            open_document = []
    assert not open_document
    return found


@settings(deadline=None)
@given(CORPORA, BOUNDARIES, st.data())
def test_reading_any_split_gives_the_pairs_of_before_tokens_after(
    corpus: list[Documents], boundary: Boundary, data: st.DataObject
) -> None:
    expected = pairs_of(corpus, boundary)
    stream = TokenStream(make_shards(corpus), boundary)
    assert len(stream) == len(expected)
    cuts = data.draw(st.lists(st.integers(0, len(expected))))
    bounds = [0, *sorted(cuts), len(expected)]
    read = [zipped(stream.read(0, first, end)) for first, end in pairwise(bounds)]
    assert [pair for piece in read for pair in piece] == expected
    assert zipped(stream.read(7, 0, len(stream))) == expected


@settings(deadline=None)
@given(CORPORA)
def test_begin_is_never_a_forward_target_and_end_never_a_forward_input(
    corpus: list[Documents],
) -> None:
    left, right = TokenStream(make_shards(corpus), "bos_eos").read(
        0, 0, len(pairs_of(corpus, "bos_eos"))
    )
    assert BOS not in right
    assert EOS not in left


def test_between_documents_stands_one_end() -> None:
    stream = TokenStream(make_shards([[[7, 8], []], [[9]]]), "eos")
    assert zipped(stream.read(0, 0, 6)) == [(2, 7), (7, 8), (8, 2), (2, 2), (2, 9), (9, 2)]


@settings(deadline=None)
@given(CORPORA, st.integers(-(2**40), 2**40), st.integers(0, 5))
def test_a_shuffled_pass_holds_the_same_documents_whole(
    corpus: list[Documents], seed: int, number: int
) -> None:
    stream = TokenStream(make_shards(corpus), "bos_eos", "shuffled", seed)
    found = documents_of(zipped(stream.read(number, 0, len(stream))))
    assert Counter(found) == Counter(tuple(one) for shard in corpus for one in shard)


@settings(deadline=None)
@given(CORPORA, st.data())
def test_a_shuffled_pass_reads_alike_in_pieces(
    corpus: list[Documents], data: st.DataObject
) -> None:
    stream = TokenStream(make_shards(corpus), "eos", "shuffled", 3)
    whole = zipped(stream.read(2, 0, len(stream)))
    first = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(first, len(whole)))
    stream.read(data.draw(st.integers(0, 4)), 0, len(stream))
    assert zipped(stream.read(2, first, end)) == whole[first:end]


def test_passes_differ_and_repeat_by_seed() -> None:
    shards = numbered(*[[1, 2, 3, 4, 5]] * 5)

    def order(seed: int, number: int) -> list[tuple[int, ...]]:
        stream = TokenStream(shards, "bos_eos", "shuffled", seed)
        return documents_of(zipped(stream.read(number, 0, len(stream))))

    assert order(1, 0) == order(1, 0)
    orders = [order(1, 0), order(1, 1), order(1, 2), order(2, 0), order(-1, 0)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    inside = {tuple(len(one) for one in found if one[0] <= 17) for found in orders}
    assert len(inside) > 1, "documents of a shard are shuffled"
    # 15 tokens a shard, numbered from 3.
    outside = {tuple(dict.fromkeys((one[0] - 3) // 15 for one in found)) for found in orders}
    assert {len(one) for one in outside} == {5}
    by_pass = {tuple((one[0] - 3) // 15 for one in order(1, n))[::5] for n in range(4)}
    assert len(by_pass) > 1, "so are the shards, anew each pass"


def test_the_shuffled_order_is_the_one_it_has_always_been() -> None:
    stream = TokenStream(make_shards([[[3], [4], [5]], [[6], [7], [8]]]), "bos_eos", "shuffled", 1)
    found = [documents_of(zipped(stream.read(number, 0, 12))) for number in (0, 1)]
    assert [[one for (one,) in documents] for documents in found] == [
        [3, 5, 4, 7, 8, 6],
        [5, 4, 3, 6, 8, 7],
    ]


def test_more_documents_than_orders_are_held_of_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = numbered(*[[2, 0, 3]] * 9)
    expected = zipped(TokenStream(shards, "eos", "shuffled", 1).read(1, 0, 72))
    monkeypatch.setattr(token_stream, "OPEN_DOCUMENTS", 7)
    stream = TokenStream(shards, "eos", "shuffled", 1)
    assert [pair for i in range(72) for pair in zipped(stream.read(1, i, i + 1))] == expected
    assert len(stream._orders) == 2, "of three documents each"
    monkeypatch.setattr(token_stream, "OPEN_DOCUMENTS", 0)
    assert zipped(stream.read(1, 0, 72)) == expected
    assert len(stream._orders) == 1, "the one needed"


def row_of(
    windows: TrainingWindows, steps: range, direction: int, row: int
) -> tuple[list[int], list[int]]:
    batches = [windows.batch(step) for step in steps]
    ids = np.concatenate([ids[direction, :, row] for ids, _ in batches])
    targets = np.concatenate([targets[direction, :, row] for _, targets in batches])
    return ids.tolist(), targets.tolist()


@settings(deadline=None, max_examples=60)
@given(
    CORPORA,
    BOUNDARIES,
    st.sampled_from(["shuffled", "as-given"]),
    st.integers(1, 4),
    st.integers(1, 12),
    st.integers(1, 40),
)
def test_a_row_reads_its_stretch_of_every_pass_without_a_gap(
    corpus: list[Documents],
    boundary: Boundary,
    order: Literal["shuffled", "as-given"],
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
def test_the_windows_of_a_pass_hold_each_position_of_the_stretches_once_each_way(
    corpus: list[Documents], boundary: Boundary, rows: int, unroll: int
) -> None:
    stream = TokenStream(make_shards(corpus), boundary)
    rows = min(rows, len(stream))
    windows = TrainingWindows(stream, rows, unroll)
    kept = rows * windows.stretch
    assert len(stream) - kept < rows
    expected = Counter(pairs_of(corpus, boundary)[:kept])
    steps = range(-(-windows.stretch // unroll))
    found: tuple[Counter[Pair], Counter[Pair]] = Counter(), Counter()
    for row in range(rows):
        for direction in (0, 1):
            ids, targets = (x[: windows.stretch] for x in row_of(windows, steps, direction, row))
            pairs = (ids, targets) if direction == 0 else (targets, ids)
            found[direction].update(zip(*pairs, strict=True))
    assert found == (expected, expected)


@settings(deadline=None, max_examples=60)
@given(CORPORA, st.integers(1, 3), st.integers(1, 9), st.lists(st.integers(0, 30), min_size=1))
def test_a_batch_depends_on_its_step_alone(
    corpus: list[Documents], rows: int, unroll: int, asked: list[int]
) -> None:
    stream = TokenStream(make_shards(corpus), "bos_eos", "shuffled", 4)
    rows = min(rows, len(stream))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows_module, "HELD_POSITIONS", 20)
        windows = TrainingWindows(stream, rows, unroll)
    for step in asked:
        fresh = TrainingWindows(
            TokenStream(make_shards(corpus), "bos_eos", "shuffled", 4), rows, unroll
        )
        ids, targets = windows.batch(step)
        np.testing.assert_array_equal((ids, targets), fresh.batch(step))
        assert ids.shape == (2, unroll, rows)
        assert ids.dtype == np.int64
        # What a caller does to a batch is its own affair.
        ids[:], targets[:] = -1, -1


@settings(deadline=None, max_examples=60)
@given(CORPORA, st.integers(1, 5), st.integers(1, 9), st.sampled_from([1, 2]), st.data())
def test_rows_read_alike_however_they_are_dealt(
    corpus: list[Documents], rows: int, unroll: int, directions: int, data: st.DataObject
) -> None:
    stream = TokenStream(make_shards(corpus), "bos_eos", "shuffled", 4)
    rows = min(rows, len(stream))
    cuts = sorted(data.draw(st.sets(st.integers(1, rows - 1), max_size=3)) if rows > 1 else [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows_module, "HELD_POSITIONS", data.draw(st.integers(1, 40)))
        whole = TrainingWindows(stream, rows, unroll)
        parts = [
            TrainingWindows(stream, rows, unroll, range(first, end), directions)
            for first, end in pairwise([0, *cuts, rows])
        ]
    for window in data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=9)):
        dealt = [part.batch(window) for part in parts]
        for all_rows, own in zip(whole.batch(window), zip(*dealt, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate(own, 2), all_rows[:directions])
            assert own[0].shape == (directions, unroll, ([*cuts, rows])[0])


def test_a_jump_reads_no_earlier_text(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Watched(MemoryShard):
        @property
        def ids(self) -> npt.NDArray[Any]:
            opened.append(self.name)
            return super().ids

    monkeypatch.setattr(windows_module, "HELD_POSITIONS", 30)
    shards = [Watched(**vars(one)) for one in numbered(*[[9] * 10] * 40)]
    # Two rows of 20 shards of 100 positions each; forward they are at position 1,500 of theirs.
    windows = TrainingWindows(TokenStream(shards, "eos"), 2, 10)
    windows.batch(150)
    assert sorted(set(opened)) == ["train-15", "train-24", "train-35", "train-4"]
    opened.clear()
    windows.batch(10**6)
    assert len(set(opened)) <= 8, "nor is it read to find a far window"
    opened.clear()
    windows.batch(10**6)
    assert opened == [], "what is held is not read again"


def test_rows_are_not_all_read_before_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert counts == [4] + [1] * 11, "each row holds four windows, one is due at a time"


def test_only_the_ids_before_a_document_reset() -> None:
    ids = np.array([[[BOS], [7], [EOS]], [[EOS], [BOS], [7]]])
    found = resets(ids, boundary_ids("bos_eos"))
    assert found[..., 0].tolist() == [[True, False, False], [True, False, False]]
    assert resets(ids[:1], boundary_ids("eos"))[..., 0].tolist() == [[False, False, True]]


@settings(deadline=None, max_examples=60)
@given(CORPORA, BOUNDARIES, st.integers(1, 3), st.integers(1, 9))
def test_a_document_is_what_is_read_from_one_reset_to_the_next(
    corpus: list[Documents], boundary: Boundary, rows: int, unroll: int
) -> None:
    stream = TokenStream(make_shards(corpus), boundary)
    windows = TrainingWindows(stream, 1, unroll)
    steps = range(-(-2 * len(stream) // unroll))
    documents = [list(document) for shard in corpus for document in shard]
    for direction, expected in enumerate([documents, [one[::-1] for one in documents[::-1]]]):
        ids, _ = row_of(windows, steps, direction, 0)
        both = np.array(ids)[None, :, None].repeat(2, 0)
        begins = np.flatnonzero(resets(both, boundary_ids(boundary))[direction, :, 0])
        assert begins[0] == 0
        found = [ids[first + 1 : end] for first, end in pairwise(begins.tolist())]
        assert found[: len(documents)] == expected


def test_an_unroll_longer_than_the_stretch_goes_through_several_passes() -> None:
    windows = TrainingWindows(TokenStream(numbered([2]), "eos"), 1, 7)
    ids, targets = windows.batch(0)
    assert ids[0, :, 0].tolist() == [2, 3, 4, 2, 3, 4, 2]
    assert targets[0, :, 0].tolist() == [3, 4, 2, 3, 4, 2, 3]
    assert ids[1, :, 0].tolist() == [2, 4, 3, 2, 4, 3, 2]
    assert targets[1, :, 0].tolist() == [4, 3, 2, 4, 3, 2, 4]
    assert windows.passes(6) == 14.0


def test_the_positions_left_out_are_others_each_pass() -> None:
    stream = TokenStream(numbered(*[[1, 2, 3]] * 7), "eos", "shuffled", 1)
    windows = TrainingWindows(stream, 8, 3)
    kept = 8 * windows.stretch
    assert kept < len(stream)
    left_out = [zipped(stream.read(number, kept, len(stream))) for number in range(4)]
    assert len({tuple(pairs) for pairs in left_out}) > 1


def test_a_split_of_fewer_positions_than_rows_is_refused() -> None:
    stream = TokenStream(numbered([3, 2]), "eos")
    assert TrainingWindows(stream, 7, 2).stretch == 1
    with pytest.raises(CorpusTooSmall) as error:
        TrainingWindows(stream, 8, 2)
    assert str(error.value) == (
        "the train split has 7 positions (tokens and document ends), fewer than train.rows = 8; "
        "give it more text or lower train.rows"
    )


def test_an_empty_split_has_no_position() -> None:
    stream = TokenStream([], "eos", "shuffled")
    assert len(stream) == 0
    assert zipped(stream.read(0, 0, 0)) == []
    with pytest.raises(CorpusTooSmall, match="has 0 positions"):
        TrainingWindows(stream, 1, 1)

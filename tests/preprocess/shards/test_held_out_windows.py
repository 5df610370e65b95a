"""Held-out windows against plain lists: every position once per direction, for any rows and ranks."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.shards import held_out_rows, held_out_windows
from preprocess.shards.format import Shard
from preprocess.shards.held_out_rows import (
    Row,
    contiguous_rows,
    dealt,
    rows_of_documents,
    sampled_rows,
)
from preprocess.shards.held_out_windows import HeldOutWindows
from preprocess.shards.stream import TokenStream, boundary_ids
from preprocess.tokenizers.base import IGNORE

Boundary = Literal["eos", "bos_eos"]
Documents = Sequence[Sequence[int]]
MakeShards = Callable[..., list[Shard]]
Pair = tuple[int, int]
Ids = npt.NDArray[np.int64]

CORPORA = st.lists(
    st.lists(st.lists(st.integers(3, 60), max_size=5), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)
BOUNDARIES = st.sampled_from(["eos", "bos_eos"])
SIZES = st.integers(1, 30)


def documents_of(corpus: Sequence[Documents], boundary: Boundary) -> list[list[Pair]]:
    before, after = boundary_ids(boundary)
    return [list(pairwise([before, *one, after])) for shard in corpus for one in shard]


def joined(windows: HeldOutWindows) -> tuple[Ids, Ids]:
    """Return the ids and targets of all windows, (2, windows * unroll, rows)."""
    ids, targets, _ = zip(*windows, strict=True)
    return np.concatenate(ids, 1), np.concatenate(targets, 1)


def rows_of(windows: HeldOutWindows) -> list[list[Pair]]:
    """Return the (left, right) pairs of each row, and check that both directions have the same."""
    ids, targets = joined(windows)
    found = []
    for row in range(windows.rows):
        held = targets[:, :, row] != IGNORE
        size = int(held[0].sum())
        assert held[:, :size].all()
        assert not held[:, size:].any(), "padding is at the end"
        assert not ids[:, size:, row].any()
        (first, back), (second, forth) = (
            ids[:, :size, row].tolist(),
            targets[:, :size, row].tolist(),
        )
        forward = list(zip(first, second, strict=True))
        assert list(zip(forth[::-1], back[::-1], strict=True)) == forward
        found.append(forward)
    return found


@settings(deadline=None)
@given(CORPORA, BOUNDARIES, SIZES, SIZES)
def test_contiguous_rows_have_each_position_once(
    make_shards: MakeShards, corpus: list[Documents], boundary: Boundary, rows: int, unroll: int
) -> None:
    expected = [pair for document in documents_of(corpus, boundary) for pair in document]
    stream = TokenStream(make_shards(corpus), boundary)
    windows = HeldOutWindows(stream, contiguous_rows(stream, rows), unroll)

    found = rows_of(windows)

    assert {read.ids.shape for read in windows} == {(2, unroll, min(rows, len(stream)))}
    assert not any(read.resets is not None for read in windows)
    assert [pair for row in found for pair in row] == expected
    sizes = list(map(len, found))
    assert max(sizes) - min(sizes) <= 1
    assert len(windows) == -(-max(sizes) // unroll)


@settings(deadline=None)
@given(CORPORA, BOUNDARIES, SIZES, SIZES)
def test_rows_of_documents_have_each_document_once(
    make_shards: MakeShards, corpus: list[Documents], boundary: Boundary, rows: int, unroll: int
) -> None:
    expected = documents_of(corpus, boundary)
    stream = TokenStream(make_shards(corpus), boundary)
    windows = HeldOutWindows(stream, rows_of_documents(stream, rows), unroll)

    found = rows_of(windows)

    assert windows.rows <= min(rows, len(expected))
    documents = []
    for row in found:
        own = _split(row, boundary)
        documents += own
        assert _is_subsequence(own, expected), "in the order of the corpus"
    assert Counter(map(tuple, documents)) == Counter(map(tuple, expected))
    sizes = sorted(map(len, found))
    longest = max(map(len, expected))
    assert sizes[-1] - sizes[0] <= longest
    assert (windows.rows - 1) * longest < len(stream), "no more rows than the longest fills"
    assert len(windows) == -(-sizes[-1] // unroll)


def _split(row: list[Pair], boundary: Boundary) -> list[list[Pair]]:
    """Return the documents of a row, which begin with the boundary."""
    before = boundary_ids(boundary)[0]
    starts = [n for n, (left, _) in enumerate(row) if left == before]
    assert starts[:1] == [0]
    return [row[first:end] for first, end in pairwise([*starts, len(row)])]


def _is_subsequence(part: list[list[Pair]], whole: list[list[Pair]]) -> bool:
    rest = iter(whole)
    return all(one in rest for one in part)


def test_rows_of_documents_are_balanced(numbered: MakeShards) -> None:
    """Contiguous rows could not have equal lengths: the documents have 5, 9 and 4 positions."""
    stream = TokenStream(numbered([4, 8, 3]), "eos")
    windows = HeldOutWindows(stream, rows_of_documents(stream, 2), 4)
    assert list(map(len, rows_of(windows))) == [9, 9]
    assert len(windows) == 3


def test_a_long_document_is_not_read_beside_rows_of_padding(numbered: MakeShards) -> None:
    stream = TokenStream(numbered([99, *[9] * 10]), "eos")
    windows = HeldOutWindows(stream, rows_of_documents(stream, 16), 10)
    assert list(map(len, rows_of(windows))) == [100, 100]


def test_neighbouring_documents_are_read_at_once(
    numbered: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = TokenStream(numbered([1] * 8, [1] * 8), "eos")
    calls = []
    read = stream.read
    monkeypatch.setattr(stream, "read", lambda *span: calls.append(span) or read(*span))
    windows = HeldOutWindows(stream, rows_of_documents(stream, 1), 32)
    assert len(windows) == 1
    assert len(rows_of(windows)[0]) == 32
    assert len(calls) == 2, "one for each direction"


@settings(max_examples=30)
@given(st.integers(0, 20), st.integers(1, 12))
def test_blocks_have_each_row_once_and_are_spread_over_all(number: int, size: int) -> None:
    rows = [Row(np.array([n]), np.array([n + 1])) for n in range(number)]
    blocks = dealt(rows, size)
    assert sorted((row for block in blocks for row in block), key=rows.index) == rows
    sizes = list(map(len, blocks))
    assert not sizes or (max(sizes) <= size and max(sizes) - min(sizes) <= 1)
    assert len(blocks) == -(-number // size)
    for block in blocks:
        gaps = {rows.index(b) - rows.index(a) for a, b in pairwise(block)}
        assert gaps <= {len(blocks)}


@settings(deadline=None, max_examples=50)
@given(CORPORA, BOUNDARIES, st.integers(1, 8), SIZES, st.integers(0, 9))
def test_rows_warm_up_with_their_neighbours_and_score_each_position_once(
    make_shards: MakeShards,
    corpus: list[Documents],
    boundary: Boundary,
    rows: int,
    unroll: int,
    warm_up: int,
) -> None:
    expected = [pair for document in documents_of(corpus, boundary) for pair in document]
    stream = TokenStream(make_shards(corpus), boundary)
    divided = contiguous_rows(stream, rows, warm_up)
    ids, targets = joined(HeldOutWindows(stream, divided, unroll))

    for direction in (0, 1):
        found = []
        for row in range(len(divided)):
            scored = np.flatnonzero(targets[direction, :, row] != IGNORE)
            lead = ids[direction, : scored[0], row].tolist()
            inputs = ids[direction, scored, row].tolist()
            outputs = targets[direction, scored, row].tolist()
            pairs = list(zip(inputs, outputs, strict=True))
            if direction:
                pairs = [(left, right) for right, left in reversed(pairs)]
            is_first = row == (0 if direction == 0 else len(divided) - 1)
            assert len(lead) == 0 if is_first else len(lead) <= warm_up
            assert warm_up <= len(stream) or len(lead) <= len(stream)
            place = len(found)
            if direction == 0:
                assert lead == [left for left, _ in expected[place - len(lead) : place]]
            else:
                after = place + len(pairs)
                following = expected[after : after + len(lead)]
                assert lead == [right for _, right in following[::-1]]
            found += pairs
        assert found == expected


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=40),
    st.integers(1, 2000),
    st.integers(1, 20),
    st.integers(0, 20),
    st.booleans(),
)
def test_a_sample_scores_positions_at_most_once_and_reads_at_most_its_size(
    numbered: MakeShards,
    lengths: list[int],
    size: int,
    rows: int,
    warm_up: int,
    whole_documents: bool,
) -> None:
    stream = TokenStream(numbered(lengths), "eos")
    size = min(size, len(stream) - 1)
    if size < 1:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out_rows, "PIECE", 50)
        patch.setattr(held_out_rows, "LEAST_PIECE", 10)
        divided = sampled_rows(stream, rows, size, warm_up, whole_documents)
        windows = HeldOutWindows(stream, divided, 16)
    assert 1 <= len(divided) <= rows
    _, targets = joined(windows)

    scored = [Counter(targets[d][targets[d] != IGNORE].tolist()) for d in (0, 1)]
    assert scored[0].total() == scored[1].total() > 0
    for of_direction in scored:
        assert all(n == 1 for token, n in of_direction.items() if token >= 3), "numbered tokens"
    read = max(sum(len(row.read(stream, d, 0, 10**6).ids) for row in divided) for d in (0, 1))
    assert read <= max(size, 50 + warm_up)


@pytest.mark.parametrize("whole_documents", [False, True])
def test_a_sample_is_spread_over_the_split(
    numbered: MakeShards, whole_documents: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tenth of the split has about a tenth of the sample, also if long and short documents alternate."""
    monkeypatch.setattr(held_out_rows, "PIECE", 100)
    monkeypatch.setattr(held_out_rows, "LEAST_PIECE", 50)
    stream = TokenStream(numbered([400, 20] * 100), "eos")
    rows = sampled_rows(stream, 7, 8000, 4, whole_documents)
    tokens = []
    for row in rows:
        read = row.read(stream, 0, 0, 10**6)
        tokens += [t for t in read.targets.tolist() if t >= 3]
    assert 6000 < len(tokens) <= 8000
    tenth = (max(tokens) + 1) / 10
    counts = Counter(int(t / tenth) for t in tokens)
    assert all(0.7 < 10 * counts[n] / len(tokens) < 1.3 for n in range(10))
    if whole_documents:
        # As many of each length as in the split.
        long = sum((t - 3) % 420 < 400 for t in tokens) / len(tokens)
        assert long == pytest.approx(400 / 420, abs=0.02)


def test_the_state_is_reset_between_the_parts_of_a_row(numbered: MakeShards) -> None:
    stream = TokenStream(numbered([9]), "eos")
    row = Row(np.array([1, 6]), np.array([3, 9]), np.array([[1, 2], [2, 1]]))
    [read] = HeldOutWindows(stream, [row], 16)
    assert read.resets is not None
    left, right = stream.read(0, 0, 10)
    skipped = IGNORE
    assert read.ids[0, :8, 0].tolist() == left[[0, 1, 2, 4, 5, 6, 7, 8]].tolist()
    assert read.targets[0, :8, 0].tolist() == [
        *(skipped, *right[1:3].tolist()),
        *(skipped, skipped, *right[6:9].tolist()),
    ]
    assert np.flatnonzero(read.resets[0, :, 0]).tolist() == [3]
    assert read.ids[1, :8, 0].tolist() == right[[9, 8, 7, 6, 4, 3, 2, 1]].tolist()
    assert read.targets[1, :8, 0].tolist() == [
        *(skipped, *left[[8, 7, 6]].tolist()),
        *(skipped, skipped, *left[[2, 1]].tolist()),
    ]
    assert np.flatnonzero(read.resets[1, :, 0]).tolist() == [4]


def test_no_rows_are_one_window_of_padding() -> None:
    stream = TokenStream([], "eos")
    assert contiguous_rows(stream, 3) == rows_of_documents(stream, 3) == []
    [(ids, targets, resets)] = HeldOutWindows(stream, [], 4)
    assert ids.shape == targets.shape == (2, 4, 1)
    assert not ids.any()
    assert (targets == IGNORE).all()
    assert resets is None


@pytest.mark.parametrize("divide", [contiguous_rows, rows_of_documents])
def test_documents_without_tokens_have_a_position(
    make_shards: MakeShards, divide: Callable[[TokenStream, int], list[Row]]
) -> None:
    stream = TokenStream(make_shards([[[], [3], []]]), "bos_eos")
    windows = HeldOutWindows(stream, divide(stream, 1), 4)
    assert rows_of(windows) == [[(1, 2), (1, 3), (3, 2), (1, 2)]]


def test_windows_have_random_access(numbered: MakeShards, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = TokenStream(numbered([9, 4, 7]), "eos")
    windows = HeldOutWindows(stream, rows_of_documents(stream, 2), 3)
    read = list(windows)
    monkeypatch.setattr(held_out_windows, "READ_AT_ONCE", 7)
    for one, other in zip(windows, read, strict=True):
        assert np.array_equal(one.ids, other.ids)
    for number in (2, 0, len(windows) - 1):
        for one, other in zip(windows[number], read[number], strict=True):
            assert np.array_equal(one, other)
    for outside in (-1, len(windows)):
        with pytest.raises(IndexError, match=f"window {outside} of {len(windows)}"):
            windows[outside]

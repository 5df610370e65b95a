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

from preprocess.shards.format import Shard
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
    ids, targets = zip(*windows, strict=True)
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
    windows = HeldOutWindows(stream, rows, unroll)

    found = rows_of(windows)

    assert {ids.shape for ids, _ in windows} == {(2, unroll, min(rows, len(stream)))}
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
    windows = HeldOutWindows(stream, rows, unroll, whole_documents=True)

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
    windows = HeldOutWindows(stream, 2, 4, whole_documents=True)
    assert list(map(len, rows_of(windows))) == [9, 9]
    assert len(windows) == 3


def test_a_long_document_is_not_read_beside_rows_of_padding(numbered: MakeShards) -> None:
    stream = TokenStream(numbered([99, *[9] * 10]), "eos")
    windows = HeldOutWindows(stream, 16, 10, whole_documents=True)
    assert list(map(len, rows_of(windows))) == [100, 100]


def test_neighbouring_documents_are_read_at_once(
    numbered: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = TokenStream(numbered([1] * 8, [1] * 8), "eos")
    calls = []
    read = stream.read
    monkeypatch.setattr(stream, "read", lambda *span: calls.append(span) or read(*span))
    windows = HeldOutWindows(stream, 1, 32, whole_documents=True)
    assert len(windows) == 1
    assert len(rows_of(windows)[0]) == 32
    assert len(calls) == 2, "one for each direction"


@settings(deadline=None)
@given(CORPORA, SIZES, SIZES, st.integers(1, 5), st.booleans())
def test_ranks_divide_the_rows_and_have_equally_many_windows(
    make_shards: MakeShards,
    corpus: list[Documents],
    rows: int,
    unroll: int,
    world: int,
    whole_documents: bool,
) -> None:
    stream = TokenStream(make_shards(corpus), "eos")
    whole = HeldOutWindows(stream, rows, unroll, whole_documents=whole_documents)
    shares = [
        HeldOutWindows(stream, rows, unroll, (n, world), whole_documents) for n in range(world)
    ]
    assert {len(one) for one in shares} == {len(whole)}
    assert max(one.rows for one in shares) == max(1, -(-whole.rows // world))
    parts = [row for one in shares for row in rows_of(one)]
    assert [row for row in parts if row] == rows_of(whole)


@pytest.mark.parametrize("whole_documents", [False, True])
def test_a_rank_without_rows_has_windows_of_padding(
    make_shards: MakeShards, whole_documents: bool
) -> None:
    """There is one rank more than rows."""
    stream = TokenStream(make_shards([[[3, 4], [5, 6]]]), "eos")
    shares = [HeldOutWindows(stream, 2, 2, (n, 3), whole_documents) for n in range(3)]
    assert [len(one) for one in shares] == [2, 2, 2]
    assert sorted(len(rows_of(one)[0]) for one in shares) == [0, 3, 3]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("whole_documents", [False, True])
def test_an_empty_split_is_one_window_of_padding(rows: int, whole_documents: bool) -> None:
    windows = HeldOutWindows(TokenStream([], "eos"), rows, 4, whole_documents=whole_documents)
    [(ids, targets)] = windows
    assert ids.shape == targets.shape == (2, 4, 1)
    assert not ids.any()
    assert (targets == IGNORE).all()


@pytest.mark.parametrize("whole_documents", [False, True])
def test_documents_without_tokens_have_a_position(
    make_shards: MakeShards, whole_documents: bool
) -> None:
    stream = TokenStream(make_shards([[[], [3], []]]), "bos_eos")
    windows = HeldOutWindows(stream, 1, 4, whole_documents=whole_documents)
    assert rows_of(windows) == [[(1, 2), (1, 3), (3, 2), (1, 2)]]


def test_windows_have_random_access(numbered: MakeShards) -> None:
    windows = HeldOutWindows(TokenStream(numbered([9, 4, 7]), "eos"), 2, 3, whole_documents=True)
    read = list(windows)
    for number in (2, 0, len(windows) - 1):
        for one, other in zip(windows[number], read[number], strict=True):
            assert np.array_equal(one, other)
    for outside in (-1, len(windows)):
        with pytest.raises(IndexError, match=f"window {outside} of {len(windows)}"):
            windows[outside]

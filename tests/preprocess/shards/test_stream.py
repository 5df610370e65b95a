"""The stream's arithmetic against plain lists: every position once, in order, from any start."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.shards.format import Corpus, Shard
from preprocess.shards.stream import Int64Ids, Order, TokenStream, boundary_ids, target_counts
from preprocess.tokenizers.base import BOS, EOS, UNKNOWN

Boundary = Literal["eos", "bos_eos"]
Documents = Sequence[Sequence[int]]
MakeShards = Callable[..., list[Shard]]
Pair = tuple[int, int]
Tiny = Any  # of tests/conftest.py

CORPORA = st.lists(
    st.lists(st.lists(st.integers(3, 60), max_size=5), min_size=1, max_size=4),
    min_size=1,
    max_size=4,
)
BOUNDARIES = st.sampled_from(["eos", "bos_eos"])


def pairs_of(corpus: Sequence[Documents], boundary: Boundary) -> list[Pair]:
    before, after = boundary_ids(boundary)
    documents = [document for shard in corpus for document in shard]
    return [pair for one in documents for pair in pairwise([before, *one, after])]


def zipped(read: tuple[Int64Ids, Int64Ids]) -> list[Pair]:
    return list(zip(read[0].tolist(), read[1].tolist(), strict=True))


def documents_of(pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
    """Return the documents in a stream with bos_eos boundaries; fail if one is not whole."""
    documents: list[tuple[int, ...]] = []
    open_document: list[int] = []
    for left, right in pairs:
        assert left == (open_document[-1] if open_document else BOS)
        open_document.append(right)
        if right == EOS:
            documents.append(tuple(open_document[:-1]))
            open_document = []
    assert not open_document
    return documents


@settings(deadline=None)
@given(CORPORA, BOUNDARIES, st.data())
def test_reads_cut_anywhere_give_the_token_pairs_of_all_documents(
    make_shards: MakeShards, corpus: list[Documents], boundary: Boundary, data: st.DataObject
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
def test_bos_is_never_a_forward_target_and_eos_never_a_forward_input(
    make_shards: MakeShards, corpus: list[Documents]
) -> None:
    left, right = TokenStream(make_shards(corpus), "bos_eos").read(
        0, 0, len(pairs_of(corpus, "bos_eos"))
    )
    assert BOS not in right
    assert EOS not in left


def test_boundary_eos_puts_one_eos_between_documents(make_shards: MakeShards) -> None:
    stream = TokenStream(make_shards([[[7, 8], []], [[9]]]), "eos")
    assert zipped(stream.read(0, 0, 6)) == [(2, 7), (7, 8), (8, 2), (2, 2), (2, 9), (9, 2)]


@settings(deadline=None)
@given(
    CORPORA, st.sampled_from(["mixed", "shuffled"]), st.integers(-(2**40), 2**40), st.integers(0, 5)
)
def test_a_shuffled_pass_holds_every_document_whole(
    make_shards: MakeShards, corpus: list[Documents], order: Order, seed: int, number: int
) -> None:
    stream = TokenStream(make_shards(corpus), "bos_eos", order, seed)
    found = documents_of(zipped(stream.read(number, 0, len(stream))))
    assert Counter(found) == Counter(tuple(one) for shard in corpus for one in shard)


@settings(deadline=None)
@given(CORPORA, st.sampled_from(["mixed", "shuffled"]), st.data())
def test_a_shuffled_pass_reads_the_same_in_pieces(
    make_shards: MakeShards, corpus: list[Documents], order: Order, data: st.DataObject
) -> None:
    stream = TokenStream(make_shards(corpus), "eos", order, 3)
    whole = zipped(stream.read(2, 0, len(stream)))
    first = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(first, len(whole)))
    stream.read(data.draw(st.integers(0, 4)), 0, len(stream))
    assert zipped(stream.read(2, first, end)) == whole[first:end]


def test_the_order_depends_on_the_seed_and_the_pass(numbered: MakeShards) -> None:
    shards = numbered(*[[1, 2, 3, 4, 5]] * 5)

    def order(seed: int, number: int) -> list[tuple[int, ...]]:
        stream = TokenStream(shards, "bos_eos", "shuffled", seed)
        return documents_of(zipped(stream.read(number, 0, len(stream))))

    assert order(1, 0) == order(1, 0)
    orders = [order(1, 0), order(1, 1), order(1, 2), order(2, 0), order(-1, 0)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    inside = {tuple(len(one) for one in found if one[0] <= 17) for found in orders}
    assert len(inside) > 1, "documents within a shard are shuffled"
    # Each shard has 15 tokens, numbered from 3.
    outside = {tuple(dict.fromkeys((one[0] - 3) // 15 for one in found)) for found in orders}
    assert {len(one) for one in outside} == {5}
    by_pass = {tuple((one[0] - 3) // 15 for one in order(1, n))[::5] for n in range(4)}
    assert len(by_pass) > 1, "shards are shuffled differently in each pass"


def test_the_shuffled_order_is_that_of_earlier_versions(make_shards: MakeShards) -> None:
    stream = TokenStream(make_shards([[[3], [4], [5]], [[6], [7], [8]]]), "bos_eos", "shuffled", 1)
    found = [documents_of(zipped(stream.read(number, 0, 12))) for number in (0, 1)]
    assert [[one for (one,) in documents] for documents in found] == [
        [3, 5, 4, 7, 8, 6],
        [5, 4, 3, 6, 8, 7],
    ]


@pytest.mark.parametrize("order", get_args(Order))
def test_an_empty_split_has_no_positions(order: Order) -> None:
    stream = TokenStream([], "eos", order)
    assert len(stream) == 0
    assert zipped(stream.read(0, 0, 0)) == []


@pytest.fixture(scope="module")
def corpus(tiny: Tiny) -> Corpus:
    return Corpus.open(str(Path(tiny.root) / "prepare"))


@pytest.mark.parametrize("boundary", ["eos", "bos_eos"])
@pytest.mark.parametrize("directions", [1, 2])
def test_target_counts_are_those_of_one_pass(
    corpus: Corpus, boundary: Any, directions: int
) -> None:
    stream = TokenStream(corpus.shards("train"), boundary)
    left, right = stream.read(0, 0, len(stream))
    targets = np.concatenate([right, left][:directions])
    expected = np.bincount(targets, minlength=corpus.vocabulary)

    found = target_counts(corpus, boundary, directions, corpus.vocabulary)

    assert found.tolist() == expected.tolist()


def test_ids_outside_the_output_vocabulary_count_as_unknown_targets(corpus: Corpus) -> None:
    whole = target_counts(corpus, "eos", 2, corpus.vocabulary)

    found = target_counts(corpus, "eos", 2, 50)

    assert len(found) == 50
    assert found[UNKNOWN] == whole[UNKNOWN] + whole[50:].sum() > whole[UNKNOWN]
    assert found[1:].tolist() == whole[1:50].tolist()


@settings(deadline=None)
@given(CORPORA, BOUNDARIES, st.sampled_from(["shuffled", "as-given"]), st.integers(0, 3))
def test_documents_start_where_they_are_read(
    make_shards: MakeShards, corpus: list[Documents], boundary: Boundary, order: Any, number: int
) -> None:
    stream = TokenStream(make_shards(corpus), boundary, order, 5)
    found = stream.documents(number)
    assert found.dtype == np.int64
    pairs = zipped(stream.read(number, 0, len(stream)))
    documents = [pairs[first:end] for first, end in pairwise(found.tolist())]
    assert [pair for one in documents for pair in one] == pairs
    before, after = boundary_ids(boundary)
    assert all(one[0][0] == before and one[-1][1] == after for one in documents)
    assert len(documents) == sum(map(len, corpus))


def test_an_empty_split_has_no_documents() -> None:
    assert TokenStream([], "eos").documents(0).tolist() == [0]

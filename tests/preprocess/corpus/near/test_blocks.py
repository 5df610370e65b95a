"""Decisions about near-duplicates, by blocks, against one pass over all documents in order."""

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.corpus.near import blocks as near_blocks
from preprocess.corpus.near.blocks import (
    BLOCK_BYTES,
    FATE,
    MOST_BLOCKS,
    PAIR,
    QUESTION,
    ROUNDS,
    Blocks,
    Decided,
    decide,
    document_key,
    sorted_pairs,
)

NO_FATES = np.empty(0, FATE)


def key(unit: int, number: int) -> int:
    return unit << 32 | number


def table(pairs: list[tuple[int, int, int]]) -> npt.NDArray[Any]:
    return sorted_pairs(np.array(pairs, PAIR))


def in_order(pairs: npt.NDArray[Any], units: int) -> dict[int, int]:
    """Return each dropped document and its original, by one pass over the documents."""
    dropped: dict[int, int] = {}
    for later in sorted({*pairs["later"].tolist()}):
        # Sorted by difference.
        for _, earlier, differing in pairs[pairs["later"] == later].tolist():
            if earlier not in dropped:
                dropped[later] = earlier
            elif differing == 0:
                dropped[later] = dropped[earlier]
            if later in dropped:
                break
    return dropped


def in_blocks(
    pairs: npt.NDArray[Any], blocks: Blocks, rounds: int
) -> tuple[dict[int, int], list[int]]:
    """Return the same by blocks, and how many documents are undecided after each round."""
    later, earlier = (blocks.of_documents(pairs[name]) for name in ("later", "earlier"))
    states = []
    for block in range(blocks.number):
        asked = (earlier == block) & (later != block)
        questions = np.empty(int(asked.sum()), QUESTION)
        questions["document"], questions["block"] = pairs["earlier"][asked], later[asked]
        states.append(Decided(NO_FATES, pairs[later == block], {}, np.unique(questions)))
    undecided = []
    for number in range(rounds):
        states = [
            decide(
                blocks,
                block,
                state.pairs,
                state.questions,
                state.dropped,
                np.concatenate([NO_FATES, *(s.answers.get(block, NO_FATES) for s in states)]),
                number == rounds - 1,
            )
            for block, state in enumerate(states)
        ]
        undecided.append(sum(len(np.unique(state.pairs["later"])) for state in states))
    return dict(np.concatenate([state.dropped for state in states]).tolist()), undecided


DOCUMENTS = st.tuples(st.integers(0, 5), st.integers(0, 3))
KNOWN = st.tuples(st.integers(6, 7), st.integers(0, 1))


@st.composite
def some_pairs(draw: st.DrawFn) -> npt.NDArray[Any]:
    rows = []
    equal: dict[int, int] = {}
    for later in draw(st.sets(DOCUMENTS)):
        others = {other for other in draw(st.sets(DOCUMENTS, max_size=4)) if other < later}
        others |= draw(st.sets(KNOWN, max_size=1))
        rows += [(key(*later), key(*other), draw(st.integers(1, 3))) for other in others]
        # Documents of equal sketches have the first of them as only pair in the group of a band.
        if others and draw(st.booleans()):
            first = key(*min(others))
            rows.append((key(*later), equal.setdefault(first, first), 0))
    return table(rows)


@settings(deadline=None, max_examples=80)
@given(some_pairs(), st.integers(1, 6))
def test_blocks_decide_as_one_pass_over_all_documents(pairs: npt.NDArray[Any], number: int) -> None:
    expected = in_order(pairs, 6)
    decided, undecided = in_blocks(pairs, Blocks(6, number), rounds=8)
    assert undecided[-1] == 0
    # A document may be dropped for another kept one if that is known in an earlier round.
    assert decided.keys() == expected.keys()
    if number == 1:
        assert decided == expected


@settings(deadline=None, max_examples=80)
@given(some_pairs(), st.integers(1, 6), st.integers(1, 3))
def test_every_dropped_document_is_similar_to_a_kept_one_after_any_number_of_rounds(
    pairs: npt.NDArray[Any], number: int, rounds: int
) -> None:
    decided, _ = in_blocks(pairs, Blocks(6, number), rounds)
    similar = {(later, earlier) for later, earlier, _ in pairs.tolist()}
    equal = {(later, earlier) for later, earlier, differing in pairs.tolist() if not differing}

    def reaches(one: int, original: int) -> bool:
        if (one, original) in similar:
            return True
        return any(reaches(e, original) for later, e in equal if later == one)

    for document, original in decided.items():
        assert original not in decided
        assert reaches(document, original)


def test_the_ends_of_a_chain_are_kept() -> None:
    chain = [(key(0, n + 1), key(0, n), 20) for n in range(5)]
    decided, _ = in_blocks(table(chain), Blocks(1, 1), 1)
    assert decided == {key(0, 1): key(0, 0), key(0, 3): key(0, 2), key(0, 5): key(0, 4)}


def test_a_copy_of_a_dropped_document_is_dropped_for_the_same_document() -> None:
    rows = [(key(0, 1), key(0, 0), 9), (key(2, 0), key(0, 1), 0), (key(1, 0), key(0, 1), 9)]
    for number in (1, 3):
        decided, _ = in_blocks(table(rows), Blocks(3, number), 3)
        # The document in unit 1 is similar to a dropped one only.
        assert decided == {key(0, 1): key(0, 0), key(2, 0): key(0, 0)}


def test_the_most_similar_kept_document_is_named() -> None:
    rows = [(key(0, 9), key(0, 1), 9), (key(0, 9), key(0, 2), 4), (key(0, 9), key(0, 3), 4)]
    assert in_blocks(table(rows), Blocks(1, 1), 1)[0] == {key(0, 9): key(0, 2)}


def test_known_documents_are_kept_and_belong_to_no_block() -> None:
    blocks = Blocks(2, 2)
    rows = [(key(0, 0), key(2, 5), 9), (key(1, 0), key(0, 0), 1)]
    assert blocks.of_documents(np.array([key(1, 9), key(2, 5)], np.uint64)).tolist() == [1, 2]
    assert in_blocks(table(rows), blocks, 2)[0] == {key(0, 0): key(2, 5)}


def test_documents_that_stay_undecided_are_kept() -> None:
    chain = [(key(n + 1, 0), key(n, 0), 20) for n in range(5)]
    decided, undecided = in_blocks(table(chain), Blocks(6, 6), 6)
    assert decided == {key(1, 0): key(0, 0), key(3, 0): key(2, 0), key(5, 0): key(4, 0)}
    assert undecided == [5, 4, 3, 2, 1, 0]
    assert in_blocks(table(chain), Blocks(6, 6), 2)[0] == {key(1, 0): key(0, 0)}


def test_pairs_found_twice_count_once_and_are_sorted() -> None:
    rows = [(2, 1, 5), (2, 0, 5), (2, 1, 5), (1, 0, 9), (2, 1, 3)]
    assert table(rows).tolist() == [(1, 0, 9), (2, 1, 3), (2, 0, 5), (2, 1, 5)]


def test_long_lists_are_decided_in_chunks(monkeypatch: Any) -> None:
    chain = [(key(0, n + 1), key(0, n), 20) for n in range(50)]
    whole = in_blocks(table(chain), Blocks(1, 1), 1)
    for chunk in (1, 7, 49):
        monkeypatch.setattr(near_blocks, "_CHUNK", chunk)
        assert in_blocks(table(chain), Blocks(1, 1), 1) == whole


def test_the_blocks_follow_from_the_size_of_the_corpus() -> None:
    assert Blocks.of(5, 0) == Blocks(5, 1)
    assert Blocks.of(5, BLOCK_BYTES + 1) == Blocks(5, 2)
    assert Blocks.of(5, 99 * BLOCK_BYTES) == Blocks(5, 5)
    assert Blocks.of(10**5, 2000 * BLOCK_BYTES).number == MOST_BLOCKS
    assert (Blocks(5, 1).rounds, Blocks(5, 2).rounds) == (1, ROUNDS)


@given(st.integers(1, 300), st.integers(1, 300))
def test_each_unit_belongs_to_one_block(units: int, number: int) -> None:
    blocks = Blocks(units, min(units, number))
    keys = document_key(np.arange(units, dtype=np.uint32), np.zeros(units, np.uint32))
    found = blocks.of_documents(keys).tolist()
    assert [*found] == sorted(found)
    assert [u for b in range(blocks.number) for u in blocks.units_of(b)] == [*range(units)]
    assert all(u in blocks.units_of(b) for u, b in enumerate(found))

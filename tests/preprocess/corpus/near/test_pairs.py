"""Pairs of similar documents against a comparison of every pair."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.corpus.near import pairs as near_pairs
from preprocess.corpus.near.pairs import ENOUGH, MOST_PAIRS, count_differing, find_pairs

WORDS = 4
Found = dict[tuple[int, int], int]


def table(sketches: list[int]) -> npt.NDArray[np.uint64]:
    """Return sketches of `WORDS` words that differ in their last word only."""
    found = np.zeros((len(sketches), WORDS), np.uint64)
    found[:, -1] = sketches
    return found


def pairs(keys: list[int], sketches: list[int], most: int) -> Found:
    """Return the differing bits of each pair (later, earlier) found; each pair is found once."""
    found = find_pairs(np.array(keys, np.uint32), table(sketches), most)
    rows = list(zip(found.later.tolist(), found.earlier.tolist(), strict=True))
    assert len({*rows}) == len(rows)
    return dict(zip(rows, found.differing.tolist(), strict=True))


def every_pair(keys: list[int], sketches: list[int], most: int) -> Found:
    """Return the same by comparing every document with the earlier ones of its group."""
    found: Found = {}
    distinct: list[int] = []
    for later, (key, sketch) in enumerate(zip(keys, sketches, strict=True)):
        earlier = [e for e in distinct if keys[e] == key]
        equal = [e for e in earlier if sketches[e] == sketch]
        if equal:
            found[later, equal[0]] = 0
            continue
        distinct.append(later)
        for e in earlier:
            if (differing := (sketches[e] ^ sketch).bit_count()) <= most:
                found[later, e] = differing
    return found


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2**32 - 1]), st.integers(0, 31)), max_size=40),
    st.integers(0, 4),
)
def test_small_groups_have_every_pair(rows: list[tuple[int, int]], most: int) -> None:
    keys, sketches = [key for key, _ in rows], [sketch % 12 for _, sketch in rows]
    assert pairs(keys, sketches, most) == every_pair(keys, sketches, most)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 2**12 - 1), min_size=17, max_size=120), st.sampled_from([1, 7, 64]))
def test_a_document_of_a_large_group_is_compared_with_its_references(
    sketches: list[int], chunk: int
) -> None:
    most = 3
    keys = [5] * len(sketches)
    references: list[int] = []
    expected: Found = {}
    seen: dict[int, int] = {}
    for later, sketch in enumerate(sketches):
        if sketch in seen:
            expected[later, seen[sketch]] = 0
            continue
        seen[sketch] = later
        bits = {e: (sketches[e] ^ sketch).bit_count() for e in references}
        near = sorted((n, e) for e, n in bits.items() if n <= most)
        expected |= {(later, e): n for n, e in near[:MOST_PAIRS]}
        if len(near) < ENOUGH:
            references.append(later)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_pairs, "_CHUNK", chunk)
        patch.setattr(near_pairs, "SMALL_GROUP", 1)
        assert pairs(keys, sketches, most) == expected


def test_the_number_of_references_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_pairs, "MOST_REFERENCES", 3)
    # No two of these are similar, so each would be a reference.
    sketches = [1 << n for n in range(40)]
    assert pairs([1] * 80, sketches + [s | 1 << 50 for s in sketches], 1) == {
        (40 + n, n): 1 for n in range(3)
    }


def test_many_equal_documents_have_one_pair_each() -> None:
    number = 20_000
    found = pairs([3] * number, [9] * number, 2)
    assert found == dict.fromkeys(((later, 0) for later in range(1, number)), 0)


def test_documents_of_different_keys_make_no_pair() -> None:
    assert pairs([1, 2, 3], [7, 7, 7], 256) == {}
    assert pairs([], [], 256) == {}


def test_the_differing_bits_of_all_words_count() -> None:
    one = np.array([[0, 1, 3, 2**64 - 1]], np.uint64)
    assert count_differing(one, np.zeros((1, WORDS), np.uint64)).tolist() == [67]

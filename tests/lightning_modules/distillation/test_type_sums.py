"""Sums of the vectors of each type, in any order and in parts of any size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.distillation import type_sums
from lightning_modules.distillation.type_sums import TypeSums, Uses

TYPES, DIM = 6, 3
TEXTS = st.lists(st.lists(st.integers(0, TYPES - 1), max_size=9), max_size=12)


def uses_of(texts: list[list[int]], seed: int = 1) -> list[Uses]:
    draw = np.random.default_rng(seed)
    return [
        Uses(np.array(ids, np.int64), draw.normal(0, 5, (len(ids), DIM)).astype(np.float32))
        for ids in texts
    ]


def sums_of(texts: list[Uses]) -> TypeSums:
    sums = TypeSums(TYPES, DIM)
    for uses in texts:
        sums.add(uses)
    sums.flush()
    return sums


@given(TEXTS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_sums_are_those_of_each_token_in_any_order(texts, random, at_once) -> None:
    uses = uses_of(texts)
    expected, counts = np.zeros((TYPES, DIM)), np.zeros(TYPES, np.int64)
    for one in uses:
        for id_, vector in zip(one.ids, one.vectors, strict=True):
            expected[id_] += vector
            counts[id_] += 1
    random.shuffle(uses)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type_sums, "ADDED_AT_ONCE", at_once)
        found = sums_of(uses)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_allclose(found.sums, expected, rtol=0, atol=1e-12)


@given(TEXTS)
def test_the_same_order_gives_the_same_bits(texts) -> None:
    one, other = sums_of(uses_of(texts)), sums_of(uses_of(texts))
    assert one.sums.tobytes() == other.sums.tobytes()


def test_many_small_vectors_are_not_lost_beside_a_large_sum() -> None:
    vectors = np.full((100_001, 1), 1e-4, np.float32)
    vectors[0] = 1e4
    sums = TypeSums(1, 1)
    sums.add(Uses(np.zeros(100_001, np.int64), vectors))
    np.testing.assert_allclose(sums.sums[0, 0], 1e4 + 1e5 * np.float64(vectors[1, 0]), rtol=1e-14)

"""Shares of sources, samples, and how often shards occur in passes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.reading.mixing import (
    ONE,
    PassPlan,
    allot,
    has_natural_shares,
    repeat_factors,
    seeded,
    shares,
)

SIZES = st.lists(st.integers(1, 10**12), min_size=1, max_size=5)


def test_shares_follow_sizes_at_alpha_one_and_weights_at_alpha_zero() -> None:
    assert shares([30, 10], [1, 1], 1) == [0.75, 0.25]
    assert shares([30, 10], [1, 3], 1) == [0.5, 0.5]
    assert shares([30, 10], [1, 1], 0) == [0.5, 0.5]
    assert shares([30, 10], [4, 1], 0) == [0.8, 0.2]
    # 90 to 10 at alpha 0.5 is 3 to 1.
    assert shares([90, 10], [1, 1], 0.5) == pytest.approx([0.75, 0.25])
    assert shares([5, 0], [1, 1], 0) == [1.0, 0.0], "an empty source has no share"
    assert shares([0, 0], [1, 1], 1) == [0.0, 0.0]


def test_shares_are_natural_at_alpha_one_and_equal_weights() -> None:
    assert has_natural_shares([2.0, 2.0], 1.0)
    assert has_natural_shares([3.0], 1.0)
    assert not has_natural_shares([1.0, 2.0], 1.0)
    assert not has_natural_shares([1.0, 1.0], 0.9)


def test_a_source_contributes_at_most_its_size_and_the_others_the_rest() -> None:
    assert allot([100, 100], [0.5, 0.5], 50) == [25, 25]
    assert allot([1000, 10, 1000], [0.25, 0.5, 0.25], 100) == [45, 10, 45]
    # The second becomes too small only after the first is used up.
    assert allot([10, 40, 1000], [0.5, 0.4, 0.1], 100) == [10, 40, 50]
    assert allot([10, 20], [0.5, 0.5], 100) == [10, 20]
    assert allot([10, 0], [1.0, 0.0], 4) == [4, 0]


@settings(deadline=None)
@given(SIZES, st.data())
def test_a_sample_has_the_requested_size_if_there_is_enough(
    sizes: list[int], data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 100), min_size=len(sizes), max_size=len(sizes)))
    wanted = data.draw(st.integers(1, 2 * sum(sizes)))
    given_ = allot(sizes, shares(sizes, weights, 0.3), wanted)
    assert all(0 < one <= size for one, size in zip(given_, sizes, strict=True))
    assert sum(given_) == pytest.approx(min(wanted, sum(sizes)))


@settings(deadline=None)
@given(SIZES)
def test_natural_shares_give_factor_one(sizes: list[int]) -> None:
    names = [str(n) for n in range(len(sizes))]
    parts = dict(zip(names, shares(sizes, [1.0] * len(sizes), 1.0), strict=True))
    factors = repeat_factors(dict(zip(names, sizes, strict=True)), parts)
    plan = PassPlan(np.array(sizes), names, factors, 1)
    assert (plan.counts(0, 50) == 1).all()
    assert (plan.counts(2**30, 2**30 + 9) == 1).all()


def test_repeat_factors_give_sources_their_shares_of_a_pass_of_equal_length() -> None:
    factors = repeat_factors({"a": 90, "b": 10, "c": 0}, {"a": 0.5, "b": 0.5, "c": 0.0})
    assert factors == {"a": pytest.approx(50 / 90), "b": 5.0, "c": 0.0}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 2**40)), min_size=1, max_size=12),
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 5)),
    st.integers(-(2**40), 2**40),
    st.integers(0, 1000),
    st.integers(1, 40),
)
def test_over_any_passes_a_source_differs_from_its_share_by_at_most_its_largest_shard(
    shards: list[tuple[str, int]], factors: dict[str, float], seed: int, first: int, number: int
) -> None:
    names = [name for name, _ in shards]
    sizes = np.array([size for _, size in shards])
    plan = PassPlan(sizes, names, factors, seed)
    counts = plan.counts(first, first + number)
    assert counts.min() >= 0
    assert plan.lengths(first, first + number).tolist() == (counts @ sizes).tolist()
    for name in set(names):
        own = np.array([one == name for one in names])
        factor = round(factors.get(name, 1.0) * ONE) / ONE
        # Each shard differs from its share by less than one.
        assert (np.abs(counts[:, own].sum(0) - factor * number) < 1).all()
        read = int((counts[:, own] @ sizes[own]).sum())
        due = factor * number * int(sizes[own].sum())
        assert abs(read - due) <= sizes[own].max() + 1e-6 * due


def test_a_plan_is_the_same_as_in_former_versions() -> None:
    plan = PassPlan(np.array([5, 5, 5, 9]), ["a", "a", "a", "b"], {"a": 0.5, "b": 1.25}, 7)
    assert plan.counts(0, 6).tolist() == [
        [1, 1, 0, 1],
        [0, 0, 1, 1],
        [1, 1, 0, 2],
        [0, 0, 1, 1],
        [1, 1, 0, 1],
        [0, 0, 1, 1],
    ]


def test_phases_differ_by_seed_and_a_single_shard_occurs_in_some_passes() -> None:
    def plan(seed: int) -> list[int]:
        counts = PassPlan(np.array([7]), ["a"], {"a": 0.3}, seed).counts(0, 20)
        assert int(counts.sum()) == 6
        return counts[:, 0].tolist()

    assert plan(1) == plan(1)
    assert len({tuple(plan(seed)) for seed in range(9)}) > 1
    assert set(plan(1)) == {0, 1}


def test_a_generator_accepts_any_seed() -> None:
    assert seeded(-1, 2).randint(1000) == seeded(2**32 - 1, 2).randint(1000)
    assert seeded(1, 2).randint(10**6) != seeded(1, 2, 0).randint(10**6)

"""The choice of cutoffs."""

import numpy as np
import pytest

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.nn.heads import cutoffs
from lightning_modules.nn.heads.cutoffs import (
    GPU,
    NEARLY_CHEAPEST,
    Cost,
    choose_cutoffs,
    predicted_speedup,
)


def zipf(vocabulary: int) -> np.ndarray:
    counts = (1e7 / np.arange(1, vocabulary + 1)).astype(np.uint64)
    return np.random.default_rng(1).permutation(counts)


def test_small_vocabularies_have_no_tails() -> None:
    assert choose_cutoffs(zipf(999), 512, 4.0, 1280) == ()


@pytest.mark.parametrize(("vocabulary", "dim"), [(8000, 64), (16_000, 128), (800_000, 512)])
def test_chosen_cutoffs_fit_the_vocabulary_and_are_nearly_the_cheapest(
    vocabulary: int, dim: int
) -> None:
    counts = zipf(vocabulary)

    chosen = choose_cutoffs(counts, dim, 4.0, 1280)

    AdaptiveSoftmaxConfig(cutoffs=chosen)
    first, *later = chosen
    assert 0 < first < chosen[-1] + 1 <= vocabulary
    best = predicted_speedup(counts, chosen, dim, 4.0, 1280)
    assert best > 2
    for other in ((), (vocabulary // 2,), (vocabulary // 10,), chosen[:1], chosen[1:]):
        assert predicted_speedup(counts, other, dim, 4.0, 1280) <= NEARLY_CHEAPEST * best
    longer = (first * 3 // 2, *(max(cut, first * 2) for cut in later[:1]), *later[1:])
    assert predicted_speedup(counts, longer, dim, 4.0, 1280) < best


def test_few_rows_do_not_pay_for_a_tail() -> None:
    assert choose_cutoffs(zipf(1000), 8, 4.0, 16) == ()


def test_counts_of_nothing_are_no_division_by_zero() -> None:
    assert predicted_speedup(np.zeros(2000, np.uint64), (), 64, 4.0, 1280) == 1


def test_of_nearly_equal_costs_the_longest_shortlist_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = choose_cutoffs(zipf(8000), 128, 4.0, 1280)
    monkeypatch.setattr(cutoffs, "NEARLY_CHEAPEST", 1.0)

    assert chosen[0] > choose_cutoffs(zipf(8000), 128, 4.0, 1280)[0]


def test_where_matmuls_are_fast_and_logits_dear_tails_are_chosen_by_logits() -> None:
    counts = zipf(800_000)

    chosen = choose_cutoffs(counts, 512, 4.0, 20_480, GPU)

    assert len(chosen) == 3
    assert chosen[0] > choose_cutoffs(counts, 512, 4.0, 20_480)[0]
    assert 5 < predicted_speedup(counts, chosen, 512, 4.0, 20_480, GPU) < 50


def test_grave_model_alone_gives_cutoffs_of_the_known_size() -> None:
    matmuls = Cost(2_000_000_000, 0)

    first, *_ = choose_cutoffs(zipf(793_471), 512, 4.0, 20_480, matmuls)

    assert 200 < first < 5000
    assert predicted_speedup(zipf(793_471), (1000, 41_700), 512, 4.0, 20_480, matmuls) > 40

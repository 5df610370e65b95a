"""The choice of cutoffs, and the widths of tails."""

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
    tail_widths,
    two_digits,
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


def test_with_few_rows_no_tail_pays() -> None:
    assert choose_cutoffs(zipf(1000), 8, 4.0, 16) == ()


def test_zero_counts_do_not_divide_by_zero() -> None:
    assert predicted_speedup(np.zeros(2000, np.uint64), (), 64, 4.0, 1280) == 1


def test_among_nearly_equal_costs_the_largest_head_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = choose_cutoffs(zipf(8000), 128, 4.0, 1280)
    monkeypatch.setattr(cutoffs, "NEARLY_CHEAPEST", 1.0)

    assert chosen[0] > choose_cutoffs(zipf(8000), 128, 4.0, 1280)[0]


def test_on_a_gpu_logits_dominate_so_the_head_is_larger_than_on_a_cpu() -> None:
    counts = zipf(800_000)

    chosen = choose_cutoffs(counts, 512, 4.0, 20_480, GPU)

    assert len(chosen) == 3
    assert chosen[0] > choose_cutoffs(counts, 512, 4.0, 20_480)[0]
    assert 5 < predicted_speedup(counts, chosen, 512, 4.0, 20_480, GPU) < 50


def test_without_a_cost_of_logits_cutoffs_are_of_the_size_in_the_paper() -> None:
    matmuls = Cost(2_000_000_000, 0)

    first, *_ = choose_cutoffs(zipf(793_471), 512, 4.0, 20_480, matmuls)

    assert 200 < first < 5000
    assert predicted_speedup(zipf(793_471), (1000, 41_700), 512, 4.0, 20_480, matmuls) > 40


@pytest.mark.parametrize(
    ("dim", "div", "widths"),
    [(128, 4.0, (32, 8, 2)), (4, 4.0, (1, 1, 1)), (10, 1.5, (6, 4, 2))],
)
def test_each_tail_is_narrower_by_the_same_factor(
    dim: int, div: float, widths: tuple[int, ...]
) -> None:
    assert tail_widths(dim, div, 3) == widths


def test_numbers_are_rounded_down_to_two_digits() -> None:
    assert [two_digits(number) for number in (0.4, 7, 99.9, 123, 7117.4)] == [0, 7, 99, 120, 7100]

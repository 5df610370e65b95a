"""The low-rank approximation of a matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.models.smaller import low_rank as module
from lightning_modules.models.smaller.low_rank import LowRank, low_rank

SEEDS = st.integers(0, 10_000)


def matrix(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def shares(rows: int, seed: int) -> Tensor:
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed)) + 0.01


def distance(found: LowRank, table: Tensor, share: Tensor) -> float:
    apart = found.vectors @ found.linear.T + found.bias - table
    return float((share[:, None] * apart.double().square()).sum())


@settings(deadline=None)
@given(SEEDS, st.integers(1, 5), st.integers(7, 40))
def test_the_error_is_that_of_the_matrix_and_no_other_is_lower(
    seed: int, rank: int, rows: int
) -> None:
    table, share = matrix(rows, 6, seed), shares(rows, seed)
    found = low_rank(table, None, rank, share)
    apart = distance(found, table, share)
    mean = (share / share.sum()) @ table

    assert found.vectors.shape == (rows, rank)
    assert found.linear.shape == (6, rank)
    whole = float((share[:, None] * (table - mean).double().square()).sum())
    assert (apart / whole) ** 0.5 == pytest.approx(found.error, rel=1e-4, abs=1e-5)
    for number in range(5):
        moved = found._replace(linear=found.linear + 0.05 * matrix(6, rank, number))
        assert distance(moved, table, share) > apart
        moved = found._replace(bias=found.bias + 0.05 * matrix(1, 6, number)[0])
        assert distance(moved, table, share) > apart


@settings(deadline=None)
@given(SEEDS, st.integers(1, 4))
def test_a_matrix_of_a_low_rank_is_restored(seed: int, rank: int) -> None:
    table = matrix(30, rank, seed) @ matrix(rank, 6, seed + 1) + matrix(1, 6, seed + 2)
    found = low_rank(table, None, rank, shares(30, seed))

    assert found.error < 1e-5
    torch.testing.assert_close(
        found.vectors @ found.linear.T + found.bias, table, atol=1e-4, rtol=1e-4
    )


def test_a_map_is_part_of_the_matrix() -> None:
    table, linear = matrix(30, 8, 1), matrix(6, 8, 2)
    composed = low_rank(table @ linear.T, None, 3, shares(30, 1))
    found = low_rank(table, linear, 3, shares(30, 1))

    for one, other in zip(found[:3], composed[:3], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_rows_in_parts_and_threads_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    table, share = matrix(3000, 40, 1), shares(3000, 1)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(low_rank(table, None, 9, share))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, other in zip(results[0][:3], results[1][:3], strict=True):
        assert torch.equal(one, other)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    torch.testing.assert_close(low_rank(table, None, 9, share)[:3], results[0][:3])


def test_few_rows_at_once_are_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    double, rows = Tensor.double, list[int]()

    def counted(x: Tensor) -> Tensor:
        if x.dim() == 2:
            rows.append(len(x))
        return double(x)

    monkeypatch.setattr(Tensor, "double", counted)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    low_rank(matrix(30, 6, 1), None, 3, shares(30, 1))

    assert rows == [7, 7, 7, 7, 2] * 3


def test_equal_rows_have_no_error() -> None:
    found = low_rank(torch.ones(5, 4), None, 2, torch.ones(5))

    assert found.error == 0
    assert torch.equal(found.vectors @ found.linear.T + found.bias, torch.ones(5, 4))

"""Routes of targets to tails, and ranks of ids."""

import numpy as np
import pytest
import torch

from lightning_modules.nn.heads.cutoffs import ROUTED_BLOCK
from lightning_modules.nn.heads.routes import Routes, id_ranks, ranks_of, route


def test_routes_have_each_target_once_padded_to_blocks_of_at_least_one() -> None:
    ranks = np.arange(10)[::-1].copy()  # id 9 is rank 0
    targets = np.array([9, 0, -100, 4] + [1] * ROUTED_BLOCK)

    routes = route(targets, ranks, (2, 7, 9))

    assert [len(rows) for rows in routes.rows] == [
        ROUTED_BLOCK,
        ROUTED_BLOCK,
        ROUTED_BLOCK,
    ]  # ranks 2-6, 7-8, 9
    assert routes.rows[0][0] == 3
    assert routes.targets[0].tolist() == [3] + [-100] * (ROUTED_BLOCK - 1)  # id 4 is rank 5
    assert routes.rows[1].tolist() == list(range(4, 4 + ROUTED_BLOCK))
    assert routes.targets[1].tolist() == [1] * ROUTED_BLOCK
    assert routes.rows[2][0] == 1
    assert route(targets[:1], ranks, (2, 7, 9)).targets[2].tolist() == [-100] * ROUTED_BLOCK
    assert len(route(np.full(ROUTED_BLOCK + 1, 5), ranks, (2,)).rows[0]) == 2 * ROUTED_BLOCK
    assert route(targets, ranks, ()) == Routes((), ())


def test_ranks_are_by_falling_count_then_by_id() -> None:
    assert ranks_of(np.array([3, 9, 0, 9], np.uint64)).tolist() == [2, 0, 3, 1]


def test_without_ranks_ids_are_ranks() -> None:
    assert id_ranks(None, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("ranks", [[0, 1, 1], [0, 1], [1, 2, 3]])
def test_ranks_that_are_not_a_permutation_raise(ranks: list[int]) -> None:
    with pytest.raises(ValueError, match=r"ranks must hold each of 0 to 2 once.*token counts"):
        id_ranks(torch.tensor(ranks), 3)

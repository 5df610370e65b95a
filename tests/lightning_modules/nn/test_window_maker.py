"""Windows made from token ids."""

import numpy as np
import torch

from lightning_modules.nn.heads.routes import route
from lightning_modules.nn.window import Types
from lightning_modules.nn.window_maker import WindowMaker


def test_only_targets_that_cannot_be_predicted_become_unknown() -> None:
    make = WindowMaker(np.arange(6), ())
    ids = np.array([[[3], [7], [5]]])
    window = make(ids, ids)

    assert window.inputs.flatten().tolist() == [3, 7, 5]
    assert window.targets.flatten().tolist() == [3, 0, 5]


def test_the_state_is_reset_at_the_boundary_before_each_document() -> None:
    make = WindowMaker(np.arange(9), (), boundary=(1, 2))
    ids = np.array([[[1], [5], [2]], [[2], [1], [5]]])
    window = make(ids, ids)

    assert window.resets is not None
    assert window.resets.flatten().tolist() == [True, False, False, True, False, False]


def test_targets_are_routed_by_rank_and_the_encoder_gets_the_ids() -> None:
    ranks, ids = np.array([2, 0, 1, 3]), np.array([[[3], [0], [7]]])
    types = Types((torch.zeros(1, 2),), torch.zeros(1, 3, 1))
    window = WindowMaker(ranks, (1, 3), lambda given: types if given is ids else None)(ids, ids)

    assert window.inputs is types
    assert window.routes is not None
    for parts, expected in zip(
        window.routes, route(np.array([3, 0, 0]), ranks, (1, 3)), strict=True
    ):
        assert all(map(torch.equal, parts, expected))

"""The update of the weights in one process."""

import copy
import math

import pytest
import torch
from torch import nn

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.update import Update


def weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.arange(6.0).view(2, 3)), nn.Parameter(torch.ones(4))]


def with_gradients(number: int) -> list[nn.Parameter]:
    made = weights()
    give_gradients(made, number)
    return made


def give_gradients(made: list[nn.Parameter], number: int) -> None:
    for weight in made:
        weight.grad = torch.full_like(weight, number)


def test_the_norm_is_that_of_all_gradients() -> None:
    made = with_gradients(3)
    made.append(nn.Parameter(torch.zeros(2)))  # without a gradient

    assert Update(TrainConfig(), made).norm() == pytest.approx(3 * math.sqrt(10))


def test_a_step_uses_its_rate_and_clipping() -> None:
    ours, theirs = with_gradients(3), with_gradients(3)
    train = TrainConfig.model_validate({"optimizer": {"kind": "sgd"}, "learning_rate": 9.0})
    Update(train, ours).step(0.1, 6.0)

    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other - 0.1 * 0.5)


def test_a_restored_update_takes_the_same_steps() -> None:
    ours, theirs = weights(), weights()
    first, undisturbed = (Update(TrainConfig(), made) for made in (ours, theirs))
    for number in (1, 2):
        for made, update in ((ours, first), (theirs, undisturbed)):
            give_gradients(made, number)
            update.step(0.1, 1.0)
    state = copy.deepcopy(first.state_dict())
    state["param_groups"][0]["fused"] = None  # as another device had it
    second = Update(TrainConfig(), ours)
    second.load_state_dict(state)
    for made, update in ((ours, second), (theirs, undisturbed)):
        give_gradients(made, 3)
        update.step(0.1, 1.0)

    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert second.state_dict()["param_groups"][0]["fused"] is True

"""The learning rates of a training."""

import pytest
import torch

from lightning_modules.tasks.optimizer import optimizers, rate_share
from lightning_modules.tasks.training_config import FitConfig


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"warmup": 0.5}, [1 / 3, 2 / 3, 1, 0.5]),
        ({"warmup": 0}, [1, 0.75, 0.5, 0.25]),
        ({"warmup": 0, "schedule": "constant"}, [1, 1, 1, 1]),
        ({"warmup": 0.5, "schedule": "constant"}, [1 / 3, 2 / 3, 1, 1]),
    ],
)
def test_a_learning_rate_rises_and_then_falls_or_stays(
    settings: dict[str, object], expected: list[float]
) -> None:
    config = FitConfig.model_validate(settings)
    assert [rate_share(config, 4, step) for step in range(4)] == pytest.approx(expected)
    weight = torch.nn.Parameter(torch.zeros(1))
    made = optimizers([weight], config, 4)
    [group] = made["optimizer"].param_groups
    assert group["lr"] == pytest.approx(config.learning_rate * expected[0])

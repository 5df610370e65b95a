"""Limits of the model's and the training's settings."""

from typing import Any

import pytest
from pydantic import ValidationError

from lightning_modules.config import AdaptiveSoftmaxConfig, LSTMConfig, ModelConfig, TrainConfig


@pytest.mark.parametrize("cutoffs", [[], [1], [20, 50], "auto"])
def test_cutoffs_that_rise_are_taken(cutoffs: Any) -> None:
    found = AdaptiveSoftmaxConfig.model_validate({"cutoffs": cutoffs}).cutoffs

    assert found == (cutoffs if cutoffs == "auto" else tuple(cutoffs))


@pytest.mark.parametrize("cutoffs", [[0], [50, 20], [20, 20], [-1, 5]])
def test_cutoffs_that_do_not_rise_are_refused(cutoffs: list[int]) -> None:
    with pytest.raises(ValidationError, match="cutoffs must rise from above 0, not"):
        AdaptiveSoftmaxConfig.model_validate({"cutoffs": cutoffs})


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_a_seed_is_one_that_every_generator_takes(seed: int) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(seed=seed)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (TrainConfig, "rows", 0),
        (TrainConfig, "learning_rate", 0),
        (TrainConfig, "final_rate", 1.1),
        (TrainConfig, "clip_norm", 0),
        (LSTMConfig, "layers", 0),
        (LSTMConfig, "dropout", 1),
        (LSTMConfig, "cell_clip", 0),
        (AdaptiveSoftmaxConfig, "div", 0.5),
    ],
)
def test_a_value_out_of_bounds_is_refused(section: Any, key: str, value: float) -> None:
    with pytest.raises(ValidationError, match=key):
        section(**{key: value})


def test_without_a_projection_a_direction_is_as_wide_as_its_cell() -> None:
    assert LSTMConfig(hidden=24, projection=None).direction_width == 24
    assert LSTMConfig(hidden=24, projection=6).direction_width == 6


def test_the_head_is_chosen_by_its_kind() -> None:
    assert ModelConfig.model_validate({"head": {"kind": "softmax"}}).head.kind == "softmax"
    with pytest.raises(ValidationError, match="adaptive_softmax"):
        ModelConfig.model_validate({"head": {"kind": "other"}})

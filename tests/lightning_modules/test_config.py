"""Limits of the model's and the training's settings."""

from typing import Any

import pytest
from pydantic import ValidationError

from lightning_modules.config import (
    AdaptiveSoftmaxConfig,
    CharCNNInputConfig,
    GRUConfig,
    LSTMConfig,
    ModelConfig,
)
from lightning_modules.training.config import CosineConfig, PlateauConfig, TrainConfig


@pytest.mark.parametrize("cutoffs", [[], [1], [20, 50], "auto"])
def test_cutoffs_that_rise_are_taken(cutoffs: Any) -> None:
    found = AdaptiveSoftmaxConfig.model_validate({"cutoffs": cutoffs}).cutoffs

    assert found == (cutoffs if cutoffs == "auto" else tuple(cutoffs))


@pytest.mark.parametrize("cutoffs", [[0], [50, 20], [20, 20], [-1, 5]])
def test_cutoffs_that_do_not_rise_are_refused(cutoffs: list[int]) -> None:
    with pytest.raises(
        ValidationError, match="cutoffs must be positive and strictly increasing, not"
    ):
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
        (TrainConfig, "loss_scale", 0),
        (TrainConfig, "max_skipped_steps", 0),
        (CosineConfig, "final_rate", 1.1),
        (PlateauConfig, "factor", 1),
        (GRUConfig, "weight_drop", 1),
        (CharCNNInputConfig, "max_characters", 2),
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
    assert GRUConfig(hidden=24).direction_width == 24


def test_the_head_is_chosen_by_its_kind() -> None:
    assert ModelConfig.model_validate({"head": {"kind": "softmax"}}).head.kind == "softmax"
    with pytest.raises(ValidationError, match="adaptive_softmax"):
        ModelConfig.model_validate({"head": {"kind": "other"}})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"input": {"kind": "adaptive"}, "head": {"kind": "softmax"}},
            "input.kind adaptive needs head.kind adaptive_softmax, whose clusters it uses, not softmax; "
            "set head.kind to adaptive_softmax or input.kind to embedding",
        ),
        (
            {"tied": True, "input": {"kind": "char_cnn"}},
            "tied: a char_cnn input has no vector per id to share; set tied to false",
        ),
        (
            {"tied": True},
            "tied: input.kind embedding and head.kind adaptive_softmax have vectors of different "
            "shapes; use adaptive_softmax with input.kind adaptive, and softmax or sampled_softmax "
            "with input.kind embedding",
        ),
        (
            {"tied": True, "input": {"dim": 7}, "head": {"kind": "softmax"}},
            "tied: input.dim is 7, but the output layer needs 128 (recurrent.projection, or hidden "
            "if there is none); set input.dim to null",
        ),
        (
            {"tied": True, "head": {"kind": "softmax"}, "output_vocabulary": 9},
            "tied: output_vocabulary needs output vectors of its own; set it to null",
        ),
        (
            {"input": {"kind": "char_cnn", "max_characters": 5, "filters": [[6, 1]]}},
            "filters: [6, 1] must have a width of 1 to max_characters (5) and at least 1 filter",
        ),
    ],
)
def test_parts_that_do_not_fit_are_told_with_what_does(model: Any, message: str) -> None:
    # A part of a choice keeps its kind's default where a test leaves it out.
    parts = {"input": {"kind": "embedding"}, "head": {"kind": "adaptive_softmax"}}
    given = {k: parts.get(k, {}) | v if isinstance(v, dict) else v for k, v in model.items()}
    with pytest.raises(ValidationError) as told:
        ModelConfig.model_validate(given)

    assert message in str(told.value)


@pytest.mark.parametrize(
    "model",
    [
        {"tied": True, "head": {"kind": "softmax"}},
        {"tied": True, "head": {"kind": "sampled_softmax"}},
        {"tied": True, "input": {"kind": "adaptive"}},
        {"input": {"kind": "char_cnn"}, "output_vocabulary": 100},
        {"recurrent": {"kind": "gru"}, "directions": "forward"},
    ],
)
def test_parts_that_fit_are_taken(model: Any) -> None:
    ModelConfig.model_validate(model)


def test_rows_have_to_be_a_multiple_of_the_passes_over_them() -> None:
    with pytest.raises(
        ValidationError, match=r"rows \(10\) must be a multiple of row_passes \(4\)"
    ):
        TrainConfig(rows=10, row_passes=4)


@pytest.mark.parametrize(
    ("train", "decide"),
    [
        ({}, False),
        ({"schedule": {"kind": "plateau"}}, True),
        ({"optimizer": {"kind": "sgd"}}, False),
        ({"optimizer": {"kind": "sgd", "average_after": 5}}, True),
    ],
)
def test_looks_at_held_out_text_may_decide_the_result(train: Any, decide: bool) -> None:
    assert TrainConfig.model_validate(train).looks_decide is decide

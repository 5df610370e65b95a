"""Limits of the settings of the model and of the training, and the checks between them."""

from typing import Any

import pytest
from pydantic import ValidationError

from lightning_modules.config import (
    AdaptiveSoftmaxConfig,
    CharCNNInputConfig,
    ModelConfig,
    TrainableModelConfig,
)
from lightning_modules.recurrent_config import GRUConfig, HGRN2Config, LSTMConfig, SRUConfig
from lightning_modules.training.config import CosineConfig, PlateauConfig, TrainConfig


@pytest.mark.parametrize("cutoffs", [[], [1], [20, 50], "auto"])
def test_increasing_cutoffs_are_accepted(cutoffs: Any) -> None:
    parsed = AdaptiveSoftmaxConfig.model_validate({"cutoffs": cutoffs}).cutoffs

    assert parsed == (cutoffs if cutoffs == "auto" else tuple(cutoffs))


@pytest.mark.parametrize("cutoffs", [[0], [50, 20], [20, 20], [-1, 5]])
def test_cutoffs_that_do_not_increase_are_rejected(cutoffs: list[int]) -> None:
    with pytest.raises(
        ValidationError, match="cutoffs must be positive and strictly increasing, not"
    ):
        AdaptiveSoftmaxConfig.model_validate({"cutoffs": cutoffs})


@pytest.mark.parametrize(
    ("given", "meant"), [(True, 1), (False, 0), ("true", 1), ("FALSE", 0), (0.25, 0.25), (1, 1)]
)
def test_the_former_switch_reset_state_is_a_probability(given: Any, meant: float) -> None:
    parsed = TrainConfig.model_validate({"reset_state": given}).reset_state
    assert parsed == meant
    assert type(parsed) is float


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_a_seed_outside_32_bits_is_rejected(seed: int) -> None:
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
        (TrainConfig, "reset_state", 1.1),
        (TrainConfig, "reset_state", -0.1),
        (LSTMConfig, "layers", 0),
        (LSTMConfig, "dropout", 1),
        (LSTMConfig, "cell_clip", 0),
        (AdaptiveSoftmaxConfig, "div", 0.5),
    ],
)
def test_a_value_out_of_bounds_is_rejected(section: Any, key: str, value: float) -> None:
    with pytest.raises(ValidationError, match=key):
        section(**{key: value})


def test_without_a_projection_the_width_is_the_hidden_size() -> None:
    assert LSTMConfig(hidden=24, projection=None).direction_width == 24
    assert LSTMConfig(hidden=24, projection=6).direction_width == 6
    assert GRUConfig(hidden=24).direction_width == 24
    assert HGRN2Config(hidden=32).direction_width == 32
    assert HGRN2Config(hidden=32, projection=6).direction_width == 6
    assert SRUConfig(hidden=24).direction_width == 24


def test_heads_of_hgrn2_must_be_whole() -> None:
    with pytest.raises(
        ValidationError,
        match=r"expansion: 16 is no divisor of hidden \(200\); set expansion to 10 or 20, or hidden to a "
        "multiple of 16",
    ):
        HGRN2Config(hidden=200, expansion=16)
    with pytest.raises(ValidationError, match=r"hidden \(7\); set expansion to 1 or 7, or hidden"):
        HGRN2Config(hidden=7, expansion=4)
    assert HGRN2Config(hidden=200, expansion=200).expansion == 200


@pytest.mark.parametrize("section", [HGRN2Config, SRUConfig])
@pytest.mark.parametrize("key", ["cell_clip", "projection_clip", "forget_bias", "weight_drop"])
def test_gate_free_recurrences_refuse_settings_of_an_lstm(section: Any, key: str) -> None:
    with pytest.raises(ValidationError, match=f"{key}\n  Extra inputs are not permitted"):
        section(**{key: 0.5})


def test_an_sru_has_highway_connections_in_place_of_residual_ones() -> None:
    with pytest.raises(ValidationError, match="residual"):
        SRUConfig.model_validate({"residual": True})
    assert not SRUConfig().residual


def test_the_head_is_chosen_by_its_kind() -> None:
    assert ModelConfig.model_validate({"head": {"kind": "softmax"}}).head.kind == "softmax"
    with pytest.raises(ValidationError, match="adaptive_softmax"):
        ModelConfig.model_validate({"head": {"kind": "other"}})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"input": {"kind": "adaptive"}, "head": {"kind": "softmax"}},
            "input.kind adaptive uses the clusters of head.kind adaptive_softmax, but head.kind is softmax; "
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
            "filters: [6, 1] must have a width of 1 to max_characters (5) and 1 to 1000000 filters",
        ),
    ],
)
def test_parts_that_do_not_fit_are_rejected_with_a_way_out(model: Any, message: str) -> None:
    # If a test gives no kind, the part has its default kind.
    parts = {"input": {"kind": "embedding"}, "head": {"kind": "adaptive_softmax"}}
    settings = {k: parts.get(k, {}) | v if isinstance(v, dict) else v for k, v in model.items()}
    with pytest.raises(ValidationError) as error:
        ModelConfig.model_validate(settings)

    assert message in str(error.value)


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
def test_parts_that_fit_are_accepted(model: Any) -> None:
    ModelConfig.model_validate(model)


def test_rows_must_be_a_multiple_of_row_passes() -> None:
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
def test_the_result_depends_on_the_held_out_loss_if_the_schedule_or_the_average_does(
    train: Any, decide: bool
) -> None:
    assert TrainConfig.model_validate(train).depends_on_held_out_loss is decide


NONE: dict[str, Any] = {"recurrent": {"kind": "none", "hidden": 4}}


def test_a_model_without_recurrent_layers_has_one_direction() -> None:
    with pytest.raises(ValidationError, match="none has no directions; set directions to forward"):
        ModelConfig.model_validate(NONE)
    recurrent = ModelConfig.model_validate(NONE | {"directions": "forward"}).recurrent
    assert (recurrent.layers, recurrent.direction_width, recurrent.residual) == (0, 4, False)


def test_a_model_without_recurrent_layers_is_not_trained() -> None:
    with pytest.raises(ValidationError, match="'lstm', 'gru', 'hgrn2', 'sru'"):
        TrainableModelConfig.model_validate(NONE | {"directions": "forward"})

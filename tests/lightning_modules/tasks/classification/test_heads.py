"""Heads: a result depends on its text alone, and a head can be stored."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.tasks.classification.heads import (
    TextHead,
    predict,
)
from lightning_modules.tasks.classification.inputs import VectorInputs
from lightning_modules.tasks.classification.network_config import NetworkConfig
from lightning_modules.tasks.features import Features, Padded

LENGTHS = [4, 0, 1, 9, 2, 7]
KINDS: list[dict[str, Any]] = [
    {"kind": "lstm"},
    {"kind": "gru", "layer_norm": True},
    {"kind": "cnn"},
    {"kind": "cnn", "widths": [1, 12], "layer_norm": True},
]


def head_of(settings: dict[str, Any], outputs: int = 3, pairs: bool = False) -> TextHead:
    torch.manual_seed(1)
    config = NetworkConfig.model_validate({"hidden": 5, "filters": 4, **settings})
    return TextHead(config, 3, 6, outputs, pairs).eval()


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_outputs_do_not_depend_on_padding_and_other_texts(
    settings: dict[str, Any],
    padded: Callable[..., Padded],
    random_features: Callable[..., Features],
) -> None:
    head, features = head_of(settings), random_features(LENGTHS)
    whole = head([padded(LENGTHS)])
    assert whole.shape == (6, 3)
    torch.testing.assert_close(head([padded(LENGTHS, extra=13)]), whole, rtol=0, atol=1e-6)
    for number in range(len(LENGTHS)):
        torch.testing.assert_close(
            head([features.batch([number])])[0], whole[number], rtol=0, atol=1e-6
        )
    outputs = predict(head, VectorInputs([features], 100), batch_texts=4)
    np.testing.assert_allclose(outputs, whole.detach(), atol=1e-6)


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_outputs_depend_on_each_unit_and_layer(
    settings: dict[str, Any], padded: Callable[..., Padded]
) -> None:
    batch = padded([9, 5])
    batch.layers.requires_grad_()
    head_of(settings)([batch])[0].square().sum().backward()
    gradient = batch.layers.grad
    assert gradient is not None
    # (depth, units) of the first text; the maximum of a CNN ignores some units.
    reached = gradient[:, 0].abs().sum(2) > 0
    assert reached.all() if settings["kind"] != "cnn" else reached.any(1).all()
    assert not gradient[:, 1].any()


def test_predictions_have_no_dropout_and_keep_the_mode(
    random_features: Callable[..., Features],
) -> None:
    head, inputs = head_of({"kind": "lstm"}).train(), VectorInputs([random_features(LENGTHS)], 100)
    first = predict(head, inputs)
    assert head.training
    np.testing.assert_array_equal(first, predict(head, inputs))


def test_the_outputs_of_one_text_at_a_time_are_equal_to_the_bit(
    random_features: Callable[..., Features],
) -> None:
    head, features = head_of({"kind": "lstm"}), random_features(LENGTHS)
    whole = predict(head, VectorInputs([features], 100), batch_texts=1)
    alone = predict(head, VectorInputs([features.subset([3])], 100), batch_texts=1)
    np.testing.assert_array_equal(whole[3], alone[0])


def test_longer_texts_are_cut_and_counted(random_features: Callable[..., Features]) -> None:
    features = random_features(LENGTHS)
    inputs = VectorInputs([features], 5)
    assert inputs.cut == 2
    assert inputs.lengths.tolist() == [4, 0, 1, 5, 2, 5]
    head = head_of({"kind": "cnn"})
    [cut] = inputs.batch([3])
    assert cut.layers.shape[2] == 5
    np.testing.assert_array_equal(cut.layers[:, 0], features[3][:, :5])
    assert predict(head, inputs).shape == (6, 3)


def test_the_texts_of_a_pair_are_compared(random_features: Callable[..., Features]) -> None:
    one, other = random_features(LENGTHS, 0), random_features(LENGTHS[::-1], 1)
    head = head_of({"kind": "gru"}, pairs=True)
    assert head.output.in_features == 4 * head.encoder.width
    both = predict(head, VectorInputs([one, other], 100))
    swapped = predict(head, VectorInputs([other, one], 100))
    assert np.abs(both - swapped).min() > 1e-6
    assert VectorInputs([one, other], 5).cut == 4


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_a_stored_head_gives_the_same_outputs(
    settings: dict[str, Any], pairs: bool, random_features: Callable[..., Features]
) -> None:
    head = head_of(settings, pairs=pairs)
    head.center.fill_(2)
    with torch.no_grad():
        head.mix.weights += torch.tensor([1.0, 0.0, -1.0])
    assert head.layer_weights == pytest.approx([0.6652, 0.2447, 0.0900], abs=1e-4)
    features = [random_features(LENGTHS, seed) for seed in range(1 + pairs)]
    inputs = VectorInputs(features, 100)
    again = head_of(settings, pairs=pairs)
    again.load_state_dict(head.state_dict())
    np.testing.assert_array_equal(predict(again, inputs), predict(head, inputs))

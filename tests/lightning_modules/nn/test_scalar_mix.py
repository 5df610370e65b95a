"""The weighted sum of layers, and its layer norm."""

import pytest
import torch
from torch import Tensor

from lightning_modules.nn.scalar_mix import EPSILON, ScalarMix


@pytest.fixture
def layers() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 2, 5, 4)  # (depth, batch, time, dim)


LENGTHS = torch.tensor([5, 2])


def test_the_initial_mix_is_the_mean(layers: Tensor) -> None:
    torch.testing.assert_close(ScalarMix(3)(layers), layers.mean(0))


def test_weights_and_gamma_are_learned(layers: Tensor) -> None:
    mix = ScalarMix(3, weights=[0.0, 1.0, 2.0], gamma=2.0)
    expected = 2 * (torch.tensor([0.0, 1.0, 2.0]).softmax(0)[:, None, None, None] * layers).sum(0)

    mixed = mix(layers)
    mixed.square().sum().backward()

    torch.testing.assert_close(mixed, expected)
    assert mix.weights.grad is not None
    assert mix.weights.grad.abs().min() > 0
    assert mix.gamma.grad is not None


def test_text_layer_norm_depends_only_on_the_texts_own_tokens(layers: Tensor) -> None:
    mix = ScalarMix(3, "text")
    mixed = mix(layers, LENGTHS)
    other = layers.clone()
    other[:, 0] += 5
    other[:, 1, 2:] = 7  # beyond its length

    torch.testing.assert_close(mix(other, LENGTHS)[1, :2], mixed[1, :2])
    alone = layers[:, 1, :2]
    mean, variance = alone.mean((1, 2), keepdim=True), alone.var((1, 2), False, keepdim=True)
    expected = ((alone - mean) / (variance + EPSILON).sqrt()).mean(0)
    torch.testing.assert_close(mixed[1, :2], expected)


def test_batch_layer_norm_is_over_all_tokens_of_the_batch(layers: Tensor) -> None:
    mixed = ScalarMix(3, "batch")(layers, LENGTHS)

    tokens = torch.cat([layers[:, 0], layers[:, 1, :2]], 1)  # (depth, 7, dim)
    mean, variance = tokens.mean((1, 2), keepdim=True), tokens.var((1, 2), False, keepdim=True)
    expected = ((tokens - mean) / (variance + EPSILON).sqrt()).mean(0)
    torch.testing.assert_close(torch.cat([mixed[0], mixed[1, :2]]), expected)


def test_without_lengths_all_positions_are_tokens(layers: Tensor) -> None:
    whole = torch.tensor([5, 5])
    for kind in ("text", "batch"):
        mix = ScalarMix(3, kind)  # type: ignore[arg-type]
        torch.testing.assert_close(mix(layers), mix(layers, whole))


def test_a_wrong_number_of_weights_raises() -> None:
    with pytest.raises(ValueError, match="2 weights for 3 layers"):
        ScalarMix(3, weights=[1.0, 2.0])

"""The weighted sum of layers, and its layer norm."""

import copy

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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_over_a_text_are_at_least_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    # 300 * 512 values are more than float16 counts.
    layers, lengths = torch.randn(2, 1, 300, 512).to(dtype), torch.tensor([300])
    mix = ScalarMix(2, "text", weights=[0.3, 1.7], gamma=1.3)
    mixed = mix(layers, lengths)

    assert mixed.dtype == dtype
    exact = mix(layers.float(), lengths)
    torch.testing.assert_close(mixed, exact.to(dtype), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_mix_of_16_bits_rounds_its_result_only(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    layers = torch.randn(3, 2, 5, 4).to(dtype)
    mix = ScalarMix(3, weights=[0.1, 0.4, -0.7], gamma=1.3).to(dtype)
    exact = copy.deepcopy(mix).float()(layers.float())

    assert torch.equal(mix(layers), exact.to(dtype))

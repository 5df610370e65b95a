"""Recurrent products in int8: close to float32, and a row's result its own."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.int8 import Int8Error, quantize_recurrent

VOCABULARY = 30
KINDS: dict[str, dict[str, Any]] = {
    "lstm": {"kind": "lstm", "hidden": 48, "projection": 16},
    "lstm without projection": {"kind": "lstm", "hidden": 32, "projection": None},
    "lstm with clips that act": {
        "kind": "lstm", "hidden": 48, "projection": 16, "cell_clip": 0.2, "projection_clip": 0.1,
    },
    "lstm with forget bias": {"kind": "lstm", "hidden": 48, "projection": 16, "forget_bias": 1.0},
    "gru": {"kind": "gru", "hidden": 32},
}  # fmt: skip


def networks(kind: str, directions: str = "both") -> tuple[BiLMNetwork, BiLMNetwork]:
    """A network and the same in int8."""
    config = ModelConfig.model_validate({"recurrent": KINDS[kind], "directions": directions})
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        found.append(BiLMNetwork(config, VOCABULARY).eval())
    quantize_recurrent(found[1])
    return found[0], found[1]


def run(network: BiLMNetwork, ids: Tensor, resets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        layers, state = network.layers(ids, network.zero_state(ids.shape[2]), resets)
    return torch.stack(layers), state


@pytest.mark.parametrize("directions", ["both", "forward"])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_and_states_are_within_two_percent(kind: str, directions: str) -> None:
    exact, quantized = networks(kind, directions)
    ids = torch.randint(VOCABULARY, (exact.directions, 12, 5))
    resets = torch.rand(ids.shape) < 0.2

    for places in (None, resets):
        (expected, state), (found, after) = run(exact, ids, places), run(quantized, ids, places)
        for one, other in ((expected, found), (state, after)):
            error = (one - other).square().mean().sqrt() / one.square().mean().sqrt()
            assert 0 < error < 0.02
        torch.testing.assert_close(found[0], expected[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_neighbours(kind: str) -> None:
    _, quantized = networks(kind)
    ids = torch.randint(VOCABULARY, (2, 7, 4))
    quantized.input.embedding.weight.data[:5] *= 30  # rows with these have other ranges
    together, _ = run(quantized, ids)

    for row in range(4):
        alone, _ = run(quantized, ids[:, :, row : row + 1])
        torch.testing.assert_close(alone[..., 0, :], together[..., row, :], atol=1e-6, rtol=1e-5)


def test_a_model_in_int8_has_no_gradient() -> None:
    _, quantized = networks("lstm")
    ids = torch.randint(VOCABULARY, (2, 7, 4))

    with pytest.raises(Int8Error, match=r"has no gradient; use torch\.inference_mode"):
        quantized.layers(ids, quantized.zero_state(4))


def test_a_gpus_model_is_refused() -> None:
    network = BiLMNetwork(ModelConfig.model_validate({"recurrent": KINDS["gru"]}), VOCABULARY)
    with pytest.raises(Int8Error, match="are made on a CPU only"):
        quantize_recurrent(network.to("meta"))


def test_a_torch_without_int8_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    network = BiLMNetwork(ModelConfig.model_validate({"recurrent": KINDS["gru"]}), VOCABULARY)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(Int8Error, match="this build of torch has no int8 products"):
        quantize_recurrent(network)

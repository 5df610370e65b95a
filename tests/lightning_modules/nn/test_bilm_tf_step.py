"""Losses, states, gradients and weights against a recorded training step of bilm-tf in TensorFlow."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork, Losses
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.window import Types, Window
from preprocess.tokenizers.base import BOS, CONTROLS, EOS
from preprocess.tokenizers.spellings import TEXT_BEGIN, TEXT_END, Spellings

Recorded = dict[str, np.ndarray]
BATCHES = 5
SCALE = 10.0  # bilm-tf multiplies the mean loss by the unroll length


@pytest.fixture(scope="module")
def folder() -> Path:
    data = os.environ.get("BILOOM_TEST_DATA")
    if not data:
        pytest.skip("BILOOM_TEST_DATA is not set")
    return Path(data) / "elmo" / "bilm-tf" / "derived"


@pytest.fixture(scope="module")
def recorded(folder: Path) -> Recorded:
    with np.load(folder / "bilmtf_train_step.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def network(folder: Path, recorded: Recorded) -> BiLMNetwork:
    options = json.loads((folder / "bilmtf_train_step_options.json").read_text(encoding="utf-8"))
    cnn, lstm = options["char_cnn"], options["lstm"]
    config = ModelConfig.model_validate(
        {
            "input": {
                "kind": "char_cnn",
                "dim": cnn["embedding"]["dim"],
                "max_characters": cnn["max_characters_per_token"],
                "filters": cnn["filters"],
                "activation": cnn["activation"],
                "highway": cnn["n_highway"],
            },
            "recurrent": {
                "kind": "lstm",
                "layers": lstm["n_layers"],
                "hidden": lstm["dim"],
                "projection": lstm["projection_dim"],
                "residual": lstm["use_skip_connections"],
                "cell_clip": lstm["cell_clip"],
                "projection_clip": lstm["proj_clip"],
            },
            "head": {"kind": "softmax"},
        }
    )
    net = BiLMNetwork(config, options["n_tokens_vocab"]).eval()
    ours = dict(net.named_parameters())
    weights = converted(recorded, "w", forget_bias=1.0)
    assert weights.keys() == ours.keys()
    with torch.no_grad():
        for name, value in weights.items():
            ours[name].copy_(value)
    return net


def converted(recorded: Recorded, prefix: str, forget_bias: float = 0.0) -> dict[str, Tensor]:
    """Return recorded weights or gradients under the names and in the layout of biloom.

    Args:
        recorded: the recorded arrays.
        prefix: prefix of their names.
        forget_bias: constant to add to the bias of the forget gate; bilm-tf adds it in each step.
    """

    def get(name: str) -> Tensor:
        return torch.from_numpy(recorded[f"{prefix}/{name}"])

    filters = sum(name.startswith(f"{prefix}/CNN/W_cnn_") for name in recorded)
    gates = [get(f"CNN_high_0/{kind}") for kind in ("W_carry", "W_transform")]
    converted_arrays = {
        "input.characters.weight": get("char_embed"),
        "input.bias": torch.cat([get(f"CNN/b_cnn_{i}") for i in range(filters)]),
        "input.highway.0.linear.weight": torch.cat([gate.T for gate in gates]),
        "input.highway.0.linear.bias": torch.cat(
            [get(f"CNN_high_0/{kind}") for kind in ("b_carry", "b_transform")]
        ),
        "input.projection.weight": get("CNN_proj/W_proj").T,
        "input.projection.bias": get("CNN_proj/b_proj"),
        "head.weight": get("softmax/W"),
        "head.bias": get("softmax/b"),
    }
    for i in range(filters):
        converted_arrays[f"input.filters.{i}"] = get(f"CNN/W_cnn_{i}").flatten(0, 2)
    for layer in range(2):
        cells = [f"RNN_{d}/rnn/multi_rnn_cell/cell_{layer}/lstm_cell" for d in range(2)]
        kernel = torch.stack([in_our_order(get(f"{cell}/kernel")) for cell in cells])
        bias = torch.stack([in_our_order(get(f"{cell}/bias")) for cell in cells])
        size = bias.shape[1] // 4
        bias[:, size : 2 * size] += forget_bias
        name = f"recurrent.layers.{layer}"
        converted_arrays[f"{name}.weight_input"], converted_arrays[f"{name}.weight_hidden"] = (
            kernel.chunk(2, 1)
        )
        converted_arrays[f"{name}.bias"] = bias
        converted_arrays[f"{name}.weight_projection"] = torch.stack(
            [get(f"{cell}/projection/kernel") for cell in cells]
        )
    return converted_arrays


def in_our_order(gates: Tensor) -> Tensor:
    """Reorder TensorFlow's gates i, j (cell input), f, o to those of nn.LSTM: i, f, j, o."""
    i, j, f, o = gates.chunk(4, -1)
    return torch.cat([i, f, j, o], -1)


def types(characters: np.ndarray) -> Types:
    """Return the types of a window given as characters (directions, time, rows, max_characters)."""
    boundary = {TEXT_BEGIN: BOS, TEXT_END: EOS}
    words = list(CONTROLS)
    ids = np.empty(characters.shape[:-1], np.int64)
    for place in np.ndindex(ids.shape):
        row = characters[place]
        if row[1] in boundary:
            ids[place] = boundary[row[1]]
        else:
            ids[place] = len(words)
            words.append(bytes(row[row < TEXT_BEGIN].tolist()).decode())
    spellings = Spellings(words.__getitem__, len(words), characters.shape[-1])
    assert np.array_equal(spellings.of_ids(ids.reshape(-1)), characters.reshape(-1, 10))
    # Give the same word the same id at all its positions.
    first = np.array([words.index(word) for word in words])
    return types_of_window(first[ids], spellings)


def window(recorded: Recorded, batch: int) -> Window:
    def both(name: str) -> np.ndarray:  # (rows, time, ...) of each -> (directions, time, rows, ...)
        arrays = [recorded[f"b{batch}/{name}{suffix}"] for suffix in ("", "_reverse")]
        return np.stack(arrays).swapaxes(1, 2).astype(np.int64)

    return Window(types(both("tokens_characters")), torch.from_numpy(both("next_token_id")))


def state_after(recorded: Recorded, batch: int) -> Tensor:
    """Return the recorded state; bilm-tf stores c and h of each layer, the forward direction first."""
    parts = [torch.from_numpy(recorded[f"b{batch}/final_state/{n}"]) for n in range(8)]
    joined = [torch.cat([h, c], 1) for c, h in zip(parts[::2], parts[1::2], strict=True)]
    return torch.stack(joined).unflatten(0, (2, 2)).transpose(0, 1)


def close(ours: Any, theirs: Any, name: str = "") -> None:
    torch.testing.assert_close(
        ours, theirs, atol=1e-6, rtol=1e-6, msg=lambda text: f"{name}: {text}"
    )


def test_losses_and_carried_states_over_five_batches(
    network: BiLMNetwork, recorded: Recorded
) -> None:
    state = network.zero_state(2)
    for batch in range(BATCHES):
        losses: Losses = network.loss(window(recorded, batch), state)
        state = losses.state.detach()

        recorded_losses = [recorded[f"b{batch}/{way}_loss"] for way in ("fwd", "bwd")]
        close(losses.means, torch.tensor(np.array(recorded_losses)), f"losses of batch {batch}")
        close(state, state_after(recorded, batch), f"state after batch {batch}")


def test_gradients_and_the_weights_after_a_clipped_adagrad_step(
    network: BiLMNetwork, recorded: Recorded
) -> None:
    optimizer = torch.optim.Adagrad(network.parameters(), lr=0.2, initial_accumulator_value=1.0)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    try:
        losses: Losses = network.loss(window(recorded, 0), network.zero_state(2))
        (SCALE * losses.means.mean()).backward()

        gradients = converted(recorded, "grad0_x10")
        for name, parameter in network.named_parameters():
            close(parameter.grad, gradients[name], f"gradient of {name}")

        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()

        after = converted(recorded, "w_after_step", forget_bias=1.0)
        for name, parameter in network.named_parameters():
            close(parameter.detach(), after[name], f"{name} after the step")
            assert not torch.equal(parameter, before[name]), name
    finally:  # the fixture is shared with other tests
        network.zero_grad()
        network.load_state_dict(before)

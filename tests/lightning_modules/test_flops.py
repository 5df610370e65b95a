"""FLOP of a token by hand, and against torch's own count of the real modules."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.window import Window
from lightning_modules.sizes import SpelledTypes, flops_per_token

VOCABULARY = 12_028
COUNTS = np.ones(VOCABULARY, np.uint64)


def model(**sections: Any) -> ModelConfig:
    return ModelConfig.model_validate(sections)


def recurrent(**fields: Any) -> dict[str, Any]:
    return {"kind": "lstm", "layers": 2, "hidden": 1024, "projection": 128, **fields}


def flops(config: ModelConfig, *arguments: Any) -> float:
    return flops_per_token(config, COUNTS, *arguments)


def test_an_elmo_with_a_character_cnn() -> None:
    filters = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]
    config = model(
        input={"kind": "char_cnn", "filters": filters, "highway": 1},
        recurrent=recurrent(),
        head={"kind": "sampled_softmax", "samples": 4096},
    )
    stack = 2 * 2 * (4 * 1024 * (128 + 128) + 1024 * 128)
    # Words of 8 bytes with their marks: 9 windows forward, and one of them has a gradient.
    windows = 16 * sum(width * number for width, number in filters) * (9 + 2) / 3
    spelt = windows + 2 * 2048 * 2048 + 2048 * 128
    output = 2 * 128 * 4097

    found = flops(config, (), SpelledTypes(a_token=648 / 640, length=8.0))

    assert found == pytest.approx(6 * (stack + 648 / 640 * spelt + output))


def test_a_long_word_has_no_window_of_padding_alone() -> None:
    encoder = {
        "kind": "char_cnn",
        "max_characters": 10,
        "filters": [[3, 4]],
        "highway": 0,
        "dim": 2,
    }
    config = model(
        input=encoder, recurrent=recurrent(projection=4, layers=1), head={"kind": "softmax"}
    )

    short, long = (flops(config, (), SpelledTypes(1.0, length)) for length in (7.0, 10.0))

    assert (
        short
        == long
        == 6 * (2 * 3 * 4 * (8 + 2) / 3 + 2 * (4 * 1024 * 8 + 1024 * 4) + 2 * 4 * VOCABULARY)
    )


def test_a_gru_with_a_full_softmax_forward_only() -> None:
    config = model(
        directions="forward",
        input={"kind": "embedding", "dim": 20},
        recurrent={"kind": "gru", "layers": 3, "hidden": 30},
        head={"kind": "softmax"},
    )

    assert flops(config) == 6 * (20 * 30 + 3 * 3 * 30 * 60 + 30 * VOCABULARY)


def test_tails_cost_as_often_as_they_are_hit() -> None:
    counts = np.array([1, 3, 40, 1, 50, 5], np.uint64)  # ranks by count: 50, 40 | 5, 3 | 1, 1
    config = model(
        input={"kind": "adaptive"},
        recurrent=recurrent(projection=32, layers=1),
        head={"kind": "adaptive_softmax", "cutoffs": [2, 4], "div": 4.0},
    )
    stack = 4 * 1024 * 64 + 1024 * 32
    read = 0.08 * 8 * 32 + 0.02 * 2 * 32
    predicted = 32 * (2 + 2) + 0.08 * 8 * (32 + 2) + 0.02 * 2 * (32 + 2)

    found = flops_per_token(config, counts, (2, 4))

    assert found == pytest.approx(6 * 2 * (stack + read + predicted))


CONFIGS = [
    model(
        input={"kind": "embedding", "dim": 12},
        recurrent=recurrent(hidden=24, projection=8),
        head={"kind": "softmax"},
    ),
    model(recurrent=recurrent(hidden=16, projection=None), head={"kind": "softmax"}),
    model(recurrent={"kind": "gru", "layers": 2, "hidden": 16}, head={"kind": "softmax"}),
    model(
        directions="forward",
        recurrent=recurrent(hidden=24, projection=8),
        head={"kind": "adaptive_softmax", "cutoffs": ()},
    ),
]


def onednn_flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    """FLOP of x (m, k) times the transpose of weight (n, k): torch counts none for oneDNN's op."""
    return 2 * x.numel() * weight[0]


COUNTED = {torch.ops.mkldnn._linear_pointwise: onednn_flops}


@pytest.mark.parametrize("config", CONFIGS)
def test_going_forward_is_a_third_and_what_torch_counts_of_the_network(config: ModelConfig) -> None:
    time, rows, vocabulary = 4, 16, 50
    network = BiLMNetwork(config, vocabulary)
    shape = (network.directions, time, rows)
    window = Window(torch.randint(vocabulary, shape), torch.randint(vocabulary, shape))
    counter = FlopCounterMode(display=False, custom_mapping=COUNTED)
    with counter, torch.no_grad():
        network.nll(window, network.zero_state(rows))

    a_token = flops_per_token(config, np.ones(vocabulary, np.uint64))

    assert counter.get_total_flops() == a_token / 3 * time * rows


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_training_is_what_torch_counts_of_its_own_modules() -> None:
    time, rows, vocabulary = 16, 32, 50
    config = model(
        directions="forward",
        input={"kind": "embedding", "dim": 12},
        recurrent=recurrent(hidden=24, projection=8),
        head={"kind": "softmax"},
    )
    embedding, linear = nn.Embedding(vocabulary, 12), nn.Linear(12, 8)
    lstm, output = nn.LSTM(8, 24, 2, proj_size=8), nn.Linear(8, vocabulary)
    with FlopCounterMode(display=False) as counter:
        read = linear(embedding(torch.randint(vocabulary, (time, rows))))
        output(lstm(read)[0]).sum().backward()

    found = time * rows * flops_per_token(config, np.ones(vocabulary, np.uint64))

    # Nothing is before the first token: its state needs no gradient.
    to_state = 2 * rows * 2 * 4 * 24 * 8
    assert found - counter.get_total_flops() == to_state

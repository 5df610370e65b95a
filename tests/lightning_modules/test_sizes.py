"""Counts of parameters and FLOPs against the built network, torch's counter and sums by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.window import Window
from lightning_modules.sizes import SpelledTypes, flops_per_token, parameter_count

WIDTHS = st.integers(1, 9)
FILTERS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=3)
INPUTS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("embedding"), "dim": st.none() | WIDTHS}),
    st.just({"kind": "adaptive"}),
    st.fixed_dictionaries(
        {
            "kind": st.just("char_cnn"),
            "dim": st.integers(1, 4),
            "max_characters": st.integers(5, 9),
            "filters": FILTERS,
            "highway": st.integers(0, 2),
        }
    ),
)
RECURRENT = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("lstm"), "hidden": WIDTHS, "projection": st.none() | WIDTHS}
    ),
    st.fixed_dictionaries({"kind": st.sampled_from(["gru", "sru"]), "hidden": WIDTHS}),
    st.fixed_dictionaries(
        {
            "kind": st.just("hgrn2"),
            "hidden": st.sampled_from([2, 4, 6]),
            "projection": st.none() | WIDTHS,
            "expansion": st.just(2),
        }
    ),
)
HEADS = st.one_of(
    st.just({"kind": "softmax"}),
    st.just({"kind": "sampled_softmax"}),
    st.fixed_dictionaries(
        {"kind": st.just("adaptive_softmax"), "div": st.sampled_from([1.0, 2.0, 4.0])}
    ),
)
MODELS = st.fixed_dictionaries(
    {
        "directions": st.sampled_from(["both", "forward"]),
        "input": INPUTS,
        "recurrent": st.builds(
            lambda kind, layers: kind | {"layers": layers}, RECURRENT, st.integers(1, 3)
        ),
        "head": HEADS,
        "tied": st.booleans(),
        "output_vocabulary": st.none() | st.sampled_from([19, 23, 50]),
    }
)


def fits(model: dict[str, Any]) -> bool:
    try:
        ModelConfig.model_validate(model)
    except ValidationError:
        return False
    return True


@settings(deadline=None, max_examples=120)
@given(MODELS.filter(fits), st.sampled_from([(), (5,), (5, 17)]))
def test_parameter_count_equals_that_of_the_built_network(
    model: dict[str, Any], cutoffs: tuple[int, ...]
) -> None:
    config = ModelConfig.model_validate(model)
    network = BiLMNetwork(config, 23, cutoffs)

    assert parameter_count(config, 23, cutoffs) == sum(p.numel() for p in network.parameters())


VOCABULARY = 12_028
COUNTS = np.ones(VOCABULARY, np.uint64)


def model(**sections: Any) -> ModelConfig:
    return ModelConfig.model_validate(sections)


def lstm(**fields: Any) -> dict[str, Any]:
    return {"kind": "lstm", "layers": 2, "hidden": 1024, "projection": 128, **fields}


def flops(config: ModelConfig, *arguments: Any) -> float:
    return flops_per_token(config, COUNTS, *arguments)


def test_flops_of_elmo_with_a_character_cnn() -> None:
    filters = [[1, 32], [2, 32], [3, 64], [4, 128], [5, 256], [6, 512], [7, 1024]]
    config = model(
        input={"kind": "char_cnn", "filters": filters, "highway": 1},
        recurrent=lstm(),
        head={"kind": "sampled_softmax", "samples": 4096},
    )
    stack = 2 * 2 * (4 * 1024 * (128 + 128) + 1024 * 128)
    # Words of 8 bytes with marks have 9 windows; one of them passes the gradient.
    windows = 16 * sum(width * number for width, number in filters) * (9 + 2) / 3
    spelt = windows + 2 * 2048 * 2048 + 2048 * 128
    output = 2 * 128 * 4097

    result = flops(config, (), SpelledTypes(per_token=648 / 640, length=8.0))

    assert result == pytest.approx(6 * (stack + 648 / 640 * spelt + output))


def test_a_word_of_maximum_length_has_no_window_of_padding_only() -> None:
    encoder = {
        "kind": "char_cnn",
        "max_characters": 10,
        "filters": [[3, 4]],
        "highway": 0,
        "dim": 2,
    }
    config = model(input=encoder, recurrent=lstm(projection=4, layers=1), head={"kind": "softmax"})

    short, long = (flops(config, (), SpelledTypes(1.0, length)) for length in (7.0, 10.0))

    assert (
        short
        == long
        == 6 * (2 * 3 * 4 * (8 + 2) / 3 + 2 * (4 * 1024 * 8 + 1024 * 4) + 2 * 4 * VOCABULARY)
    )


def test_flops_of_a_forward_gru_with_a_full_softmax() -> None:
    config = model(
        directions="forward",
        input={"kind": "embedding", "dim": 20},
        recurrent={"kind": "gru", "layers": 3, "hidden": 30},
        head={"kind": "softmax"},
    )

    assert flops(config) == 6 * (20 * 30 + 3 * 3 * 30 * 60 + 30 * VOCABULARY)


def test_flops_of_matrix_states() -> None:
    recurrent = {"kind": "hgrn2", "layers": 3, "hidden": 30, "projection": 20, "expansion": 6}
    config = model(recurrent=recurrent, head={"kind": "softmax"})

    assert flops(config) == 6 * 2 * (3 * (4 * 30 * 20 + 2 * 30 * 6) + 20 * VOCABULARY)


def test_flops_of_a_tail_are_weighted_by_its_share_of_the_tokens() -> None:
    counts = np.array([1, 3, 40, 1, 50, 5], np.uint64)  # ranks by count: 50, 40 | 5, 3 | 1, 1
    config = model(
        input={"kind": "adaptive"},
        recurrent=lstm(projection=32, layers=1),
        head={"kind": "adaptive_softmax", "cutoffs": [2, 4], "div": 4.0},
    )
    stack = 4 * 1024 * 64 + 1024 * 32
    inputs = 0.08 * 8 * 32 + 0.02 * 2 * 32
    output = 32 * (2 + 2) + 0.08 * 8 * (32 + 2) + 0.02 * 2 * (32 + 2)

    result = flops_per_token(config, counts, (2, 4))

    assert result == pytest.approx(6 * 2 * (stack + inputs + output))


CONFIGS = [
    model(
        input={"kind": "embedding", "dim": 12},
        recurrent=lstm(hidden=24, projection=8),
        head={"kind": "softmax"},
    ),
    model(recurrent=lstm(hidden=16, projection=None), head={"kind": "softmax"}),
    model(recurrent={"kind": "gru", "layers": 2, "hidden": 16}, head={"kind": "softmax"}),
    model(recurrent={"kind": "sru", "layers": 3, "hidden": 16}, head={"kind": "softmax"}),
    model(
        directions="forward",
        recurrent=lstm(hidden=24, projection=8),
        head={"kind": "adaptive_softmax", "cutoffs": ()},
    ),
]


def onednn_flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    """FLOPs of x (m, k) times the transpose of weight (n, k); torch counts none for this operator."""
    return 2 * x.numel() * weight[0]


COUNTED = {torch.ops.mkldnn._linear_pointwise: onednn_flops}


@pytest.mark.parametrize("config", CONFIGS)
def test_a_third_of_the_flops_is_what_torch_counts_in_the_forward_pass(config: ModelConfig) -> None:
    time, rows, vocabulary = 4, 16, 50
    network = BiLMNetwork(config, vocabulary)
    shape = (network.directions, time, rows)
    window = Window(torch.randint(vocabulary, shape), torch.randint(vocabulary, shape))
    counter = FlopCounterMode(display=False, custom_mapping=COUNTED)
    with counter, torch.no_grad():
        network.nll(window, network.zero_state(rows))

    per_token = flops_per_token(config, np.ones(vocabulary, np.uint64))

    assert counter.get_total_flops() == per_token / 3 * time * rows


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_flops_equal_what_torch_counts_in_training_its_own_modules() -> None:
    time, rows, vocabulary = 16, 32, 50
    config = model(
        directions="forward",
        input={"kind": "embedding", "dim": 12},
        recurrent=lstm(hidden=24, projection=8),
        head={"kind": "softmax"},
    )
    embedding, linear = nn.Embedding(vocabulary, 12), nn.Linear(12, 8)
    recurrent, output = nn.LSTM(8, 24, 2, proj_size=8), nn.Linear(8, vocabulary)
    with FlopCounterMode(display=False) as counter:
        read = linear(embedding(torch.randint(vocabulary, (time, rows))))
        output(recurrent(read)[0]).sum().backward()

    result = time * rows * flops_per_token(config, np.ones(vocabulary, np.uint64))

    # torch computes no gradient of the first token's state, which is constant.
    first_state = 2 * rows * 2 * 4 * 24 * 8
    assert result - counter.get_total_flops() == first_state


def test_a_model_without_recurrent_layers_is_its_table() -> None:
    config = ModelConfig.model_validate(
        {"recurrent": {"kind": "none", "hidden": 5}, "directions": "forward"}
    )
    network = BiLMNetwork(config, 30, head=False)
    assert parameter_count(config, 30, head=False) == 150
    assert sum(weight.numel() for weight in network.parameters()) == 150
    # The adaptive softmax without tails multiplies width and vocabulary.
    assert flops_per_token(config, np.ones(30, np.uint64)) == 6 * 5 * 30

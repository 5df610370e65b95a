"""A training step on another device than the CPU, with torch's meta device in place of a GPU.

Tensors on the meta device have a shape but no values. An operation that reads a value, for which the
CPU would have to wait for a GPU, fails on it.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.word_types import types_of_window
from lightning_modules.nn.window import on_device
from lightning_modules.nn.window_maker import WindowMaker, document_resets
from preprocess.tokenizers.spellings import Spellings

VOCABULARY, TIME, ROWS = 60, 5, 3
BOUNDARY = (1, 2)
META = torch.device("meta")
LSTM = {"kind": "lstm", "hidden": 12, "projection": 6, "dropout": 0.1}
KINDS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {"recurrent": {"kind": "gru", "hidden": 6, "dropout": 0.1}},
    "hgrn2": {"recurrent": {"kind": "hgrn2", "hidden": 6, "expansion": 3, "dropout": 0.1}},
    "sru": {"recurrent": {"kind": "sru", "hidden": 6, "dropout": 0.1}},
    "forward": {"directions": "forward"},
    "awd": {
        "recurrent": {**LSTM, "variational": True, "weight_drop": 0.5},
        "input": {"kind": "embedding", "type_dropout": 0.1, "dropout": 0.1},
    },
    "characters": {"input": {"kind": "char_cnn", "filters": [[1, 4], [3, 6]]}},
    "adaptive": {"input": {"kind": "adaptive"}, "tied": True},
    "softmax": {"head": {"kind": "softmax"}, "tied": True},
    "sampled": {"head": {"kind": "sampled_softmax", "samples": 16}},
}


class OnMeta(TorchDispatchMode):
    """Fails if an operation reads or returns a tensor on another device, except for scalars."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            assert not isinstance(leaf, Tensor) or leaf.is_meta or leaf.dim() == 0, func
        return result


@pytest.fixture(autouse=True)
def autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make autocast, which does not support the meta device, use the CPU's setting for it."""
    for name in ("autocast", "is_autocast_enabled", "get_autocast_dtype"):
        real = getattr(torch, name)

        def call(device: str, *others: Any, real: Any = real, **named: Any) -> Any:
            return real("cpu" if device == "meta" else device, *others, **named)

        monkeypatch.setattr(torch, name, call)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_stays_on_its_device_and_reads_no_value(kind: str, bf16: bool) -> None:
    base = {"recurrent": LSTM, "input": {"kind": "embedding"}}
    config = ModelConfig.model_validate({**base, **KINDS[kind]})
    cutoffs = (20, 40) if config.head.kind == "adaptive_softmax" else ()
    with META:
        network = BiLMNetwork(config, VOCABULARY, cutoffs)
    words = Spellings(lambda number: "w" * (number % 7), VOCABULARY, 9)
    encode = partial(types_of_window, spellings=words) if kind == "characters" else None
    make = WindowMaker(np.arange(VOCABULARY), cutoffs, encode)
    shape = (2, network.directions, TIME, ROWS)
    ids, targets = np.random.default_rng(1).integers(0, VOCABULARY, shape)
    window = on_device(make(ids, targets, document_resets(ids, BOUNDARY)), META)

    with OnMeta():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = network.loss(window, network.zero_state(ROWS), penalties=True)
        assert losses.activation is not None
        assert losses.change is not None
        (losses.means.mean() + losses.activation + losses.change).backward()

    assert all(weight.grad is not None for weight in network.parameters())

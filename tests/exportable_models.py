"""Small models of every kind that can be exported."""

import random
from typing import Any

import torch

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.inputs.word_char_cnn import WordCharCNN
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer

LSTM = {
    **{"kind": "lstm", "hidden": 24, "projection": 12, "forget_bias": 1.0},
    # Both clips act on most values.
    **{"cell_clip": 0.4, "projection_clip": 0.2},
}
CNN = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 8], [3, 8], [7, 10]]}
WORD_CNN = {**CNN, "kind": "word_char_cnn", "characters": 6 + 20, "word_dim": 5}
MODELS: dict[str, dict[str, Any]] = {
    "embedding": {"input": {"kind": "embedding", "dim": 7}, "recurrent": LSTM},
    "adaptive": {"input": {"kind": "adaptive"}, "recurrent": LSTM},
    "tied": {"input": {"kind": "adaptive"}, "recurrent": LSTM, "tied": True},
    "characters": {"input": CNN, "recurrent": LSTM},
    "characters, tanh": {
        "input": {**CNN, "activation": "tanh", "highway": 0},
        "recurrent": {"kind": "gru", "hidden": 26},
    },
    "words and characters": {"input": WORD_CNN, "recurrent": LSTM},
    "gru": {"recurrent": {"kind": "gru", "hidden": 16, "layers": 3}},
    "hgrn2": {"recurrent": {"kind": "hgrn2", "hidden": 24, "projection": 14, "expansion": 8}},
    "sru": {"recurrent": {"kind": "sru", "hidden": 18}},
    "forward": {"recurrent": LSTM, "directions": "forward"},
    "static": {"recurrent": {"kind": "none", "hidden": 12}, "directions": "forward"},
    "plain": {
        "recurrent": {
            **{"kind": "lstm", "hidden": 16, "projection": None, "layers": 3, "residual": False},
            **{"cell_clip": None, "projection_clip": None},
        }
    },
}


def make_model(name: str, boundary: Any = "bos_eos") -> BiLM:
    """Return the model of a name in `MODELS`, with random weights."""
    torch.manual_seed(3)
    config = ModelConfig.model_validate(MODELS[name])
    tokenizer = WordTokenizer(Vocabulary.of_words([f"w{n}" for n in range(100)]))
    cutoffs = (20, 50) if config.head.kind == "adaptive_softmax" else ()
    network = BiLMNetwork(config, tokenizer.vocabulary, cutoffs, head=config.tied)
    for key, weight in network.named_parameters():
        if "bias" in key:
            torch.nn.init.uniform_(weight, -0.3, 0.3)
        elif key.endswith(".norm"):
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    if isinstance(network.input, WordCharCNN):
        network.input.code_points.copy_(torch.tensor([*map(ord, "0123456789abcdefgklw")]))
    return BiLM(network, tokenizer, CleaningConfig(), boundary)


def texts_of(batch: int, time: int, seed: int = 1) -> list[list[str]]:
    """Return texts of which the first has ``time`` words, some of them unknown or long."""
    draw = random.Random(seed)
    lengths = [time, *(draw.randint(0, time) for _ in range(batch - 1))]
    words = [f"w{n}" for n in range(120)] + ["größe", "𒀀b", "<bos>", "w" * 40, "wwwwwwwwww1"]
    return [draw.choices(words, k=length) for length in lengths]

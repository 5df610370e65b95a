"""A small model with random weights, in the format of ELMoForManyLangs."""

import json
from pathlib import Path
from typing import Any

import torch

WORDS = ["the", "The", "cat", "mat", ".", "abcdefghij", "\u3000", "<unk>", "naïve", "字字字"]
CHARACTERS = "<bos>Thecatmn.abdfghijï字\u3000x"


def make_model(folder: Path, **changes: Any) -> Path:
    """Write a small model in the format of ELMoForManyLangs, with random weights."""
    encoder = {"name": "elmo", "projection_dim": 6, "cell_clip": 3, "proj_clip": 3, "dim": 8}
    embedder: dict[str, Any] = {"name": "cnn", "activation": "relu", "char_dim": 4, "word_dim": 5}
    embedder |= {"filters": [[1, 3], [3, 5]], "n_highway": 2, "max_characters_per_token": 12}
    network: dict[str, Any] = {"encoder": {**encoder, "n_layers": 2}, "token_embedder": embedder}
    for name, value in changes.items():
        network["token_embedder" if name in embedder else "encoder"][name] = value
    network |= {"classifier": {"name": "sampled_softmax", "n_samples": 8192}, "dropout": 0.1}
    folder.mkdir(parents=True)
    (folder / "small.json").write_text(json.dumps(network))
    (folder / "config.json").write_text(json.dumps({"config_path": "/home/a/small.json", "gpu": 3}))
    characters = [*dict.fromkeys(CHARACTERS), "<bos>", "<eos>", "<oov>", "<pad>", "<bow>", "<eow>"]
    words = ["<oov>", "<bos>", "<eos>", "<pad>", *WORDS]
    for name, entries in (("char.dic", characters), ("word.dic", words)):
        lines = [f"{entry}\t{number}" for number, entry in enumerate(entries)]
        # As the program's reader sees it.
        lines = [line.removeprefix("\u3000\t") for line in lines]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    draw = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw) / 2

    config, filters = (
        network["token_embedder"],
        sum(n for _, n in network["token_embedder"]["filters"]),
    )
    width, hidden = network["encoder"]["projection_dim"], network["encoder"]["dim"]
    state = {"char_emb_layer.embedding.weight": random(len(characters), config["char_dim"])}
    if config["word_dim"]:
        state["word_emb_layer.embedding.weight"] = random(len(words), config["word_dim"])
    for i, (size, number) in enumerate(config["filters"]):
        state[f"convolutions.{i}.weight"] = random(number, config["char_dim"], size)
        state[f"convolutions.{i}.bias"] = random(number)
    for i in range(config["n_highway"]):
        state[f"highways._layers.{i}.weight"] = random(2 * filters, filters)
        state[f"highways._layers.{i}.bias"] = random(2 * filters)
    state["projection.weight"] = random(width, config["word_dim"] + filters)
    state["projection.bias"] = random(width)
    torch.save(state, folder / "token_embedder.pkl")
    state = {}
    for layer in range(network["encoder"]["n_layers"]):
        for direction in ("forward", "backward"):
            cell = f"{direction}_layer_{layer}"
            state[f"{cell}.input_linearity.weight"] = random(4 * hidden, width)
            state[f"{cell}.state_linearity.weight"] = random(4 * hidden, width)
            state[f"{cell}.state_linearity.bias"] = random(4 * hidden)
            state[f"{cell}.state_projection.weight"] = random(width, hidden)
    # The published files are of torch 0.4, which wrote them in this format.
    torch.save(state, folder / "encoder.pkl", _use_new_zipfile_serialization=False)
    return folder

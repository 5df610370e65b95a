"""Vectors of imported ELMoForManyLangs models, compared with a reference in float64.

The reference follows the equations of the published code, one word at a time, and shares no code with
biloom. No published model was at hand, so the models are made here, in the format of that code.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from biloom import BiLM, BiLMEmbedder
from pipeline.commands.elmo import import_elmo
from tests.lightning_modules.models.manylangs.small_model import make_model

Doubles = npt.NDArray[np.float64]
TOLERANCE = 2e-6
TEXTS = [
    ["The", "cat", "sat", "on", "the", "mat", "."],
    ["x", "字" * 3, "naïve", "naïvely" * 4, "", "The"],
    [],
    ["one"],
    # Characters and words that are not in the dictionaries, and words that the program takes for marks.
    ["😀", "\ud800", "<bos>", "<eos>", "<pad>", "<oov>", "\u3000", "a b", "cat"],
    # Cut to 10 characters, which are a word of the dictionary; the longest word that fits; a longer one.
    ["abcdefghijXYZ", "abcdefghij", "ten-letters", "\u2028" * 30],
]


def sigmoid(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-x))


class Reference:
    """The arithmetic of ELMoForManyLangs for a folder of `make_model`."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "small.json").read_text())
        self.weights: dict[str, Doubles] = {}
        for name in ("token_embedder.pkl", "encoder.pkl"):
            state = torch.load(folder / name, weights_only=True)
            self.weights |= {key: value.double().numpy() for key, value in state.items()}
        self.characters, self.words = (
            self.dictionary(folder / f"{n}.dic") for n in ("char", "word")
        )

    @staticmethod
    def dictionary(path: Path) -> dict[str, int]:
        pairs = [line.split("\t") for line in path.read_bytes().decode().split("\n") if line]
        return {(pair[0] if len(pair) == 2 else "\u3000"): int(pair[-1]) for pair in pairs}

    def token(self, word: str) -> Doubles:
        config, weights = self.config["token_embedder"], self.weights
        most = config["max_characters_per_token"]
        word = word[: most - 2]
        inside = [word] if word in ("<bos>", "<eos>") else list(word)
        unknown = self.characters["<oov>"]
        ids = [self.characters.get(character, unknown) for character in inside]
        # The program has the two names the wrong way round.
        ids = [self.characters["<eow>"], *ids, self.characters["<bow>"]]
        ids += [self.characters["<pad>"]] * (most - len(ids))
        table = weights["char_emb_layer.embedding.weight"][ids]  # (most, dim)
        parts = []
        for i, (size, _) in enumerate(config["filters"]):
            kernel, bias = weights[f"convolutions.{i}.weight"], weights[f"convolutions.{i}.bias"]
            windows = [
                np.einsum("wd,ndw->n", table[s : s + size], kernel) + bias
                for s in range(most - size + 1)
            ]
            best = np.max(windows, 0)
            parts.append(np.tanh(best) if config["activation"] == "tanh" else np.maximum(best, 0))
        x = np.concatenate(parts)
        for i in range(config["n_highway"]):
            both = (
                weights[f"highways._layers.{i}.weight"] @ x + weights[f"highways._layers.{i}.bias"]
            )
            new, gate = np.maximum(both[: len(x)], 0), sigmoid(both[len(x) :])
            x = gate * x + (1 - gate) * new
        if config["word_dim"]:
            row = self.words.get(word, self.words["<oov>"])
            x = np.concatenate([weights["word_emb_layer.embedding.weight"][row], x])
        return weights["projection.weight"] @ x + weights["projection.bias"]

    def run(self, direction: str, inputs: list[Doubles]) -> list[list[Doubles]]:
        config, weights = self.config["encoder"], self.weights
        layers = []
        for layer in range(config["n_layers"]):
            cell = f"{direction}_layer_{layer}"
            c, h = np.zeros(config["dim"]), np.zeros(config["projection_dim"])
            outputs = []
            for x in inputs:
                gates = weights[f"{cell}.input_linearity.weight"] @ x
                gates = gates + weights[f"{cell}.state_linearity.weight"] @ h
                i, f, g, o = np.split(gates + weights[f"{cell}.state_linearity.bias"], 4)
                c = sigmoid(i) * np.tanh(g) + sigmoid(f) * c
                if clip := config["cell_clip"]:
                    c = np.clip(c, -clip, clip)
                h = weights[f"{cell}.state_projection.weight"] @ (sigmoid(o) * np.tanh(c))
                if clip := config["proj_clip"]:
                    h = np.clip(h, -clip, clip)
                outputs.append(h + x if layer else h)
            layers.append(outputs)
            inputs = outputs
        return layers

    def layers(self, words: list[str]) -> Doubles:
        """Return what the program calls output layer -2: (layers, words, 2 * width)."""
        read = [self.token(word) for word in ("<bos>", *words, "<eos>")]
        found = [np.concatenate([read, read], 1)]
        backward = self.run("backward", read[::-1])
        for one, other in zip(self.run("forward", read), backward, strict=True):
            found.append(np.concatenate([one, other[::-1]], 1))
        return np.stack(found)[:, 1:-1]


KINDS: dict[str, dict[str, Any]] = {
    "as published": {},
    "characters only": {"word_dim": 0},
    "clips that act": {"cell_clip": 0.3, "proj_clip": 0.2},
    "no clips": {"cell_clip": 0, "proj_clip": None},
    "tanh, no highway": {"activation": "tanh", "n_highway": 0},
    "three layers, projection as wide as the cell": {"n_layers": 3, "dim": 6},
    "filters that add up to the width": {"filters": [[2, 4], [7, 2]], "word_dim": 0},
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_layers_equal_a_reference_in_float64(kind: str, tmp_path: Path) -> None:
    theirs = make_model(tmp_path / "theirs", **KINDS[kind])
    import_elmo([str(theirs)], f"{tmp_path}/model", None)
    model, reference = BiLM.from_pretrained(tmp_path / "model"), Reference(theirs)

    expected = [reference.layers(words) for words in TEXTS]
    for batch_tokens in (1, 8192):
        for right, found in zip(expected, model.embed(TEXTS, batch_tokens), strict=True):
            assert found.vectors.shape == right.shape
            np.testing.assert_allclose(found.vectors, right, rtol=0, atol=TOLERANCE)
    [mean] = model.embed(TEXTS[:1], layers="mean")
    np.testing.assert_allclose(mean.vectors[0], expected[0].mean(0), rtol=0, atol=TOLERANCE)


def test_a_batch_of_tensors_gives_the_same_vectors_and_gradients(tmp_path: Path) -> None:
    import_elmo([str(make_model(tmp_path / "theirs"))], f"{tmp_path}/model", None)
    model = BiLM.from_pretrained(tmp_path / "model")
    batch = model.batch(TEXTS)
    layers = model(batch.ids, batch.lengths, batch.spellings)

    for row, found in enumerate(model.embed(TEXTS)):
        ours = layers[:, row, : len(TEXTS[row])].detach().numpy()
        np.testing.assert_allclose(ours, found.vectors, rtol=0, atol=TOLERANCE)
    embedder = BiLMEmbedder(model, trainable=True)
    embedder(batch).vectors[0].sum().backward()
    weights = dict(model.network.input.named_parameters())
    assert all(weight.grad is not None and weight.grad.any() for weight in weights.values())


def test_words_that_are_cut_are_counted_by_characters(tmp_path: Path) -> None:
    import_elmo([str(make_model(tmp_path / "theirs"))], f"{tmp_path}/model", None)
    model = BiLM.from_pretrained(tmp_path / "model")

    counts = [found.truncated for found in model.embed([["字" * 10, "字" * 11], TEXTS[5]])]
    assert counts == [1, 3]

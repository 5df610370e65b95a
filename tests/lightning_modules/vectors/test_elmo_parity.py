"""Vectors of ELMo archives, compared with the original code and with a reference in float64.

The reference follows the equations of the papers and of the original code, word by word, and shares no
code with biloom. It is itself compared with the recorded vectors of the original.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch

from biloom import BiLM
from lightning_modules.models.elmo_layout import layout
from lightning_modules.models.elmo_options import read_options
from pipeline.commands.elmo import import_elmo
from preprocess.tokenizers.base import BOS, EOS

Doubles = npt.NDArray[np.float64]
Archive = tuple[dict[str, Any], dict[str, Doubles]]
TOLERANCE = 2e-6
WORDS = [
    ["The", "cat", "sat", ",", "naïvely", ",", "on", "the", "mat", "."],
    ["x", "字" * 30, "antidisestablishmentarianism" * 3, "", "."],
    ["one"],
]


def sigmoid(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-x))


def characters(word: str | None, mark: int, most: int) -> list[int]:
    """Return character ids from 0, padded; a boundary token is spelled by its mark only."""
    inside = [mark] if word is None else list(word.encode()[: most - 2])
    ids = [258, *inside, 259]
    return ids + [260] * (most - len(ids))


def token_vector(archive: Archive, word: str | None, mark: int = 0) -> Doubles:
    options, weights = archive
    cnn = options["char_cnn"]
    most = cnn["max_characters_per_token"]
    table = weights["char_embed"][characters(word, mark, most)]  # (most, dim)
    found = []
    for i, (width, _) in enumerate(cnn["filters"]):
        kernel = weights[f"CNN/W_cnn_{i}"][0]  # (width, dim, number)
        windows = [
            np.einsum("wd,wdn->n", table[s : s + width], kernel) for s in range(most - width + 1)
        ]
        strongest = np.max(windows, 0) + weights[f"CNN/b_cnn_{i}"]
        found.append(
            np.tanh(strongest) if cnn["activation"] == "tanh" else np.maximum(strongest, 0)
        )
    x = np.concatenate(found)
    for i in range(cnn["n_highway"]):
        gate = sigmoid(x @ weights[f"CNN_high_{i}/W_carry"] + weights[f"CNN_high_{i}/b_carry"])
        new = x @ weights[f"CNN_high_{i}/W_transform"] + weights[f"CNN_high_{i}/b_transform"]
        x = gate * np.maximum(new, 0) + (1 - gate) * x
    if "CNN_proj/W_proj" in weights:
        x = x @ weights["CNN_proj/W_proj"] + weights["CNN_proj/b_proj"]
    return x


def clipped(x: Doubles, bound: float | None) -> Doubles:
    return x if bound is None else np.clip(x, -bound, bound)


def run(archive: Archive, direction: int, inputs: list[Doubles]) -> list[list[Doubles]]:
    """Return the outputs of each layer for inputs in the order they are read."""
    options, weights = archive
    lstm = options["lstm"]
    layers = []
    x = inputs
    for layer in range(lstm["n_layers"]):
        cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
        projection = weights.get(f"{cell}/W_P_0")
        c, h = np.zeros(lstm["dim"]), np.zeros(lstm["projection_dim"])
        outputs = []
        for value in x:
            gates = np.concatenate([value, h]) @ weights[f"{cell}/W_0"] + weights[f"{cell}/B"]
            i, j, f, o = np.split(gates, 4)
            c = clipped(sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j), lstm.get("cell_clip"))
            h = sigmoid(o) * np.tanh(c)
            if projection is not None:
                h = clipped(h @ projection, lstm.get("proj_clip"))
            outputs.append(h + value if layer and lstm["use_skip_connections"] else h)
        layers.append(outputs)
        x = outputs
    return layers


def reference(archive: Archive, words: list[str]) -> Doubles:
    """Return stateless vectors (layers, words, 2 * width)."""
    vectors = [token_vector(archive, word) for word in words]
    begin, end = (token_vector(archive, None, mark) for mark in (256, 257))
    forward = run(archive, 0, [begin, *vectors, end])
    backward = run(archive, 1, [end, *vectors[::-1], begin])
    layers = [np.concatenate([vectors, vectors], 1)]
    for one, other in zip(forward, backward, strict=True):
        layers.append(np.concatenate([one[1:-1], other[1:-1][::-1]], 1))
    return np.stack(layers)


def read_archive(folder: Path) -> Archive:
    weights: dict[str, Doubles] = {}
    with h5py.File(folder / "weights.hdf5") as file:
        file.visititems(
            lambda name, item: (
                weights.update({name: np.float64(item[...])})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return json.loads((folder / "options.json").read_text()), weights


def make_archive(folder: Path, scale: float = 1.0, **changes: Any) -> Path:
    """Write a small archive with random weights."""
    lstm = {"dim": 8, "projection_dim": 6, "n_layers": 2, "cell_clip": 3, "proj_clip": 3}
    cnn: dict[str, Any] = {
        "activation": "relu",
        "embedding": {"dim": 4},
        "filters": [[1, 3], [3, 5]],
        "max_characters_per_token": 20,
        "n_characters": 262,
        "n_highway": 1,
    }
    options: dict[str, Any] = {"lstm": {**lstm, "use_skip_connections": True}, "char_cnn": cnn}
    for name, value in changes.items():
        options["char_cnn" if name in cnn else "lstm"][name] = value
    folder.mkdir(parents=True)
    (folder / "options.json").write_text(json.dumps(options))
    draw = np.random.default_rng(3)
    shapes = layout(read_options(str(folder / "options.json")))
    with h5py.File(folder / "weights.hdf5", "w") as file:
        for name, shape in shapes.items():
            file[name] = (scale * draw.normal(size=shape) / 2).astype(np.float32)
    return folder


KINDS: dict[str, dict[str, Any]] = {
    "skip connections": {},
    "no skip connections": {"use_skip_connections": False},
    "no projection": {"projection_dim": 8},
    "no CNN projection": {"filters": [[1, 2], [2, 4]]},
    "clips that act": {"cell_clip": 0.3, "proj_clip": 0.2},
    "no clips": {"cell_clip": None, "proj_clip": None},
    "tanh": {"activation": "tanh"},
    "two highways": {"n_highway": 2},
    "no highway": {"n_highway": 0},
    "three layers": {"n_layers": 3},
    "no padding beside long words": {"max_characters_per_token": 8},
    "training's number of characters": {"n_characters": 261},
}


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_equal_a_reference_in_float64(kind: str, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "archive", **KINDS[kind])
    import_elmo([f"{archive}/options.json", f"{archive}/weights.hdf5"], f"{tmp_path}/model", None)
    model = BiLM.from_pretrained(tmp_path / "model")

    for words, found in zip(WORDS, model.embed(WORDS), strict=True):
        expected = reference(read_archive(archive), words)
        assert found.vectors.shape == expected.shape
        np.testing.assert_allclose(found.vectors, expected, rtol=0, atol=TOLERANCE)
    if kind == "clips that act":
        assert (np.abs(model.embed(WORDS)[0].vectors[1]) == np.float32(0.2)).any()


@pytest.fixture(scope="module")
def recorded() -> Path:
    data = os.environ.get("BILOOM_TEST_DATA")
    if not data:
        pytest.skip("BILOOM_TEST_DATA is not set")
    return Path(data) / "elmo" / "bilm-tf"


@pytest.fixture(scope="module")
def model(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> BiLM:
    folder = tmp_path_factory.mktemp("elmo") / "model"
    archive = recorded / "model"
    import_elmo([f"{archive}/options.json", f"{archive}/lm_weights.hdf5"], str(folder), None)
    return BiLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def sentences(recorded: Path) -> list[list[str]]:
    found: list[list[str]] = json.loads(
        (recorded / "model" / "lm_embeddings_sentences.json").read_text()
    )
    return found


def test_stateless_vectors_equal_those_of_the_original_code(
    recorded: Path, model: BiLM, sentences: list[list[str]]
) -> None:
    with h5py.File(recorded / "derived" / "bilmtf_all_layers.hdf5") as file:
        for k, texts in enumerate(sentences):
            as_words = model.embed([text.split() for text in texts])
            for i, (one, other) in enumerate(zip(as_words, model.embed(texts), strict=True)):
                expected = file[f"stateless/{k}/{i}"][...]
                np.testing.assert_allclose(one.vectors, expected, rtol=0, atol=TOLERANCE)
                np.testing.assert_allclose(other.vectors, expected, rtol=0, atol=TOLERANCE)


def stateful(model: BiLM, sentences: list[list[str]]) -> Iterator[tuple[int, int, Any]]:
    """Yield vectors computed as in the original: row, batch, vectors.

    Batch i has sentence i of each list. The state of a row is carried from batch to batch, and each
    text is read with both of its boundary tokens.
    """
    network = model.network
    with torch.inference_mode():
        states = [network.zero_state(1) for _ in sentences]
        for i in range(len(sentences[0])):
            for row, texts in enumerate(sentences):
                words = texts[i].split()
                ids = list(range(3, 3 + len(words)))
                forward = torch.tensor([BOS, *ids, EOS])
                streams = torch.stack([forward, forward.flip(0)])[:, :, None]
                from preprocess.tokenizers.spellings import Spellings

                spelt = ["", "", "", *words]
                spellings = Spellings(spelt.__getitem__, len(spelt), 50)
                inputs = model.encoder.inputs(streams, spellings)
                layers, states[row] = network.layers(inputs, states[row])
                found = torch.stack(layers)[:, :, 1:-1, 0]  # (depth, 2, words, width)
                yield row, i, torch.cat([found[:, 0], found[:, 1].flip(1)], 2).numpy()


def test_stateful_vectors_equal_those_of_the_original_code(
    recorded: Path, model: BiLM, sentences: list[list[str]]
) -> None:
    top = [h5py.File(recorded / "model" / f"lm_embeddings_{k}.hdf5") for k in range(3)]
    with h5py.File(recorded / "derived" / "bilmtf_all_layers.hdf5") as file:
        for row, i, found in stateful(model, sentences):
            expected = file[f"stateful/{row}/{i}"][...]
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
            both = np.concatenate(list(top[row][str(i)][...]), 1)
            np.testing.assert_allclose(found[-1], both, rtol=0, atol=TOLERANCE)
    for one in top:
        one.close()


def test_the_reference_equals_the_original_code(
    recorded: Path, sentences: list[list[str]], tmp_path: Path
) -> None:
    for name, theirs in (("options.json", "options.json"), ("weights.hdf5", "lm_weights.hdf5")):
        (tmp_path / name).write_bytes((recorded / "model" / theirs).read_bytes())
    archive = read_archive(tmp_path)
    words = min((text.split() for text in sentences[0]), key=len)
    i = [text.split() for text in sentences[0]].index(words)
    with h5py.File(recorded / "derived" / "bilmtf_all_layers.hdf5") as file:
        expected = file[f"stateless/0/{i}"][...]
    np.testing.assert_allclose(reference(archive, words), expected, rtol=0, atol=TOLERANCE)

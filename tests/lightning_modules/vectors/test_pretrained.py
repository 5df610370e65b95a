"""Loading a model folder, and the vectors of texts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.vectors import encoder
from lightning_modules.vectors.streams import VectorError
from preprocess.config import WordConfig
from preprocess.files.manifest import ManifestError
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.base import BOS, EOS
from preprocess.tokenizers.load import train_tokenizer
from preprocess.tokenizers.spellings import spell
from tests.exportable_models import make_model

Tiny = Any  # of conftest.py
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(trained: Path) -> BiLM:
    return BiLM.from_pretrained(str(trained / "export"))


@pytest.fixture(scope="module")
def texts(tiny: Tiny) -> list[str]:
    lines: list[str] = (tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines()
    return lines[:40]


def vectors(model: BiLM, texts: list[str], batch_tokens: int = 4096) -> list[Any]:
    return [found.vectors for found in model.embed(texts, batch_tokens)]


def close(ours: list[Any], theirs: list[Any]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_vectors_have_one_row_per_token_and_one_layer_for_the_input(
    model: BiLM, texts: list[str]
) -> None:
    for text, found in zip(texts, model.embed(texts), strict=True):
        assert found.vectors.shape == (model.depth, len(found.tokens), model.dim)
        assert found.vectors.dtype == np.float32
        assert [token.spelling for token in found.tokens] == text.split()
    assert (model.depth, model.dim) == (3, 8)


@pytest.mark.parametrize("batch_tokens", [1, 30, 4096])
def test_vectors_do_not_depend_on_the_batch(
    model: BiLM, texts: list[str], batch_tokens: int
) -> None:
    alone = [vectors(model, [text])[0] for text in texts]

    close(vectors(model, texts, batch_tokens), alone)


def test_vectors_do_not_depend_on_the_order(model: BiLM, texts: list[str]) -> None:
    close(vectors(model, texts[::-1], 50)[::-1], vectors(model, texts, 50))


def test_vectors_do_not_depend_on_earlier_calls(model: BiLM, texts: list[str]) -> None:
    first = vectors(model, texts)
    model.embed(texts[3:9])
    again = vectors(model, texts)

    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_text_without_tokens_has_no_vectors(model: BiLM, texts: list[str]) -> None:
    among = model.embed(["", texts[0], " \t"])

    assert [found.vectors.shape[1] for found in among] == [0, len(texts[0].split()), 0]
    assert model.embed([""])[0].vectors.shape == (3, 0, 8)
    assert model.embed([]) == []


def test_a_text_is_cleaned_as_training_text_was(model: BiLM, texts: list[str]) -> None:
    untidy = texts[0].replace(" ", " \t\x00 ") + "\n"

    assert model.embed([untidy])[0].text == texts[0]
    close(vectors(model, [untidy]), vectors(model, [texts[0]]))


def test_layer_0_is_the_token_vector_in_both_halves_in_any_context(
    model: BiLM, texts: list[str]
) -> None:
    word = texts[0].split()[0]
    in_text, alone = vectors(model, [texts[0], word])

    np.testing.assert_array_equal(in_text[0, 0], alone[0, 0])
    np.testing.assert_array_equal(alone[0, 0, :4], alone[0, 0, 4:])
    assert not np.allclose(in_text[1, 0], alone[1, 0])


def run_lstm(layer: Any, direction: int, x: Tensor) -> Tensor:
    """Return the outputs (tokens, width) of torch's LSTM cell with the weights of a direction."""
    width, gates = layer.weight_input.shape[1:]
    weights = [layer.weight_input, layer.weight_hidden, layer.bias[:, None]]
    of_input, of_hidden, bias = (weight[direction].T for weight in weights)
    cell = nn.LSTMCell(width, gates // 4)
    hidden, state = torch.zeros(width), torch.zeros(gates // 4)
    outputs = []
    for token in x:
        # The cell has no projection, so the hidden part of its gates is passed as a bias.
        cell.weight_ih, cell.bias_ih = nn.Parameter(of_input), nn.Parameter(bias[:, 0])
        cell.weight_hh = nn.Parameter(torch.zeros_like(cell.weight_hh))
        cell.bias_hh = nn.Parameter(of_hidden @ hidden)
        squashed, state = cell(token[None], (torch.zeros(1, gates // 4), state.view(1, -1)))
        hidden = squashed[0] @ layer.weight_projection[direction]
        outputs.append(hidden)
    return torch.stack(outputs)


@torch.no_grad()
def by_hand(model: BiLM, ids: Tensor, before: int, after: int) -> Tensor:
    """Return all layers (depth, tokens, dim) of a text, computed separately for each direction."""
    directions = []
    for direction, (start, sequence) in enumerate(((before, ids), (after, ids.flip(0)))):
        x = model.network.input(torch.cat([torch.tensor([start]), sequence]))
        layers = [x]
        for number, layer in enumerate(model.network.recurrent.layers):
            y = run_lstm(layer, direction, x)
            x = y + x if number else y
            layers.append(x)
        stack = torch.stack(layers)[:, 1:]  # (depth, tokens, dim / 2)
        directions.append(stack.flip(1) if direction else stack)
    return torch.cat(directions, 2)


@pytest.mark.parametrize("boundary", ["eos", "bos_eos"])
def test_forward_equals_each_direction_run_by_hand(model: BiLM, boundary: Any) -> None:
    other = BiLM(model.network, model.tokenizer, CleaningConfig(), boundary)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 90, (4, 9), generator=generator)
    lengths = torch.tensor([9, 1, 6, 0])

    layers = other(ids, lengths)

    assert layers.shape == (3, 4, 9, 8)
    for row, length in enumerate(lengths.tolist()):
        expected = by_hand(other, ids[row, :length], BOS if boundary == "bos_eos" else EOS, EOS)
        torch.testing.assert_close(layers[:, row, :length], expected, atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing(model: BiLM) -> None:
    ids = torch.tensor([[5, 6, 7, 0, 0], [5, 6, 7, 33, 44]])
    layers = model(ids, torch.tensor([3, 3]))

    assert torch.equal(layers[:, 0, :3], layers[:, 1, :3])


def test_a_long_text_in_chunks_equals_one_run(
    model: BiLM, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    text = " ".join(texts)
    whole = vectors(model, [text])
    for chunk in (1, 7, 64):
        monkeypatch.setattr(encoder, "POSITIONS", chunk)
        monkeypatch.setattr(encoder, "LEAST", 1)
        close(vectors(model, [text]), whole)


def test_gradients_reach_every_weight_that_makes_vectors(trained: Path) -> None:
    model = BiLM.from_pretrained(str(trained / "export"))
    model(torch.randint(0, 90, (2, 6)), torch.tensor([6, 4])).square().sum().backward()

    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == [n for n, _ in model.named_parameters() if n.startswith("network.head.")]


def test_a_loaded_model_does_not_depend_on_the_random_seed(
    trained: Path, model: BiLM, texts: list[str]
) -> None:
    torch.manual_seed(99)
    other = BiLM.from_pretrained(str(trained / "export"))

    assert np.array_equal(vectors(other, texts)[0], vectors(model, texts)[0])


def test_a_folder_without_a_finished_model_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="holds no finished 'export'"):
        BiLM.from_pretrained(str(tmp_path))
    with pytest.raises(ManifestError, match="holds a finished 'train', not 'export'"):
        BiLM.from_pretrained(str(trained / "train"))


def run_python(code: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_embeds_without_lightning_or_beam_being_loaded(trained: Path) -> None:
    code = """
import json, sys
from biloom import BiLM
vectors = BiLM.from_pretrained(sys.argv[1]).embed(["kana lori"])[0].vectors
print(json.dumps([list(vectors.shape), sorted(sys.modules)]))
"""
    shape, modules = run_python(code, str(trained / "export"))

    assert shape == [3, 2, 8]
    heavy = {"pytorch_lightning", "lightning_fabric", "apache_beam", "wandb", "pipeline"}
    assert not heavy & {name.split(".")[0] for name in modules}


def test_importing_biloom_alone_loads_no_torch() -> None:
    modules = run_python("import biloom, json, sys; print(json.dumps(sorted(sys.modules)))")

    assert not {"torch", "numpy", "pydantic", "fsspec"} & set(modules)


def test_a_model_folder_may_be_moved(
    trained: Path, tmp_path: Path, model: BiLM, texts: list[str]
) -> None:
    shutil.copytree(trained / "export", tmp_path / "elsewhere")
    moved = BiLM.from_pretrained(str(tmp_path / "elsewhere"))

    assert np.array_equal(vectors(moved, texts)[0], vectors(model, texts)[0])


def untrained(texts: list[str], **sections: Any) -> BiLM:
    """Return a model with random weights whose vocabulary is the words of ``texts``."""
    torch.manual_seed(1)
    tokenizer = train_tokenizer(WordConfig(), texts)
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6}
    config = ModelConfig.model_validate({"recurrent": recurrent} | sections)
    network = BiLMNetwork(config, tokenizer.vocabulary)
    return BiLM(network, tokenizer, CleaningConfig(), "bos_eos")


SPELLING = {
    "kind": "char_cnn",
    "dim": 4,
    "max_characters": 12,
    "filters": [[1, 4], [3, 9]],
}


def test_unknown_words_have_distinct_vectors_if_words_are_read_by_their_spelling() -> None:
    model = untrained(["kana lori mele"], input=SPELLING)
    texts = ["kana zuzu lori", "kana xoxo lori", "zuzu"]

    one, other, alone = vectors(model, texts)

    assert one.shape == (3, 3, 12)
    assert not np.allclose(one[0, 1], other[0, 1])
    assert not np.allclose(one[2, 2], other[2, 2]), "the context is read"
    np.testing.assert_allclose(one[0, 1], alone[0, 0], atol=1e-6)
    characters = torch.from_numpy(spell(["zuzu"], 12).astype(np.int64))
    expected = model.network.input.vectors((characters,)).detach().numpy()[0]
    np.testing.assert_allclose(alone[0, 0], np.tile(expected, 2), atol=1e-6)


def test_words_of_the_vocabulary_have_the_vectors_of_their_ids() -> None:
    model = untrained(["kana lori mele"], input=SPELLING)
    text = "mele kana kana lori"
    ids = torch.from_numpy(model.tokenizer.encode([text])[0]).long()[None]

    layers = model(ids, torch.tensor([4])).detach().numpy()

    np.testing.assert_allclose(vectors(model, [text])[0], layers[:, 0], atol=1e-6)


def test_a_forward_model_has_only_the_forward_half() -> None:
    texts = ["kana lori mele", "mele mele"]
    both, forward = untrained(texts), untrained(texts, directions="forward")
    halved = {
        name: weight[:1] if name.startswith("recurrent.") else weight
        for name, weight in both.network.state_dict().items()
    }
    forward.network.load_state_dict(halved)

    assert (both.dim, forward.dim) == (12, 6)
    close(vectors(forward, texts), [found[..., :6] for found in vectors(both, texts)])


@pytest.mark.parametrize("positions", [1, 4, 8192])
def test_a_model_without_recurrent_layers_looks_its_vectors_up(
    positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "GPU_POSITIONS", positions)
    static = make_model("static")
    table = static.network.input.embedding.weight
    texts = [["w1", "w2", "other"], [], ["w3"] * 9, ["w5"], []]
    found = static.embed(texts, layers=[0, -1])
    for text, one in zip(texts, found, strict=True):
        ids = [token.id for token in one.tokens]
        assert one.vectors.shape == (2, len(text), 12)
        for layer in one.vectors:
            np.testing.assert_array_equal(layer, table[ids].detach().numpy())
    # The way of other models gives the same bits.
    monkeypatch.setattr(static.network, "reading_directions", 1)
    for one, other in zip(found, static.embed(texts, layers=[0, -1]), strict=True):
        np.testing.assert_array_equal(one.vectors, other.vectors)
    with torch.no_grad():
        table[5] = torch.nan
    monkeypatch.setattr(static.network, "reading_directions", 0)
    with pytest.raises(VectorError, match="layer 0 of a text"):
        static.embed([["w2"]])

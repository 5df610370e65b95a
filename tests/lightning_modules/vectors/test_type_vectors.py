"""The cache of vectors of words by their spelling."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.config import CharCNNInputConfig
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.vectors import type_vectors
from lightning_modules.vectors.type_vectors import BEGIN, END, TypeVectors
from preprocess.tokenizers.spellings import PAD, TEXT_BEGIN, TEXT_END, WORD_BEGIN, WORD_END, spell

CONFIG = CharCNNInputConfig(dim=4, max_characters=20, filters=((1, 4), (3, 9)), highway=1)
WIDTH = 6
WORDS = ["a", "kana", "lori", "mele" * 3, "z" * 40, "字字", "", "<s>", "été", "\ud800x"]
IDS = list(range(3, 3 + len(WORDS)))


@pytest.fixture(autouse=True)
def inference() -> object:
    with torch.inference_mode():
        yield


@pytest.fixture
def network() -> CharCNN:
    torch.manual_seed(1)
    with torch.inference_mode(False):
        return CharCNN(CONFIG, WIDTH).eval()


def alone(network: CharCNN, word: str) -> Tensor:
    characters = torch.from_numpy(spell([word], CONFIG.max_characters).astype(np.int64))
    return network.vectors((characters,))[0]


def test_the_vector_of_a_word_is_that_of_the_network(network: CharCNN) -> None:
    found = TypeVectors(network).of(WORDS, IDS)

    assert found.shape == (len(WORDS), WIDTH)
    for word, vector in zip(WORDS, found, strict=True):
        torch.testing.assert_close(vector, alone(network, word), atol=1e-6, rtol=1e-5)


def test_boundary_tokens_differ_from_words_that_are_spelled_alike(network: CharCNN) -> None:
    found = TypeVectors(network).of([BEGIN, "<s>", END], [1, 7, 2])

    for row, mark in ((0, TEXT_BEGIN), (2, TEXT_END)):
        characters = torch.tensor([[WORD_BEGIN, mark, WORD_END, *[PAD] * 17]])
        torch.testing.assert_close(found[row], network.vectors((characters,))[0])
    assert not torch.allclose(found[0], found[1])


def test_vectors_have_the_same_bits_whatever_was_computed_before(
    network: CharCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"w{number:o}" * (1 + number % 4) for number in range(200)]
    ids = list(range(3, 203))
    whole = dict(zip(words, TypeVectors(network).of(words, ids), strict=True))
    draw = random.Random(1)
    for kept in (1, 1000, 1 << 20):
        vectors = TypeVectors(network, kept_bytes=kept)
        for size in (1, 3, 60, 7, 1, 199):
            some = draw.sample(words, size)
            for word, found in zip(some, vectors.of(some, [3] * size), strict=True):
                assert torch.equal(found, whole[word])


def test_a_word_is_computed_once(network: CharCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = CharCNN.vectors
    monkeypatch.setattr(CharCNN, "vectors", lambda *a: calls.append(1) or real(*a))
    vectors = TypeVectors(network)
    vectors.of(["kana", "lori"], [3, 4])
    first = len(calls)
    vectors.of(["lori", "kana"], [4, 3])

    assert len(calls) == first > 0


def test_memory_is_bounded(network: CharCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = TypeVectors(network, kept_bytes=50 * 4 * WIDTH)
    for start in range(0, 1000, 20):
        vectors.of([f"w{n}" for n in range(start, start + 20)], list(range(20)))
        assert vectors._table is not None
        assert len(vectors._table) == 50
        assert len(vectors._rows) <= 50


def test_precomputed_vectors_are_used_for_words_of_the_vocabulary(network: CharCNN) -> None:
    given = torch.arange(5.0 * WIDTH).view(5, WIDTH)
    found = TypeVectors(network, given).of(["kana", "other", BEGIN, "lori"], [3, 0, 1, 9])

    assert torch.equal(found[0], given[3])
    assert torch.equal(found[2], given[1])
    for row, word in ((1, "other"), (3, "lori")):
        torch.testing.assert_close(found[row], alone(network, word), atol=1e-6, rtol=1e-5)


def test_changed_weights_empty_the_cache(network: CharCNN) -> None:
    given = torch.zeros(5, WIDTH)
    vectors = TypeVectors(network, given)
    before = vectors.of(["kana", "zuzu"], [3, 0]).clone()
    with torch.inference_mode(False), torch.no_grad():
        network.bias.add_(1.0)
    vectors.refresh(network)

    after = vectors.of(["kana", "zuzu"], [3, 0])

    assert not torch.equal(after, before)
    torch.testing.assert_close(after[0], alone(network, "kana"), atol=1e-6, rtol=1e-5)


def test_words_are_computed_in_whole_blocks_of_few_widths(
    network: CharCNN, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: set[tuple[int, ...]] = set()
    real = CharCNN.vectors
    monkeypatch.setattr(CharCNN, "vectors", lambda self, b: shapes.add(b[0].shape) or real(self, b))
    TypeVectors(network).of(WORDS, IDS)

    assert {rows for rows, _ in shapes} == {type_vectors.ROW_BLOCK}
    assert {width for _, width in shapes} <= {6, 8, 10, 12, 16, 20}

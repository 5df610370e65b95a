"""Texts as padded tensors, and the pooling of spans with gradients."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from biloom import BiLM
from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.vectors.selection import Selection, Spans
from lightning_modules.vectors.text_batch import TextBatch, pool_spans
from preprocess.config import SentencePieceConfig, WordConfig
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer

TEXTS = ["The cat sat on the mat .", "A dog ran to the cat , twice .", "Tout été , naïve 字"]
SPELLING = {"kind": "char_cnn", "dim": 4, "max_characters": 12, "filters": [[1, 4], [3, 9]]}


def untrained(tokenizer: Any = None, **sections: Any) -> BiLM:
    torch.manual_seed(1)
    made = train_tokenizer(tokenizer or SentencePieceConfig(vocabulary=320), TEXTS * 9)
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6}
    config = ModelConfig.model_validate({"recurrent": recurrent} | sections)
    return BiLM(BiLMNetwork(config, made.vocabulary), made, CleaningConfig(), "bos_eos")


@pytest.fixture(scope="module")
def pieces() -> BiLM:
    return untrained()


@pytest.fixture(scope="module")
def spelled() -> BiLM:
    return untrained(WordConfig(), input=SPELLING)


def test_rows_are_padded_and_spans_point_at_the_tokens_of_words(pieces: BiLM) -> None:
    batch = pieces.batch([TEXTS[1], "", ["a", "dog"]])
    read = pieces.reader.read([TEXTS[1], "", ["a", "dog"]])

    assert batch.ids.dtype == batch.first.dtype == torch.int64
    assert batch.lengths.tolist() == [len(text.tokens) for text in read]
    assert batch.units.tolist() == [9, 0, 2]
    assert batch.mask.sum(1).tolist() == [9, 0, 2]
    for row, text in enumerate(read):
        first, last = text.word_spans()
        length, units = len(text.tokens), len(first)
        assert batch.ids[row, :length].tolist() == [token.id for token in text.tokens]
        assert batch.first[row, :units].tolist() == first.tolist()
        assert batch.last[row, :units].tolist() == last.tolist()
        assert not batch.ids[row, length:].any()
        assert not batch.last[row, units:].any()
    assert batch.texts == tuple(read)
    assert batch.spellings is None


@pytest.mark.parametrize("texts", [[], [""], ["", " "]])
def test_a_batch_has_at_least_one_position_and_one_unit(pieces: BiLM, texts: list[str]) -> None:
    for unit in ("token", "word", "sentence"):
        batch = pieces.batch(texts, unit)
        assert batch.ids.shape == batch.first.shape == (len(texts), 1)
        assert not batch.mask.any()


def test_words_outside_the_vocabulary_have_ids_and_spellings_of_their_own(spelled: BiLM) -> None:
    batch = spelled.batch([["zuzu", "cat", "zaza", "zuzu"], ["zaza"]])
    vocabulary = spelled.tokenizer.vocabulary

    assert batch.ids[0, [0, 2, 3]].tolist() == [vocabulary, vocabulary + 1, vocabulary]
    assert batch.ids[0, 1] < vocabulary
    assert batch.ids[1, 0] == vocabulary + 1
    layers = spelled(batch.ids, batch.lengths, batch.spellings)
    [expected] = spelled.embed([["zuzu", "cat", "zaza", "zuzu"]])
    np.testing.assert_allclose(layers[:, 0].detach().numpy(), expected.vectors, atol=1e-6)


def test_a_batch_is_small_when_it_is_pickled(spelled: BiLM) -> None:
    batch = spelled.batch(["zuzu cat"])
    data = pickle.dumps(batch)
    copy = pickle.loads(data)

    assert len(data) < 3000
    one = spelled(copy.ids, copy.lengths, copy.spellings)
    assert torch.equal(one, spelled(batch.ids, batch.lengths, batch.spellings))


def test_a_data_loader_makes_batches(pieces: BiLM) -> None:
    loader: Any = DataLoader(TEXTS, batch_size=2, collate_fn=pieces.batch)  # type: ignore[arg-type]
    first, second = loader
    assert isinstance(first, TextBatch)
    assert [len(first.ids), len(second.ids)] == [2, 1]
    moved = first.to("meta")
    assert {one.device.type for one in moved[:5]} == {"meta"}
    assert moved.texts is first.texts


SPANS = Spans(np.array([0, 2, 2, 4]), np.array([1, 2, 4, 6]))


@pytest.mark.parametrize("pooling", ["direction", "mean", "first", "last"])
@pytest.mark.parametrize("directions", [0, 1, 2])
def test_pooled_tensors_are_those_of_a_selection(pooling: Any, directions: int) -> None:
    read = torch.randn(3, 1, 7, 4, dtype=torch.float64)
    first, last = (torch.from_numpy(one)[None] for one in SPANS)
    mask = torch.ones(1, 4, dtype=torch.bool)
    expected = Selection("all", "word", pooling).of(
        read[:, 0].numpy(), SPANS, directions, lambda shape: np.empty(shape, np.float32)
    )

    found = pool_spans(read, first, last, mask, pooling, directions)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("pooling", ["direction", "mean", "first", "last"])
def test_pooling_has_the_gradient_of_finite_differences(pooling: Any) -> None:
    read = torch.randn(2, 3, 7, 4, dtype=torch.float64, requires_grad=True)
    first, last = (torch.from_numpy(one).expand(3, -1) for one in SPANS)
    mask = torch.tensor([[True] * 4, [True, False, True, False], [False] * 4])
    assert torch.autograd.gradcheck(
        lambda x: pool_spans(x, first, last, mask, pooling), read, fast_mode=True
    )
    pooled = pool_spans(read, first, last, mask, pooling)
    assert not pooled[:, ~mask].any()
    pooled[:, 0, 0].sum().backward()  # the tokens 0 and 1 of the first text
    assert read.grad is not None
    outside = read.grad.clone()
    outside[:, 0, :2] = 0
    assert not outside.any()


def test_pooling_does_not_read_past_the_end_of_a_text(pieces: BiLM) -> None:
    batch = pieces.batch(TEXTS, "sentence")
    vectors = torch.randn(3, 3, batch.ids.shape[1], 4)
    padding = torch.arange(batch.ids.shape[1]) >= batch.lengths[:, None]
    expected = batch.pool(vectors)
    vectors[:, padding] = torch.nan
    assert torch.equal(batch.pool(vectors), expected)
    assert torch.equal(batch.pool(vectors, "mean"), expected), "the default for sentences"

"""Vectors that are pooled while a text is read."""

from typing import Any

import numpy as np
import pytest

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.recurrent_config import NoRecurrenceConfig
from lightning_modules.tasks.classification.pooled import pool
from lightning_modules.tasks.pooled_units import pooled_units
from lightning_modules.vectors import encoder
from lightning_modules.vectors.pretrained import BiLM
from preprocess.config import CharConfig
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.load import train_tokenizer

TEXTS = ["kana loko mipu tenu नू lo kanakana", "", "kana", " ", "lo kana " * 9]


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize("pooling", ["mean", "max", "mean_max"])
def test_the_pooled_vectors_are_those_of_the_whole_array(
    trained: Any, unit: Any, pooling: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BiLM.from_pretrained(trained / "export")
    whole = [one.vectors for one in model.embed(TEXTS, 1, unit=unit)]
    # A text in many chunks.
    monkeypatch.setattr(encoder, "POSITIONS", 4)
    monkeypatch.setattr(encoder, "LEAST", 1)
    found = pooled_units(model, TEXTS, unit, pooling, batch_tokens=1)
    for (pooled, units), vectors in zip(found, whole, strict=True):
        assert units == vectors.shape[1]
        np.testing.assert_allclose(pooled, pool(vectors, pooling), atol=1e-6)


def test_the_vectors_of_a_text_are_not_kept(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_modules.vectors import pretrained

    def refused(*shape: Any, **options: Any) -> None:
        raise AssertionError("an array for a whole text")

    monkeypatch.setattr(pretrained, "allocate", refused)
    model = BiLM.from_pretrained(trained / "export")
    [(pooled, units)] = pooled_units(model, ["kana loko " * 40], "token", "mean", 1)
    assert units >= 80
    assert np.isfinite(pooled).all()


@pytest.mark.parametrize("pooling", ["mean", "max", "mean_max"])
def test_words_of_a_model_without_recurrent_layers_are_means(pooling: Any) -> None:
    tokenizer = train_tokenizer(CharConfig(), TEXTS)
    network = BiLMNetwork(
        ModelConfig(directions="forward", recurrent=NoRecurrenceConfig(hidden=6)),
        tokenizer.vocabulary,
        head=False,
    )
    model = BiLM(network, tokenizer, CleaningConfig(), "eos")
    found = pooled_units(model, TEXTS, "word", pooling, batch_tokens=64)
    for (pooled, units), whole in zip(found, model.embed(TEXTS, unit="word"), strict=True):
        assert units == whole.vectors.shape[1]
        np.testing.assert_allclose(pooled, pool(whole.vectors, pooling), atol=1e-6)
    for one, mean in zip(
        model.embed(TEXTS, unit="word"),
        model.embed(TEXTS, unit="word", pooling="mean"),
        strict=True,
    ):
        np.testing.assert_array_equal(one.vectors, mean.vectors)

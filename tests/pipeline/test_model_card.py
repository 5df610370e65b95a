"""The model folder's README.md."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.model_card import model_card
from preprocess.manifest import Manifest, read_manifest

CORPUS = {
    "sources": [
        {"name": "wiki", "license": "CC-BY-SA-4.0", "documents": 1200, "tokens": 34567},
        {"name": "notes", "license": None, "documents": 3, "tokens": 9},
    ]
}


@pytest.fixture
def manifest(trained: Path) -> Manifest:
    return read_manifest(str(trained / "train"))


def figures() -> dict[str, Any]:
    ways = ("forward", "backward", "average")
    keys = ("perplexity", "word_perplexity")
    numbers = {
        f"{way}_{key}": 10.0 + i for i, (way, key) in enumerate((w, k) for w in ways for k in keys)
    }
    return {"split": "valid", "tokens": 1234, "bits_per_byte": 1.5, **numbers}


def test_it_says_what_the_model_is(manifest: Manifest) -> None:
    card = model_card(manifest, {}, {})

    assert "Two stacks of 2 LSTM layers (forward and backward, cell 8, output 4)" in card
    assert "A token has 3 layers of 8 values" in card
    assert "40 steps, 600 tokens" in card
    assert "BiLM.from_pretrained" in card


def test_it_names_every_source_with_its_licence(manifest: Manifest) -> None:
    card = model_card(manifest, {}, CORPUS)

    assert "| wiki | CC-BY-SA-4.0 | 1,200 | 34,567 |" in card
    assert "| notes | not given | 3 | 9 |" in card
    assert "Cleaning, the same when texts are embedded: invalid_bytes replace, unicode NFC" in card


def test_it_shows_what_was_measured(manifest: Manifest) -> None:
    card = model_card(manifest, figures(), {})

    assert "On the valid split, 1,234 tokens, over the full vocabulary:" in card
    assert "| perplexity a token | 10.00 | 12.00 | 14.00 |" in card
    assert "| perplexity a word | 11.00 | 13.00 | 15.00 |" in card
    assert "Bits a byte of text: 1.500." in card


@pytest.mark.parametrize("evaluation", [{}, {"split": "valid", "tokens": 0}])
def test_it_says_where_nothing_was_measured(manifest: Manifest, evaluation: dict[str, Any]) -> None:
    assert "Not measured: no held-out text was evaluated" in model_card(manifest, evaluation, {})

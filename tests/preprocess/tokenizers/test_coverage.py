"""Coverage figures of tokenizers."""

import pytest

from preprocess.config import CharConfig, SentencePieceConfig, WordConfig
from preprocess.tokenizers import coverage as module
from preprocess.tokenizers.coverage import coverage, coverage_rows
from preprocess.tokenizers.load import train_tokenizer


def test_coverage_of_a_word_tokenizer() -> None:
    tokenizer = train_tokenizer(WordConfig(), ["a bb ccc dddd"])
    found = coverage(tokenizer, ["a bb x", "a  ccc", ""])
    assert found == {
        "documents": 3,
        "bytes": 12,
        "characters": 12,
        "tokens": 5,
        "unknown": 0.2,
        "byte_tokens": 0.0,
        "bytes_per_token": 2.4,
        "tokens_per_character": pytest.approx(5 / 12, abs=1e-6),
        "tokens_per_word": 1.0,
        "spaced": 1.0,
        "restored": None,
        "used": 4,
        "once": 3,
        "vocabulary": 7,
        "longest": ["dddd", "ccc", "bb", "a"],
    }


def test_tokens_per_word_are_counted_in_text_with_spaces_only() -> None:
    unspaced = "\u732b\u304c\u5ea7\u3063\u305f" * 8
    tokenizer = train_tokenizer(CharConfig(), ["ab cd", unspaced])
    found = coverage(tokenizer, ["ab cd", unspaced])
    assert found["tokens_per_word"] == 3.0, "tokens: a, b, c, d and two spaces"
    assert found["spaced"] == pytest.approx(5 / 45, abs=1e-6)
    assert found["restored"] == 1.0
    assert found["tokens_per_character"] == pytest.approx(47 / 45, abs=1e-6)
    alone = coverage(tokenizer, [unspaced])
    assert alone["tokens_per_word"] is None
    shown = dict(coverage_rows(alone))
    assert "tokens per word, in text with spaces" not in shown
    assert shown["tokens per character"] == "1.02"


def test_byte_tokens_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_TEXTS", 2)
    tokenizer = train_tokenizer(SentencePieceConfig(vocabulary=300), ["abab ab"])
    found = coverage(tokenizer, ["ab", "\u72ac", "ab"])
    assert found["byte_tokens"] == pytest.approx(3 / found["tokens"], abs=1e-6)
    assert found["unknown"] == 0.0
    assert len(found["longest"]) <= 20


def test_shares_are_none_without_text() -> None:
    tokenizer = train_tokenizer(WordConfig(), ["a"])
    found = coverage(tokenizer, [])
    assert (found["unknown"], found["bytes_per_token"], found["used"]) == (None, None, 0)
    assert coverage_rows(found) == [("vocabulary used", "0 of 4")]

"""Texts and lists of words to tokens, and which tokens a word has."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import CharConfig, SentencePieceConfig, WordConfig
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.aligned_text import NO_ID, TextAligner, Tokenised
from preprocess.tokenizers.base import UNKNOWN
from preprocess.tokenizers.load import Tokenizer, train_tokenizer

TEXTS = [
    "The cat sat on the mat .",
    "A dog ran to the cat , twice .",
    "字 tout été naïve",
    "zz top",
]
KINDS: dict[str, Any] = {
    "word": WordConfig(),
    "char": CharConfig(),
    "bytes": SentencePieceConfig(vocabulary=320),
}


@pytest.fixture(scope="module", params=KINDS)
def reader(request: pytest.FixtureRequest) -> TextAligner:
    return TextAligner(Cleaner(CleaningConfig()), tokenizer(request.param))


def tokenizer(kind: str) -> Tokenizer:
    return train_tokenizer(KINDS[kind], TEXTS * 20)


def covered(found: Tokenised) -> None:
    """Every word has tokens, in order, and all of its characters are in them."""
    first, last = found.word_spans()
    for word, start, end in zip(found.words, first, last, strict=True):
        assert 0 <= start <= end < len(found.tokens)
        assert found.text[word.start : word.end] == word.spelling
        tokens = found.tokens[start : end + 1]
        assert tokens[0].start <= word.start
        assert tokens[-1].end >= word.end
        others = [*found.tokens[:start], *found.tokens[end + 1 :]]
        assert not any(max(one.start, word.start) < min(one.end, word.end) for one in others), (
            "no other token covers any of it"
        )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=6), max_size=8))
def test_every_given_word_keeps_tokens_of_its_own(reader: TextAligner, words: list[str]) -> None:
    [found] = reader.read([words])

    assert len(found.words) == len(words)
    covered(found)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40))
def test_words_of_a_text_are_what_whitespace_separates(reader: TextAligner, text: str) -> None:
    [found] = reader.read([text])

    assert [word.spelling for word in found.words] == found.text.split()
    assert {word.id for word in found.words} <= {NO_ID}
    covered(found)


def test_a_list_reads_as_its_words_joined(reader: TextAligner) -> None:
    text, words = reader.read([TEXTS[0], TEXTS[0].split()])

    assert words.tokens == text.tokens
    assert words.text == text.text


def test_with_words_as_tokens_each_given_word_is_one() -> None:
    reader = TextAligner(Cleaner(CleaningConfig(whitespace="keep")), tokenizer("word"))
    words = ["The", "big cat", "", "cat", "\x00", "The"]

    [found] = reader.read([words])

    assert [token.spelling for token in found.tokens] == ["The", "big cat", "", "cat", "", "The"]
    known = found.tokens[0].id, found.tokens[3].id
    assert UNKNOWN not in known
    assert [token.id for token in found.tokens[1:3]] == [UNKNOWN] * 2
    first, last = found.word_spans()
    assert first.tolist() == last.tolist() == list(range(6))


def test_a_word_of_which_cleaning_leaves_nothing_counts_as_unknown() -> None:
    reader = TextAligner(Cleaner(CleaningConfig()), tokenizer("bytes"))

    [found] = reader.read([["the", "\x07", "cat"]])

    first, last = found.word_spans()
    assert [found.tokens[n].id == UNKNOWN for n in first] == [False, True, False]
    assert first[1] == last[1]


@pytest.mark.parametrize("wrong", [3, None, ["a", 3]])
def test_what_is_no_text_is_refused(wrong: Any) -> None:
    reader = TextAligner(Cleaner(CleaningConfig()), tokenizer("word"))
    with pytest.raises(TypeError, match="a text must be a string or a list of strings"):
        reader.read([wrong])

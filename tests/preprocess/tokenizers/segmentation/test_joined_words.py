"""Words that are not separated by spaces, and their tokens."""

import pickle

import numpy as np
import pytest

from preprocess.config import CharConfig, SentencePieceConfig, WordConfig
from preprocess.text.cleaning import Cleaner
from preprocess.text.config import CleaningConfig
from preprocess.tokenizers.aligned_text import TextAligner
from preprocess.tokenizers.load import train_tokenizer
from preprocess.tokenizers.segmentation.joined_words import JoinedWords
from preprocess.vectors.shard import text_key

TEXTS = ["我在银行存钱", "cats sat", "银行 a"] * 20
WORDS = ["我", "a", "在", "银行", "cat"]
NONE = [""] * 4


def aligner(kind: CharConfig | SentencePieceConfig | WordConfig) -> TextAligner:
    return TextAligner(Cleaner(CleaningConfig()), train_tokenizer(kind, TEXTS))


def test_the_text_has_only_the_given_separators() -> None:
    [found] = aligner(CharConfig()).read([JoinedWords(WORDS, ["", " ", "", ", "])])
    assert found.text == "我a 在银行, cat"
    assert [word.spelling for word in found.words] == WORDS
    assert [found.text[word.start : word.end] for word in found.words] == WORDS


def test_bytes_of_a_character_belong_to_its_own_word() -> None:
    # An unknown character is three bytes, of which two have length 0.
    words = JoinedWords(["我", "a", "远", "远方", "cat"], NONE)
    [found] = aligner(SentencePieceConfig(vocabulary=320)).read([words])
    first, last = found.word_spans()
    assert (first[1:] == last[:-1] + 1).all(), "no token is shared, and none is left over"
    assert (last - first + 1).tolist()[2:4] == [3, 6]


def test_a_word_that_cleaning_empties_keeps_a_token() -> None:
    [found] = aligner(CharConfig()).read([JoinedWords(["我", "\x00", "在"], ["", ""])])
    first, last = found.word_spans()
    assert (first <= last).all()
    assert found.tokens[first[1]].spelling == ""


def test_a_word_tokenizer_reads_joined_words_as_words() -> None:
    [found] = aligner(WordConfig()).read([JoinedWords(["cats", "sat"], [""])])
    assert [token.spelling for token in found.tokens] == ["cats", "sat"]


def test_keys_tell_separators_apart() -> None:
    plain = text_key(["a", "b"])
    assert text_key(JoinedWords(["a", "b"], [" "])) == plain
    assert text_key(JoinedWords(["a", "b"], [""])) != plain
    assert text_key(JoinedWords(["a", "b"], [", "])) != text_key(JoinedWords(["a", "b"], [""]))


def test_separators_are_checked_and_survive_pickling() -> None:
    words = JoinedWords(["a", "b"], ["-"])
    copied = pickle.loads(pickle.dumps(words))
    assert (copied, copied.separators) == (words, words.separators)
    assert "".join(JoinedWords([], []).pieces()) == ""
    with pytest.raises(ValueError, match="2 separators between 2 words"):
        JoinedWords(["a", "b"], ["", ""])


def test_spaces_give_the_tokens_of_a_plain_list() -> None:
    reader = aligner(SentencePieceConfig(vocabulary=320))
    plain, joined = reader.read([WORDS, JoinedWords(WORDS, [" "] * 4)])
    assert plain == joined
    assert all(map(np.array_equal, plain.word_spans(), joined.word_spans()))

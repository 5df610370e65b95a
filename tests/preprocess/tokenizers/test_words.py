"""The word tokenizer: words in memory and in the file have the same ids."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import WordConfig
from preprocess.tokenizers import words as word_tokenizer
from preprocess.tokenizers.base import TokenizerError
from preprocess.tokenizers.load import load_tokenizer, train_tokenizer
from preprocess.tokenizers.vocabulary import Vocabulary
from preprocess.tokenizers.words import WordTokenizer

WORDS = ["the", "кот", "猫が", "<s>", "<unk>", "a", "größe", "ሰ"]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([*WORDS, "new", "x", "\ud800"])).map(" ".join), max_size=5),
    st.integers(0, 9),
)
def test_ids_do_not_depend_on_how_many_words_are_in_memory(texts: list[str], frequent: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_tokenizer, "FREQUENT", frequent)
        tokenizer = WordTokenizer(Vocabulary.of_words(WORDS))
    found = tokenizer.encode(texts)
    assert [ids.tolist() for ids in found] == [
        [WORDS.index(w) + 3 if w in WORDS else 0 for w in text.split()] for text in texts
    ]
    assert all(ids.dtype == np.int32 for ids in found)
    for text, ids in zip(texts, found, strict=True):
        tokens = tokenizer.tokens(text)
        assert [token.id for token in tokens] == ids.tolist()
        assert [text[token.start : token.end] for token in tokens] == text.split()


def test_a_tokenizer_of_version_0_1_without_an_index_is_read(tmp_path: Path) -> None:
    (tmp_path / "vocabulary.txt").write_text("b\na\n")
    (tmp_path / "tokenizer.json").write_text(json.dumps({"kind": "word", "file": "vocabulary.txt"}))
    assert load_tokenizer(str(tmp_path)).encode(["a b c"])[0].tolist() == [4, 3, 0]


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    names = train_tokenizer(WordConfig(), ["a b"]).save(str(tmp_path))
    assert names == ("tokenizer.json", "vocabulary.txt", "vocabulary.index")
    (tmp_path / "vocabulary.txt").write_text("a\n")
    with pytest.raises(
        TokenizerError, match=r"holds no tokenizer \(the vocabulary text and its index do not match"
    ):
        load_tokenizer(str(tmp_path))


def test_a_word_tokenizer_has_no_byte_tokens_and_lists_its_longest_words() -> None:
    tokenizer = train_tokenizer(WordConfig(), ["bb a ccc"])
    assert tokenizer.byte_tokens(tokenizer.encode(["a bb x"])[0]) == 0
    assert tokenizer.longest(2) == ["ccc", "bb"]

"""Vocabulary files: exact lookups in both directions, even if hashes collide."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.tokenizers import vocabulary
from preprocess.tokenizers.base import TokenizerError
from preprocess.tokenizers.vocabulary import Vocabulary

WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1)
WORDS = st.lists(WORD, unique=True, min_size=1, max_size=40)


def opened(folder: Path, words: list[str]) -> Vocabulary:
    text, index = str(folder / "v.txt"), str(folder / "v.index")
    Vocabulary.of_words(words).save(text, index)
    return Vocabulary.open(text, index)


@settings(deadline=None)
@given(WORDS, st.lists(WORD, max_size=10), st.integers(0, 50))
def test_words_are_found_by_number_and_numbers_by_word(
    words: list[str], others: list[str], first: int
) -> None:
    found = Vocabulary.of_words(words)
    assert len(found) == len(words)
    assert [found.word(n) for n in range(len(words))] == words
    assert found.first(first) == words[:first]
    asked = [*words, *others, words[0]]
    expected = [words.index(one) if one in words else -1 for one in asked]
    assert found.find([one.encode() for one in asked]).tolist() == expected


def test_words_with_equal_hashes_are_distinguished_by_spelling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vocabulary, "hash_word", lambda word: len(word) % 2 * (2**64 - 1))
    words = ["a", "bb", "ccc", "dd", "e", "f"]
    found = Vocabulary.of_words(words)
    asked = [b"f", b"e", b"dd", b"zz", b"z", b"a", b"bb", b"ccc"]
    assert found.find(asked).tolist() == [5, 4, 3, -1, -1, 0, 1, 2]


def test_the_files_do_not_depend_on_batch_and_sort_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"слово{n}" for n in range(100)]
    made = opened(tmp_path, words)
    assert made.find([word.encode() for word in words]).tolist() == list(range(100))
    assert (tmp_path / "v.txt").read_text() == "".join(f"{word}\n" for word in words)
    index = (tmp_path / "v.index").read_bytes()
    monkeypatch.setattr(vocabulary, "SORTED_AT_ONCE", 7)
    monkeypatch.setattr(vocabulary, "BATCH_WORDS", 9)
    monkeypatch.setattr(vocabulary, "COPIED_AT_ONCE", 10)
    again = opened(tmp_path, words)
    assert (tmp_path / "v.index").read_bytes() == index
    assert again.word(99) == "слово99"


def test_a_remote_vocabulary_is_copied(tmp_path: Path) -> None:
    words = ["a", "b"]
    text, index = "memory://words/v.txt", "memory://words/v.index"
    Vocabulary.of_words(words).save(text, index)
    assert Vocabulary.open(text, index).first(9) == words


def test_longest_sorts_words_by_bytes() -> None:
    found = Vocabulary.of_words(["aaa", "猫猫", "b", "cccc", "dddd"])
    assert found.longest(3) == ["猫猫", "cccc", "dddd"]


def test_an_index_of_another_text_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, ["a", "b"])
    (tmp_path / "v.txt").write_text("a\nbb\n")
    with pytest.raises(ValueError, match="text and its index do not match"):
        Vocabulary.open(str(tmp_path / "v.txt"), str(tmp_path / "v.index"))
    (tmp_path / "v.index").write_bytes(b"")
    with pytest.raises(ValueError, match="index is truncated"):
        Vocabulary.open(str(tmp_path / "v.txt"), str(tmp_path / "v.index"))


@pytest.mark.parametrize(
    ("place", "number"),
    [(0, 2**40), (1, 0), (2, 2**32 - 1), ("first", 1), ("rising", 9), ("rising", 0), ("number", 3)],
)
def test_an_index_with_other_numbers_is_refused(place: int | str, number: int) -> None:
    """Three words of two bytes: 24 bytes of header, 24 of hashes, 16 of offsets, 12 of numbers."""
    text, index = io.BytesIO(), io.BytesIO()
    vocabulary.write_vocabulary([b"a", b"b", b"c"], text, index)
    numbers = np.frombuffer(index.getvalue(), "<u4").copy()
    at = {"first": 12, "rising": 13, "number": 17}[place] if isinstance(place, str) else 2 * place
    numbers[at] = number % 2**32
    with pytest.raises(TokenizerError, match=r"index is damaged|do not match"):
        Vocabulary(text.getvalue(), numbers.tobytes())


def test_a_text_that_is_no_text_is_refused() -> None:
    text, index = io.BytesIO(), io.BytesIO()
    vocabulary.write_vocabulary([b"ab", b"c"], text, index)
    latin = Vocabulary(b"a\xe9\nc\n", index.getvalue())
    with pytest.raises(TokenizerError, match=r"text is not UTF-8 \(invalid continuation byte\)"):
        latin.first(2)
    with pytest.raises(TokenizerError, match=r"word 0 is not UTF-8; copy .* `biloom tokenizer"):
        latin.word(0)
    for lines in (b"a\n\nc\n", b"abcc\n"):
        with pytest.raises(TokenizerError, match="do not match"):
            Vocabulary(lines, index.getvalue()).first(2)


def test_an_empty_vocabulary_has_no_words() -> None:
    found = Vocabulary.of_words([])
    assert len(found) == 0
    assert found.find([b"a"]).tolist() == [-1]
    assert found.find([]).dtype == np.int64

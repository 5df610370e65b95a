"""Character ids of words: marks, truncation and its counts, and boundary tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.config import SentencePieceConfig
from preprocess.tokenizers import spellings
from preprocess.tokenizers.base import BOS, CONTROLS, EOS
from preprocess.tokenizers.load import train_tokenizer
from preprocess.tokenizers.spellings import (
    CHARACTERS,
    PAD,
    TEXT_BEGIN,
    TEXT_END,
    WORD_BEGIN,
    WORD_END,
    Spellings,
    Truncated,
    spell,
    truncated,
)

WORDS = [*CONTROLS, "a", "bé", "abcdefgh", "<s>", "中文"]


def vocabulary(max_characters: int = 8) -> Spellings:
    return Spellings(WORDS.__getitem__, len(WORDS), max_characters)


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_character_ids_are_those_of_elmo() -> None:
    numbers = [TEXT_BEGIN, TEXT_END, WORD_BEGIN, WORD_END, PAD]

    assert numbers == [256, 257, 258, 259, 260]
    assert CHARACTERS == 261


@given(st.lists(st.text(max_size=12), max_size=6), st.integers(3, 20))
def test_a_word_is_its_truncated_bytes_between_marks_and_padding(
    words: list[str], most: int
) -> None:
    rows = spell(words, most)

    assert rows.shape == (len(words), most)
    for word, row in zip(words, rows.tolist(), strict=True):
        cut = list(word.encode())[: most - 2]
        assert row == [WORD_BEGIN, *cut, WORD_END] + [PAD] * (most - 2 - len(cut))


def test_lone_surrogates_are_left_out() -> None:
    assert np.array_equal(spell(["a\ud800b"], 6), spell(["ab"], 6))


def test_boundary_tokens_are_recognised_by_id_not_by_spelling() -> None:
    rows = vocabulary().of_ids(ids(BOS, EOS, WORDS.index("a"), len(CONTROLS) + 3, 0))

    assert rows[0].tolist() == [WORD_BEGIN, TEXT_BEGIN, WORD_END] + [PAD] * 5
    assert rows[1].tolist() == [WORD_BEGIN, TEXT_END, WORD_END] + [PAD] * 5
    assert np.array_equal(rows[2:], spell(["a", "<s>", "<unk>"], 8))


@pytest.mark.parametrize("kept_bytes", [0, 16 * 4, 1 << 20])
def test_low_ids_are_spelt_once_and_all_ids_correctly(
    monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    monkeypatch.setattr(spellings, "KEPT_BYTES", kept_bytes)
    asked: list[int] = []

    def spelling(token: int) -> str:
        asked.append(token)
        return WORDS[token]

    found = Spellings(spelling, len(WORDS), 8)
    generator = np.random.default_rng(1)
    plain = spell(WORDS, 8)
    for _ in range(9):
        some = generator.permutation(np.arange(3, len(WORDS)))[:3]
        assert np.array_equal(found.of_ids(some), plain[some])

    kept = min(len(WORDS), kept_bytes // 16)
    assert max([asked.count(token) for token in range(3, kept)], default=1) == 1
    assert all(asked.count(token) > 1 for token in range(max(3, kept), len(WORDS)))


def test_subwords_are_spelt_with_their_space_mark() -> None:
    config = SentencePieceConfig(vocabulary=300)
    tokenizer = train_tokenizer(config, ["kana lori kana mele"] * 20)
    token = next(n for n in range(3, 300) if tokenizer.spelling(n).startswith("\u2581"))

    rows = Spellings(tokenizer.spelling, tokenizer.vocabulary, 50).of_ids(ids(token))

    expected = [WORD_BEGIN, *tokenizer.spelling(token).encode(), WORD_END]
    assert rows[0, : len(expected)].tolist() == expected


def test_truncated_types_and_tokens_are_counted() -> None:
    counts = np.array([5, 0, 9, 3, 2, 7, 0, 4], np.uint64)

    assert truncated(WORDS.__getitem__, counts, 8) == Truncated(1, 7)
    assert truncated(WORDS.__getitem__, counts, 7) == Truncated(2, 11)
    assert truncated(WORDS.__getitem__, counts, 10) == Truncated(0, 0)
    assert truncated(WORDS.__getitem__, counts, 3) == Truncated(4, 18)

"""The brackets of a query, and the place of its word among tokens."""

import pytest

from preprocess.vectors.search.marked_text import MarkedText, QueryError


@pytest.mark.parametrize(
    ("written", "text", "word"),
    [
        ("the [bank] of the river", "the bank of the river", "bank"),
        ("[bank]", "bank", "bank"),
        ("no word", "no word", ""),
        (r"a \[x\] and [y] \\ z", r"a [x] and y \ z", "y"),
        (r"\n stays [b]", r"\n stays b", "b"),
        ("[ New York ] city", " New York  city", "New York"),
        ("在[银行]存钱", "在银行存钱", "银行"),
    ],
)
def test_brackets_mark_a_word(written: str, text: str, word: str) -> None:
    marked = MarkedText.parse(written)
    assert (marked.text, marked.word) == (text, word)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("a [b] [c]", "must mark one word"),
        ("a [b", "must mark one word"),
        ("a ]b[", "must mark one word"),
        ("[[b]]", "must mark one word"),
        ("a [] b", "the brackets are empty"),
        ("a [ ] b", "the brackets are empty"),
    ],
)
def test_other_brackets_are_told(written: str, told: str) -> None:
    with pytest.raises(QueryError, match=told):
        MarkedText.parse(written)


@pytest.mark.parametrize(
    ("written", "spellings", "first", "last"),
    [
        ("a bank, the [bank]!", ["▁a", "▁bank", ",", "▁the", "▁ban", "k", "!"], 4, 5),
        ("a [bank], the bank!", ["▁a", "▁bank", ",", "▁the", "▁ban", "k", "!"], 1, 1),
        ("The  [BANK]", ["▁the", "▁bank"], 1, 1),
        ("[New York]", ["New", "York"], 0, 1),
        ("caf[e\u0301]", ["▁ca", "fé"], 1, 1),
        ("在[银行]", ["▁在", "银", "行"], 1, 2),
        ("[é]", ["▁", "<0xC3>", "<0xA9>"], 1, 2),
    ],
)
def test_the_word_is_found_among_its_tokens(
    written: str, spellings: list[str], first: int, last: int
) -> None:
    word = MarkedText.parse(written).find_in(spellings)
    assert (word.first, word.last) == (first, last)


def test_a_word_that_cleaning_removed_is_told() -> None:
    with pytest.raises(QueryError, match="'x' is not in the text after its cleaning"):
        MarkedText.parse("a [x]").find_in(["▁a"])


@pytest.mark.parametrize(
    ("written", "spellings", "word", "first", "last"),
    [
        ("the ba[nk] is", ["▁the", "▁ban", "k", "▁is"], "bank", 1, 2),
        ("the [bank,] is", ["▁the", "▁bank", ",", "▁is"], "bank", 1, 1),
        ("去[银行]取", ["▁去", "银", "行", "取"], "银行", 1, 2),
    ],
)
def test_the_whole_word_is_searched_for(
    written: str, spellings: list[str], word: str, first: int, last: int
) -> None:
    found, spelling = MarkedText.parse(written).word_in(spellings)
    assert (spelling, found.first, found.last) == (word, first, last)


def test_what_is_not_one_word_is_told() -> None:
    with pytest.raises(QueryError, match="'the bank' is 2 words; mark one of them"):
        MarkedText.parse("to [the bank]").word_in(["▁to", "▁the", "▁bank"])
    with pytest.raises(QueryError, match="'!!' has no letter or digit"):
        MarkedText.parse("a [!!]").word_in(["▁a", "▁!!"])

"""The text that a language model reads for a sentence of tokens."""

import pytest

from lightning_modules.tasks.tagging.joining import (
    Joined,
    Pieces,
    are_characters,
    how_to_join,
    joined_text,
    separators,
)
from preprocess.reading.labelled.examples import TaggedSentence
from preprocess.tokenizers.segmentation.joined_words import JoinedWords


def sentence(*tokens: str) -> TaggedSentence:
    return TaggedSentence(tokens, ("O",) * len(tokens), "line 1")


WITH_TEXT = TaggedSentence(
    ("We", "met", "Anna", "."),
    ("O",) * 4,
    "line 1",
    "We  met\nAnna.",
    ((0, 2), (4, 7), (8, 12), (12, 13)),
)


@pytest.mark.parametrize(
    ("tokens", "how", "expected"),
    [
        (("We", "met", "."), "script", [" ", " "]),
        (("他", "在", "Apple", "Watch", "上"), "script", ["", "", " ", ""]),
        (("서울", "에서"), "script", [" "]),
        (("日本", "。", "ＡＢ", "x"), "script", ["", "", ""]),
        (("กรุงเทพ", "เป็น"), "script", [""]),
        (("i", "P", "h"), "none", ["", ""]),
        (("他", "在"), "space", [" "]),
        (("他",), "none", []),
        ((), "script", []),
    ],
)
def test_separators(tokens: tuple[str, ...], how: Joined, expected: list[str]) -> None:
    assert separators(sentence(*tokens), how) == expected


def test_separators_of_a_text_are_its_own_with_whitespace_as_one_space() -> None:
    assert separators(WITH_TEXT, "text") == [" ", " ", ""]
    assert separators(sentence("他", "a", "b"), "text") == ["", " "]


def test_spaces_make_a_plain_list_and_so_the_key_of_a_cache() -> None:
    plain = joined_text(sentence("We", "met"), "script")
    assert plain == ["We", "met"]
    joined = joined_text(sentence("他", "在"), "script")
    assert isinstance(joined, JoinedWords)
    assert "".join(joined.pieces()) == "他在"


def test_auto_follows_the_training_file() -> None:
    assert how_to_join("auto", [WITH_TEXT]) == "text"
    assert how_to_join("auto", [WITH_TEXT, sentence("a", "bc")]) == "script"
    characters = [sentence(*"我在看iPhone手机")]
    assert are_characters(characters)
    assert how_to_join("auto", characters) == "none"
    assert how_to_join("space", characters) == "space"
    assert not are_characters([sentence("a", "word", "b")])
    assert not are_characters([])


def test_counts_are_told() -> None:
    assert Pieces(10, 0, 0).describe() == []
    shared, emptied = Pieces(1000, 12, 3).describe()
    assert shared.startswith("12 of 1,000 tokens share a piece")
    assert emptied.startswith("3 of 1,000 tokens are empty")

"""The text that a language model reads for a sentence of tokens, and the tokens of a text."""

import pytest

from lightning_modules.tasks.tagging.joining import (
    CuttingError,
    Joined,
    Pieces,
    TextCutter,
    are_characters,
    how_to_join,
    joined_text,
    separators,
    share_found,
    text_of,
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


TEXT = "我在北京 看书。"
CHARACTERS = tuple(c for c in TEXT if c != " ")
OFFSETS = tuple((place, place + 1) for place, c in enumerate(TEXT) if c != " ")
CUT = TaggedSentence(CHARACTERS, (), "line 1", TEXT, OFFSETS, is_cut=True)
WORDS = ("我", "在", "北京", "看书", "。")


def test_a_segmenter_finds_the_words_of_a_text() -> None:
    found = TextCutter(True, "jieba")(CUT)
    assert found.tokens == WORDS
    assert [TEXT[start:end] for start, end in found.offsets] == [*WORDS]
    assert found.text == TEXT


def test_tokens_of_the_input_are_kept() -> None:
    given = TaggedSentence(WORDS, (), "line 1")
    assert TextCutter(True, "jieba")(given) is given
    assert TextCutter(False)(CUT) is CUT
    assert TextCutter(True, by_rule=True)(CUT) is CUT


def test_without_a_segmenter_it_is_told_what_to_do() -> None:
    with pytest.raises(CuttingError, match=r"^line 1: .*segmenter= \(jieba, fugashi, pythainlp\)"):
        TextCutter(True)(CUT)


def test_spans_of_a_text_cannot_be_cut_again() -> None:
    tagged = TaggedSentence(CHARACTERS, ("O",) * 7, "line 1", TEXT, OFFSETS, is_cut=True)
    with pytest.raises(CuttingError, match="pass the words as tokens with tags"):
        TextCutter(True, "jieba")(tagged)


def test_a_segmenter_for_other_tokens_is_refused() -> None:
    with pytest.raises(CuttingError, match="jieba finds the words of text without spaces"):
        TextCutter(False, "jieba")


def test_the_share_of_the_words_that_a_segmenter_finds() -> None:
    given = TaggedSentence(("我在", "北京", "看", "书"), (), "")
    assert share_found([given, TaggedSentence(WORDS, (), "")], "none", "jieba") == 6 / 9


def test_the_places_of_tokens_in_their_text() -> None:
    assert text_of(TaggedSentence(("Ann", "在", "ok"), (), ""), "script") == (
        "Ann在ok",
        [(0, 3), (3, 4), (4, 6)],
    )
    assert text_of(TaggedSentence(("a", "b"), (), ""), "space") == ("a b", [(0, 1), (2, 3)])

"""Cutting texts into words that spaces do not separate."""

import pytest

from lightning_modules.tasks.tagging.cutting import (
    CuttingError,
    TextCutter,
    share_found,
    text_of,
)
from preprocess.reading.labelled.examples import TaggedSentence

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

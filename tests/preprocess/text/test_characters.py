"""Kinds of characters, with equal results for ASCII and other texts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.text.characters import CharacterTable, by_width

VOWELS = CharacterTable([(0, 0x10FFFF, 1), *((ord(c), ord(c), 2) for c in "aeiouу東\ud800")])


@settings(deadline=None)
@given(st.lists(st.text(st.one_of(st.sampled_from("aeхуб東\ud800"), st.characters())), max_size=6))
def test_each_text_is_counted_separately(texts: list[str]) -> None:
    expected = [[sum(c in "aeiouу東\ud800" for c in text) for text in texts]]
    expected += [[len(text) - n for text, n in zip(texts, expected[0], strict=True)]]
    assert VOWELS.count(texts, 2, 1).tolist() == expected


def test_texts_are_grouped_by_width() -> None:
    assert by_width(["a", "é", "", "東"]) == ([0, 2], [1, 3])


def test_a_later_range_overrides_an_earlier_one() -> None:
    table = CharacterTable([(ord("a"), ord("z"), 1), (ord("b"), ord("b"), 2)])
    assert table.kinds("abzé").tolist() == [1, 2, 1, 0]

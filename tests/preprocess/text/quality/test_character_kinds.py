"""Kinds of characters that the rules for quality distinguish."""

import pytest

from preprocess.text.quality.character_kinds import (
    ALPHANUMERIC,
    LETTER,
    QUOTE,
    SPACE,
    TERMINAL,
    UNPUNCTUATED,
    UNSPACED,
    UPPER,
    kind_table,
)

WORD = LETTER | ALPHANUMERIC


@pytest.mark.parametrize(
    ("characters", "kind"),
    [
        (" \n\t\x1c\x85\xa0\u2028\u3000", SPACE),
        ("aé\u02b0\u05d0", WORD),
        ("AÉ\u01c5", WORD | UPPER),
        ("1\u0661\u2167\u0301\u0e34", ALPHANUMERIC),
        (".!?\u3002\uff01\u0964\U00016e98", TERMINAL),
        ("\"'\u201d\u00bb\u300d", QUOTE),
        ("\u4e2d\u3005\u3042\u30a2\u1780\u1000\U00020000", WORD | UNSPACED),
        ("\u0e01\u0e81", WORD | UNSPACED | UNPUNCTUATED),
        (",#\u2026\u200b\x00\ud800\ue000\U0001f600\U00050000\U0010ffff", 0),
    ],
)
def test_each_character_has_the_kinds_of_its_category_and_script(
    characters: str, kind: int
) -> None:
    assert kind_table().kinds(characters).tolist() == [kind] * len(characters)
    assert [kind_table().kinds(character)[0] for character in characters] == [kind] * len(
        characters
    )

"""Cutting a text into the tokens that spans are aligned to."""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from preprocess.text.scripts import count_scripts

Cut = Literal["words", "spaces", "characters"]
UNSPACED = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan")
"""Scripts that are written without spaces between words."""


def choose_cut(texts: Sequence[str]) -> Cut:
    """Return "characters" if most letters are of scripts without spaces, otherwise "words"."""
    counts = count_scripts([text for text in texts if text])
    unspaced = sum(counts[script] for script in UNSPACED)
    return "characters" if 2 * unspaced > counts.total() else "words"


def cut_text(text: str, cut: Cut) -> list[tuple[int, int]]:
    """Return the (start, end) of each token of a text, in characters; whitespace is in no token.

    Args:
        text: the text.
        cut: "words": runs of letters and digits of any script, and every other character alone;
            "spaces": what whitespace separates; "characters": every character. Combining marks and
            joiners belong to the character before them.
    """
    found: list[tuple[int, int]] = []
    before = "space"
    for index, character in enumerate(text):
        kind = _kind(character)
        joins = before != "space" and (
            kind == "mark" or cut == "spaces" or (cut == "words" and kind == before == "word")
        )
        if kind == "space":
            before = kind
            continue
        if joins:
            found[-1] = found[-1][0], index + 1
        else:
            found.append((index, index + 1))
        before = before if joins and kind == "mark" else kind
    return found


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> Literal["space", "word", "mark", "other"]:
    if character.isspace():
        return "space"
    category = unicodedata.category(character)
    if category[0] in "LN" or character == "_":
        return "word"
    return "mark" if category[0] == "M" or category == "Cf" else "other"

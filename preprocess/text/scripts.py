"""Count the characters of texts by Unicode script.

Letters, and the marks and digits that belong to one script, are counted. Characters shared by
several scripts (spaces, punctuation, most digits) are not.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

from preprocess.text.characters import CharacterTable, by_width
from preprocess.text.script_ranges import SCRIPT_RANGES

SCRIPTS = tuple(SCRIPT_RANGES)
"""Names of all scripts as in Unicode's Scripts.txt, without Common and Inherited."""


def script_ranges(script: str) -> Iterator[tuple[int, int]]:
    """Yield the first and last code point of each range of a script."""
    for span in SCRIPT_RANGES[script].split():
        first, _, last = span.partition("-")
        yield int(first, 16), int(last or first, 16)


@cache
def _script_table() -> CharacterTable:
    """Return a table of 1 + the index in ``SCRIPTS`` of each character's script; 0 for none."""
    return CharacterTable(
        (*span, kind)
        for kind, script in enumerate(SCRIPTS, start=1)
        for span in script_ranges(script)
    )


def count_scripts(texts: Sequence[str]) -> Counter[str]:
    """Return how many characters of the texts belong to each script that occurs."""
    narrow, wide = by_width(texts)
    counts: Counter[str] = Counter()
    if narrow:
        data = np.frombuffer("".join([texts[number] for number in narrow]).encode(), np.uint8)
        # Setting this bit lowercases letters; any other byte gives 26 or more, modulo 256.
        letters = (data | np.uint8(0x20)) - np.uint8(ord("a")) < np.uint8(26)
        counts["Latin"] += int(np.count_nonzero(letters))
    if wide:
        kinds = _script_table().kinds("".join([texts[number] for number in wide]))
        totals = np.bincount(kinds, minlength=len(SCRIPTS) + 1).tolist()
        counts.update(dict(zip(SCRIPTS, totals[1:], strict=True)))
    return +counts

"""Kinds of characters that the rules for quality distinguish, as bits of a byte."""

import unicodedata
from functools import cache

import numpy as np

from preprocess.text.characters import CharacterTable
from preprocess.text.scripts import script_ranges

SPACE, LETTER, ALPHANUMERIC, TERMINAL, UNSPACED, QUOTE, UPPER, UNPUNCTUATED = (
    1 << bit for bit in range(8)
)
"""White space; letters; letters, marks and numbers; marks that end a sentence; letters of scripts
without spaces between words; closing quotation marks; capitals; letters of scripts without a full
stop."""

UNSPACED_SCRIPTS = ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
"""Scripts that do not separate words by spaces."""

UNPUNCTUATED_SCRIPTS = ("Thai", "Lao")
"""Scripts in which a space ends a sentence, and no mark."""

QUOTES = "\"'”’»›」』〉》"

# Unicode's property Sentence_Terminal (PropList.txt). Python does not have it.
_TERMINAL_POINTS = (
    "21 2E 3F 589 61D 61E 61F 6D4 700 701 702 7F9 837 839 83D 83E 964 965 104A 104B 1362 1367 1368 "
    "166E 1735 1736 17D4 17D5 1803 1809 1944 1945 1AA8 1AA9 1AAA 1AAB 1B4E 1B4F 1B5A 1B5B 1B5E 1B5F "
    "1B7D 1B7E 1B7F 1C3B 1C3C 1C7E 1C7F 2024 203C 203D 2047 2048 2049 2CF9 2CFA 2CFB 2E2E 2E3C 2E53 "
    "2E54 3002 A4FF A60E A60F A6F3 A6F7 A876 A877 A8CE A8CF A92F A9C8 A9C9 AA5D AA5E AA5F AAF0 AAF1 "
    "ABEB FE12 FE15 FE16 FE52 FE56 FE57 FF01 FF0E FF1F FF61 10A56 10A57 11047 11048 110BE 110BF 110C0 "
    "110C1 11141 11142 11143 111C5 111C6 111CD 111DE 111DF 11238 11239 1123B 1123C 112A9 1144B 1144C "
    "115C2 115C3 11641 11642 1173C 1173D 1173E 16A6E 16A6F 16AF5 16B37 16B38 16B44 16E98 1BC9F 1DA88"
)
TERMINALS = frozenset(chr(int(point, 16)) for point in _TERMINAL_POINTS.split())

_HIGH_PLANES = 0x40000
"""No character of a higher plane has a kind."""


@cache
def letters_of(scripts: tuple[str, ...]) -> frozenset[int]:
    """Return the code points of some scripts."""
    spans = [span for script in scripts for span in script_ranges(script)]
    return frozenset(point for first, last in spans for point in range(first, last + 1))


@cache
def kind_table() -> CharacterTable:
    """Return the table of the kinds, which are sums of the bits of this module."""
    points = range(_HIGH_PLANES)
    categories = [*map(unicodedata.category, map(chr, points))]
    of_category = {name: _kind_of_category(name) for name in set(categories)}
    kinds = np.fromiter(map(of_category.__getitem__, categories), np.uint8, len(points))
    for scripts, kind in ((UNSPACED_SCRIPTS, UNSPACED), (UNPUNCTUATED_SCRIPTS, UNPUNCTUATED)):
        letters = np.fromiter(letters_of(scripts), np.intp)
        letters = letters[letters < len(points)]
        kinds[letters[(kinds[letters] & LETTER) != 0]] |= kind
    for characters, kind in ((TERMINALS, TERMINAL), (QUOTES, QUOTE)):
        kinds[[*map(ord, characters)]] |= kind
    kinds[[point for point in points if chr(point).isspace()]] = SPACE
    begins = np.flatnonzero(np.diff(kinds, prepend=kinds[0] + 1))
    lasts = np.append(begins[1:], len(points)) - 1
    return CharacterTable(zip(begins.tolist(), lasts.tolist(), kinds[begins].tolist(), strict=True))


def _kind_of_category(name: str) -> int:
    """Return the kind of the characters of a category, such as "Lu"."""
    kind = ALPHANUMERIC if name[0] in "LMN" else 0
    kind |= LETTER if name[0] == "L" else 0
    return kind | (UPPER if name in ("Lu", "Lt") else 0)

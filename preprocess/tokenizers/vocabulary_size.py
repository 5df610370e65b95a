"""The number of subwords for a text, if the config does not set it."""

from collections import Counter
from collections.abc import Sequence

PIECES, AT_BYTES, GROWTH = 8000, 4_200_000, 0.65
"""Number of pieces for a text of this size, and the exponent with which it grows (docs/recipes.md)."""
LEAST, MOST = 1000, 32_000
A_CHARACTER = 1.5
"""Least number of pieces per character, because every frequent character has a piece of its own."""
COUNTED_CHARACTERS = 5_000_000
"""Characters of the text that are counted, which is enough to find the frequent ones."""


def pieces_for_bytes(size: float) -> int:
    """Return the number of pieces for a text of this many bytes in UTF-8, rounded to hundreds."""
    pieces: float = PIECES * (max(size, 1.0) / AT_BYTES) ** GROWTH
    return round(min(max(pieces, LEAST), MOST) / 100) * 100


def pieces_for(lines: Sequence[str], coverage: float) -> int:
    """Return the number of pieces for a text; more than `pieces_for_bytes` if it has many characters.

    Args:
        lines: the text.
        coverage: share of characters that have a piece of their own.
    """
    size = sum(len(line.encode()) for line in lines)
    counts: Counter[str] = Counter()
    left = COUNTED_CHARACTERS
    for line in lines:
        counts.update(line[:left])
        left -= len(line)
        if left <= 0:
            break
    uncovered, needed = counts.total() * coverage, 0
    for number in sorted(counts.values(), reverse=True):
        if uncovered <= 0:
            break
        uncovered, needed = uncovered - number, needed + 1
    return max(pieces_for_bytes(size), round(A_CHARACTER * needed / 100) * 100)

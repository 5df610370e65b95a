"""Kinds of characters, looked up for megabytes of text at once.

A lookup in a table of all code points costs a nanosecond or two a character, a regular expression or
a Python loop ten to a hundred times as much.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

CODE_POINTS = 0x110000


class CharacterTable:
    """A small number for every code point: 0 but where ``ranges`` say otherwise."""

    def __init__(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """Fill the table; each of ``ranges`` is (first code point, last, kind 1 to 255)."""
        self._table = np.zeros(CODE_POINTS, np.uint8)
        for first, last, kind in ranges:
            self._table[first : last + 1] = kind
        self.of_bytes = self._table[:256]
        """(256,) the kinds of the first characters, of which ASCII is a part."""
        self._bytes = self.of_bytes.tobytes()

    def kinds(self, text: str) -> npt.NDArray[np.uint8]:
        """(characters,) the kind of each character; the array is the caller's own."""
        if text.isascii():
            return np.frombuffer(bytearray(text.encode().translate(self._bytes)), np.uint8)
        return self._table.take(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<i4"))

    def count(self, texts: Sequence[str], *kinds: int) -> npt.NDArray[np.int64]:
        """(kinds, texts) how many characters of each of ``kinds`` each text holds."""
        counts = np.zeros((len(kinds), len(texts)), np.int64)
        for group in by_width(texts):
            # reduceat would give an empty text the count of its neighbour.
            numbers = [number for number in group if texts[number]]
            if numbers:
                chosen = [texts[number] for number in numbers]
                starts = np.cumsum([0, *map(len, chosen[:-1])])  # (chosen,)
                found = self.kinds("".join(chosen))
                for row, kind in enumerate(kinds):
                    marked = (found == kind).view(np.uint8)
                    counts[row, numbers] = np.add.reduceat(marked, starts, dtype=np.int32)
        return counts


def by_width(texts: Sequence[str]) -> tuple[list[int], list[int]]:
    """The numbers of the texts that are ASCII, and of the others.

    A text joined with others is as wide as its widest character, and ASCII is looked up far faster.
    """
    narrow: list[int] = []
    wide: list[int] = []
    for number, text in enumerate(texts):
        (narrow if text.isascii() else wide).append(number)
    return narrow, wide

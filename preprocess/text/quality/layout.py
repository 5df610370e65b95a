"""Words, lines and paragraphs of a batch of texts, found by array operations.

The rules for quality measure all texts of a batch at once, because a Python call for each word costs
fifty times as much. A *word* is a run of characters without white space. In a script without spaces
between words (`UNSPACED_SCRIPTS`), each letter is a word of its own, with the marks and punctuation
that follow it.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from preprocess.text.characters import by_width
from preprocess.text.quality.character_kinds import (
    ALPHANUMERIC,
    LETTER,
    SPACE,
    UNPUNCTUATED,
    UNSPACED,
    kind_table,
)
from preprocess.text.quality.hashing import Hashes, PieceHashes, by_text, equal_pairs

LAYOUT_CHARACTERS = 1 << 18
"""Texts share a layout until they have this many characters. Larger arrays do not fit into the
processor's cache; smaller ones need more Python calls per character."""

Positions = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_LINE_FEED, _LAST_ASCII, _KELVIN = 0x0A, 0x7F, 0x212A


class Spans:
    """Consecutive pieces of the joined texts, in order.

    Args:
        starts: position of the first character of each piece, shape (pieces,).
        ends: position after its last character, shape (pieces,).
        texts: position of the start of each text, and of the end of the last one, shape (texts + 1,).

    Attributes:
        bounds: index of the first piece of each text, and the number of pieces, shape (texts + 1,).
    """

    def __init__(self, starts: Positions, ends: Positions, texts: Positions) -> None:
        self.starts, self.ends = starts, ends
        self.bounds = np.searchsorted(starts, texts)

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def lengths(self) -> Positions:
        """Characters of each piece, shape (pieces,)."""
        return self.ends - self.starts

    @cached_property
    def numbers(self) -> Positions:
        """Pieces of each text, shape (texts,)."""
        return np.diff(self.bounds)

    @cached_property
    def texts(self) -> Positions:
        """Index of the text of each piece, shape (pieces,)."""
        return np.repeat(np.arange(len(self.numbers)), self.numbers)

    def counts(self, chosen: Mask) -> npt.NDArray[np.int64]:
        """Return the number of chosen pieces of each text, shape (texts,)."""
        return np.diff(np.searchsorted(np.flatnonzero(chosen), self.bounds))

    def sums(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
        """Return the sum of the values of the pieces of each text, shape (texts,)."""
        sums = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, out=sums[1:])
        return sums[self.bounds[1:]] - sums[self.bounds[:-1]]

    def shares(self, chosen: Mask) -> npt.NDArray[np.float64]:
        """Return the share of chosen pieces of each text; 0 without pieces. Shape (texts,)."""
        return ratios(self.counts(chosen), self.numbers)

    def chosen(self, chosen: Mask) -> "Spans":
        """Return some of the pieces."""
        spans = Spans(self.starts[chosen], self.ends[chosen], np.empty(0, np.intp))
        spans.bounds = np.append(0, np.cumsum(chosen))[self.bounds]
        return spans

    def repeats(self, hashes: Hashes) -> Mask:
        """Return which pieces equal an earlier piece of the same text, shape (pieces,)."""
        repeated = np.zeros(len(hashes), bool)
        repeated[equal_pairs(by_text(hashes, self.texts))[0]] = True
        return repeated


class Layout:
    """The structure of texts that are all ASCII, or all wider.

    Args:
        texts: the texts with their line feeds; other line ends count as white space.
        punctuation: if False, all characters but letters, marks and numbers separate words.
    """

    def __init__(self, texts: Sequence[str], punctuation: bool = True) -> None:
        self.text_list = texts
        self._punctuation = punctuation
        joined = "\n".join([*texts, ""])
        encoded = (
            joined.encode() if joined.isascii() else joined.encode("utf-32-le", "surrogatepass")
        )
        self.codes = np.frombuffer(encoded, np.uint8 if joined.isascii() else "<i4")
        self.kinds = kind_table().kinds(joined)
        sizes = np.fromiter(map(len, texts), np.intp, len(texts))
        self.text_starts = np.concatenate([[0], np.cumsum(sizes + 1)]).astype(np.intp)

    @cached_property
    def _spaces(self) -> Mask:
        if self._punctuation:
            spaces: Mask = (self.kinds & SPACE).view(bool)
        else:
            spaces = (self.kinds & ALPHANUMERIC) == 0
        return spaces

    @cached_property
    def _spaced(self) -> Spans:
        """The runs of characters without white space."""
        edges = np.flatnonzero(self._spaces[1:] != self._spaces[:-1]) + 1
        if len(self._spaces) and not self._spaces[0]:
            edges = np.concatenate([[0], edges])
        return Spans(edges[0::2], edges[1::2], self.text_starts)

    @cached_property
    def words(self) -> Spans:
        """The words."""
        unspaced = (self.kinds & UNSPACED) != 0
        if not unspaced.any():
            return self._spaced
        start = unspaced.copy()
        start[1:] |= unspaced[:-1] & ((self.kinds[1:] & LETTER) != 0)
        start[self._spaced.starts] = True
        # A word ends where white space follows it, or the next word.
        end = (start[1:] | self._spaces[1:]) & ~self._spaces[:-1]
        return Spans(np.flatnonzero(start), np.flatnonzero(end) + 1, self.text_starts)

    @cached_property
    def word_kinds(self) -> npt.NDArray[np.uint8]:
        """`LETTER`, if a word has one, and `ALPHANUMERIC`, if it has such a character, shape (words,)."""
        kinds = self.kinds[self.words.starts]
        # A letter is alphanumeric, so the other characters of these words need not be looked at.
        others = np.flatnonzero((kinds & LETTER) == 0)
        if len(others):
            pieces = np.column_stack([self.words.starts[others], self.words.ends[others]])
            kinds[others] = np.bitwise_or.reduceat(self.kinds, pieces.ravel())[::2]
        kinds &= LETTER | ALPHANUMERIC
        return kinds

    @cached_property
    def _pieces(self) -> PieceHashes:
        return PieceHashes(self.codes)

    @cached_property
    def word_hashes(self) -> Hashes:
        """Hash of each word, shape (words,)."""
        return self._pieces.of(self.words.starts, self.words.ends)

    @cached_property
    def _feeds(self) -> Positions:
        """Position of each line feed."""
        return np.flatnonzero(self.codes == _LINE_FEED)

    @cached_property
    def lines(self) -> Spans:
        """The lines without white space at both ends; blank lines are left out."""
        first, last = self._line_words
        starts, ends = self._spaced.starts[first], self._spaced.ends[last]
        return Spans(starts, ends, self.text_starts)

    @cached_property
    def _line_words(self) -> tuple[Positions, Positions]:
        """Index in `_spaced` of the first and the last run of each line that has any."""
        after = np.searchsorted(self._spaced.starts, self._feeds)
        first = np.concatenate([[0], after[:-1]]).astype(np.intp)
        chosen = after > first
        return first[chosen], after[chosen] - 1

    @cached_property
    def paragraphs(self) -> Spans:
        """The runs of lines without a blank line between them."""
        lines = self.lines
        number = np.searchsorted(self._feeds, lines.starts)
        begins = np.ones(len(lines), bool)
        begins[1:] = (np.diff(number) > 1) | (np.diff(lines.texts) > 0)
        last = np.append(begins[1:], True) if len(lines) else begins
        return Spans(lines.starts[begins], lines.ends[last], self.text_starts)

    @cached_property
    def line_hashes(self) -> Hashes:
        """Hash of each line, shape (lines,)."""
        return self._pieces.of(self.lines.starts, self.lines.ends)

    @cached_property
    def paragraph_hashes(self) -> Hashes:
        """Hash of each paragraph, shape (paragraphs,)."""
        return self._pieces.of(self.paragraphs.starts, self.paragraphs.ends)

    @cached_property
    def line_word_counts(self) -> Positions:
        """Words of each line, shape (lines,)."""
        starts = self.words.starts
        return np.searchsorted(starts, self.lines.ends) - np.searchsorted(starts, self.lines.starts)

    @cached_property
    def _lowered(self) -> bytes:
        """The texts in lower case, a byte a character: 0 if that is not ASCII."""
        codes = self.codes.astype(np.uint8)
        if self.codes.itemsize > 1:
            codes[self.codes > _LAST_ASCII] = 0
            # The lower case of the Kelvin sign is "k". Of "\u0130" it is "i" with a combining mark.
            codes[self.codes == _KELVIN] = ord("k")
        return codes.tobytes().lower()

    def lines_with(self, phrases: Sequence[str]) -> Mask:
        """Return which lines have one of the phrases in any case, shape (lines,).

        Args:
            phrases: ASCII text in lower case, without white space at the ends and without a last "i".
        """
        places = []
        for phrase in map(str.encode, phrases):
            place = self._lowered.find(phrase)
            while place >= 0:
                places.append(place)
                place = self._lowered.find(phrase, place + 1)
        return self.lines_at(np.array(places, np.intp))

    def lines_at(self, places: Positions) -> Mask:
        """Return which lines have one of the positions, shape (lines,). No position is white space."""
        found = np.zeros(len(self.lines), bool)
        found[np.searchsorted(self.lines.starts, places, "right") - 1] = True
        return found

    def numbers_at(self, places: Positions) -> npt.NDArray[np.int64]:
        """Return how many of the positions, in rising order, each text has, shape (texts,)."""
        return np.diff(np.searchsorted(places, self.text_starts))

    @cached_property
    def is_unspaced(self) -> Mask:
        """Which texts have most of their letters in scripts without spaces, shape (texts,)."""
        return self.has_mostly(UNSPACED, self.lines)

    @cached_property
    def is_unpunctuated(self) -> Mask:
        """Which texts have most of their letters in scripts without a full stop, shape (texts,)."""
        return self.has_mostly(UNPUNCTUATED, self.lines)

    def has_mostly(self, kind: int, lines: Spans) -> Mask:
        """Return which texts have most of the letters in their lines of a kind, shape (texts,)."""
        if not (self.kinds & kind).any():
            return np.zeros(len(self.text_list), bool)
        return 2 * lines.sums(self.count_in(kind, lines)) > lines.sums(self.count_in(LETTER, lines))

    def count_in(self, kind: int, lines: Spans) -> npt.NDArray[np.int64]:
        """Return the characters of each line that have a kind, shape (lines,)."""
        if not len(lines):
            return np.zeros(0, np.int64)
        edges = np.column_stack([lines.starts, lines.ends]).ravel()
        marked = ((self.kinds & kind) != 0).view(np.uint8)
        return np.add.reduceat(marked, edges, dtype=np.int32)[::2].astype(np.int64)

    @cached_property
    def alphanumeric_words(self) -> Mask:
        """Which words have a letter, a mark or a number, shape (words,)."""
        marked: Mask = (self.word_kinds & ALPHANUMERIC) != 0
        return marked

    def line(self, index: int) -> str:
        """Return the line with this index."""
        text = int(self.lines.texts[index])
        offset = int(self.text_starts[text])
        start, end = int(self.lines.starts[index]), int(self.lines.ends[index])
        return self.text_list[text][start - offset : end - offset]

    def lines_of(self, text: int, chosen: Positions) -> Iterator[str]:
        """Yield the lines of a text that have these indexes."""
        content, offset = self.text_list[text], self.text_starts[text]
        starts = (self.lines.starts[chosen] - offset).tolist()
        ends = (self.lines.ends[chosen] - offset).tolist()
        return (content[start:end] for start, end in zip(starts, ends, strict=True))


def layouts_of(
    texts: Sequence[str], punctuation: bool = True
) -> Iterator[tuple[list[int], Layout]]:
    """Yield indexes of some ASCII texts with their layout, until none is left, then of other texts."""
    for group in by_width(texts):
        begin = characters = 0
        for end, number in enumerate(group, 1):
            characters += len(texts[number])
            if characters >= LAYOUT_CHARACTERS or end == len(group):
                chosen = group[begin:end]
                yield chosen, Layout([texts[index] for index in chosen], punctuation)
                begin, characters = end, 0


def ratios(
    parts: npt.NDArray[np.generic], wholes: npt.NDArray[np.generic]
) -> npt.NDArray[np.float64]:
    """Return parts / wholes; 0 where the whole is 0."""
    quotients = np.zeros(len(parts))
    np.divide(parts, wholes, out=quotients, where=wholes != 0)
    return quotients

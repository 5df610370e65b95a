"""Cleaning of texts, the same in training and embedding.

Most texts need no cleaning. So a batch is searched in one array operation for characters that
cleaning could change, and only the texts that contain one are processed by a Python call each.
"""

import re
import unicodedata
from collections import Counter

import numpy as np
import numpy.typing as npt

from preprocess.text.characters import CharacterTable, by_width
from preprocess.text.config import CleaningConfig

_SURROGATES = ((0xD800, 0xDFFF),)
# Category Cc without its whitespace (tab, line ends, separators). U+FEFF is the only format
# character removed: joiners and direction marks have meaning in Indic, Persian and emoji text.
_CONTROL = (
    *((0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F)),
    *_SURROGATES,
    (0xFEFF, 0xFEFF),
)
# All whitespace but U+0020; U+3000 is the last whitespace character of Unicode.
_OTHER_SPACES = tuple(c for c in map(chr, range(0x3001)) if c.isspace() and c != " ")

_SPACE, _OTHER_SPACE, _UNWANTED = range(1, 4)
_SPACE_BYTE, _DELETE_BYTE = 0x20, 0x7F

_Positions = npt.NDArray[np.intp]
_Marks = tuple[_Positions, _Positions, npt.NDArray[np.bool_]]


class Cleaner:
    """Removes control characters, then normalises Unicode, then collapses whitespace.

    Cleaning is idempotent because of this order: a control character may separate a letter from its
    accent, and NFKC may produce spaces. A cleaned text can always be encoded as UTF-8, because lone
    surrogates are removed, or replaced with U+FFFD if control characters are kept.

    Args:
        config: which of the steps are done; ``invalid_bytes`` is not used here.

    Attributes:
        counts: number of texts that each step has changed so far; the steps are control_characters,
            unicode and whitespace.
    """

    def __init__(self, config: CleaningConfig) -> None:
        remove = config.control_characters == "remove"
        unwanted, self._replacement = (_CONTROL, "") if remove else (_SURROGATES, "\ufffd")
        ranges = "".join(f"{chr(first)}-{chr(last)}" for first, last in unwanted)
        self._unwanted = re.compile(f"[{ranges}]")
        self._table = CharacterTable(
            [
                (ord(" "), ord(" "), _SPACE),
                *((ord(c), ord(c), _OTHER_SPACE) for c in _OTHER_SPACES),
                *((first, last, _UNWANTED) for first, last in unwanted),
            ]
        )
        self._form = None if config.unicode == "none" else config.unicode
        self._collapse = config.whitespace == "collapse"
        self.counts: Counter[str] = Counter()

    def clean_batch(self, texts: list[str]) -> list[str]:
        """Return the cleaned texts in the same order, and add to ``counts``."""
        cleaned = texts.copy()
        narrow, wide = by_width(texts)
        unwanted, untidy = self._find(texts, narrow)
        more_unwanted, more_untidy = self._find(texts, wide)
        for index in unwanted + more_unwanted:
            cleaned[index] = self._unwanted.sub(self._replacement, texts[index])
        # Removing control characters may bring spaces together.
        unclean = {*unwanted, *more_unwanted, *untidy, *more_untidy}
        for index in wide:
            text = self._normalize(cleaned[index])
            if text is not cleaned[index]:
                cleaned[index] = text
                unclean.add(index)
                self.counts["unicode"] += 1
        self.counts["control_characters"] += len(unwanted) + len(more_unwanted)
        if self._collapse:
            for index in unclean:
                text = " ".join(cleaned[index].split())
                self.counts["whitespace"] += text != cleaned[index]
                cleaned[index] = text
        return cleaned

    def _normalize(self, text: str) -> str:
        """Return the text in the configured normal form; the same object if nothing changes."""
        # Ordered by cost: both checks are much cheaper than the normalisation.
        if not self._form or text.isascii() or unicodedata.is_normalized(self._form, text):
            return text
        return unicodedata.normalize(self._form, text)

    def _find(self, texts: list[str], indexes: list[int]) -> tuple[list[int], list[int]]:
        """Find the texts that removal or whitespace collapsing may change.

        Args:
            texts: the batch.
            indexes: indexes of the texts to search, either ASCII texts only or other texts only, so
                that joining them does not widen ASCII strings.

        Returns:
            Indexes of texts with unwanted characters, and of texts with whitespace to collapse.
        """
        if not indexes:
            return [], []
        chosen = [texts[index] for index in indexes]
        joined = "\n".join(("", *chosen, ""))
        lengths = np.fromiter(map(len, chosen), np.int64, len(chosen))
        ends = np.concatenate([[0], np.cumsum(lengths + 1)])  # (texts + 1,)
        marks = self._classify_ascii(joined, ends) or self._classify(joined, ends)
        unwanted, other_spaces, space = marks
        if not self._collapse:
            return _texts_at(unwanted, ends, indexes), []
        edge = space.copy()
        edge[ends] = True
        # A space beside another space, or at either end of a text.
        untidy = np.flatnonzero((space[1:] & edge[:-1]) | (space[:-1] & edge[1:])) + 1
        return _texts_at(unwanted, ends, indexes), _texts_at(
            np.concatenate([untidy, other_spaces]), ends, indexes
        )

    def _classify(self, joined: str, ends: _Positions) -> _Marks:
        """Find unwanted characters and spaces.

        Args:
            joined: the texts, each between two line feeds.
            ends: positions of these line feeds, which are ignored.

        Returns:
            Positions of unwanted characters, positions of whitespace other than U+0020, and a mask
            of U+0020, shape (characters,).
        """
        kinds = self._table.kinds(joined)
        kinds[ends] = 0
        other_spaces = np.flatnonzero(kinds == _OTHER_SPACE)
        return np.flatnonzero(kinds == _UNWANTED), other_spaces, kinds == _SPACE

    def _classify_ascii(self, joined: str, ends: _Positions) -> _Marks | None:
        """`_classify` for ASCII, by comparisons instead of slower lookups; None for other text."""
        if not joined.isascii():
            return None
        data = np.frombuffer(joined.encode(), np.uint8)
        marked = (data < _SPACE_BYTE) | (data == _DELETE_BYTE)
        marked[ends] = False
        positions = np.flatnonzero(marked)
        kinds = self._table.of_bytes[data[positions]]
        return positions[kinds == _UNWANTED], positions[kinds == _OTHER_SPACE], data == _SPACE_BYTE


def _texts_at(positions: _Positions, ends: _Positions, indexes: list[int]) -> list[int]:
    """Return the indexes of the texts that contain any of the positions."""
    rows = np.unique(np.searchsorted(ends, positions) - 1)
    return [indexes[row] for row in rows.tolist()]

"""Cleaning of a document's text, the same for training and for embedding.

A whole batch is searched at once for characters that cleaning could change, since most text of most
corpora needs nothing: a Python call a document is made only where one was found.
"""

import re
import unicodedata
from collections import Counter

import numpy as np
import numpy.typing as npt

from preprocess.text.characters import CharacterTable, by_width
from preprocess.text.config import CleaningConfig

# Tab, line ends and separators are category Cc too, but whitespace. U+FEFF is the one format
# character removed: joiners and direction marks carry meaning in Indic, Persian and emoji text.
_SURROGATES = ((0xD800, 0xDFFF),)
_CONTROL = (
    *((0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F)),
    *_SURROGATES,
    (0xFEFF, 0xFEFF),
)
# U+3000 is the last character of Unicode that is whitespace.
_ODD_SPACES = tuple(c for c in map(chr, range(0x3001)) if c.isspace() and c != " ")

_SPACE, _ODD_SPACE, _UNWANTED = range(1, 4)
_SPACE_BYTE, _DELETE_BYTE = 0x20, 0x7F

_Places = npt.NDArray[np.intp]


class Cleaner:
    """Removes control characters, then normalises Unicode, then collapses whitespace.

    Cleaning what is clean changes nothing. The order is part of that: a control character may stand
    between a letter and its accent, and NFKC makes spaces. What comes out can always be encoded:
    where control characters are kept, a lone surrogate becomes U+FFFD.
    """

    def __init__(self, config: CleaningConfig) -> None:
        remove = config.control_characters == "remove"
        unwanted, self._instead = (_CONTROL, "") if remove else (_SURROGATES, "\ufffd")
        ranges = "".join(f"{chr(first)}-{chr(last)}" for first, last in unwanted)
        self._unwanted = re.compile(f"[{ranges}]")
        self._table = CharacterTable(
            [
                (ord(" "), ord(" "), _SPACE),
                *((ord(c), ord(c), _ODD_SPACE) for c in _ODD_SPACES),
                *((first, last, _UNWANTED) for first, last in unwanted),
            ]
        )
        self._form = None if config.unicode == "none" else config.unicode
        self._collapse = config.whitespace == "collapse"
        self.counts: Counter[str] = Counter()
        """Documents that `clean_batch` changed, by step: control_characters, unicode, whitespace."""

    def clean_batch(self, texts: list[str]) -> list[str]:
        """Return the cleaned texts, as they are hashed and tokenised, and count what was changed."""
        cleaned = texts.copy()
        narrow, wide = by_width(texts)
        unwanted, untidy = self._find(texts, narrow)
        more_unwanted, more_untidy = self._find(texts, wide)
        for number in unwanted + more_unwanted:
            cleaned[number] = self._unwanted.sub(self._instead, texts[number])
        # Control characters parted spaces and letters from their accents.
        unclean = {*unwanted, *more_unwanted, *untidy, *more_untidy}
        for number in wide:
            text = self._normalize(cleaned[number])
            if text is not cleaned[number]:
                cleaned[number] = text
                unclean.add(number)
                self.counts["unicode"] += 1
        self.counts["control_characters"] += len(unwanted) + len(more_unwanted)
        if self._collapse:
            for number in unclean:
                text = " ".join(cleaned[number].split())
                self.counts["whitespace"] += text != cleaned[number]
                cleaned[number] = text
        return cleaned

    def _normalize(self, text: str) -> str:
        """The text in the form wanted; the very same object where it is so already."""
        # Both tests are far cheaper than the normalisation, the first than the second.
        if not self._form or text.isascii() or unicodedata.is_normalized(self._form, text):
            return text
        return unicodedata.normalize(self._form, text)

    def _find(self, texts: list[str], numbers: list[int]) -> tuple[list[int], list[int]]:
        """Of the texts so numbered, those with unwanted characters, and those with untidy spaces.

        All of them are ASCII, or none: a single wide character would widen the others' too.
        """
        if not numbers:
            return [], []
        chosen = [texts[number] for number in numbers]
        joined = "\n".join(("", *chosen, ""))
        lengths = np.fromiter(map(len, chosen), np.int64, len(chosen))
        ends = np.concatenate([[0], np.cumsum(lengths + 1)])  # (texts + 1,)
        unwanted, odd, space = self._ascii_marks(joined, ends) or self._marks(joined, ends)
        if not self._collapse:
            return _texts_at(unwanted, ends, numbers), []
        edge = space.copy()
        edge[ends] = True
        # A space beside a space or an end.
        untidy = np.flatnonzero((space[1:] & edge[:-1]) | (space[:-1] & edge[1:])) + 1
        return _texts_at(unwanted, ends, numbers), _texts_at(
            np.concatenate([untidy, odd]), ends, numbers
        )

    def _marks(self, joined: str, ends: _Places) -> tuple[_Places, _Places, npt.NDArray[np.bool_]]:
        """Places of unwanted characters and of odd spaces, and (characters,) whether it is a space."""
        kinds = self._table.kinds(joined)
        kinds[ends] = 0
        odd = np.flatnonzero(kinds == _ODD_SPACE)
        return np.flatnonzero(kinds == _UNWANTED), odd, kinds == _SPACE

    def _ascii_marks(
        self, joined: str, ends: _Places
    ) -> tuple[_Places, _Places, npt.NDArray[np.bool_]] | None:
        """`_marks` of text in ASCII, where comparing costs far less than looking up; else none."""
        if not joined.isascii():
            return None
        data = np.frombuffer(joined.encode(), np.uint8)
        marked = (data < _SPACE_BYTE) | (data == _DELETE_BYTE)
        marked[ends] = False
        places = np.flatnonzero(marked)
        kinds = self._table.of_bytes[data[places]]
        return places[kinds == _UNWANTED], places[kinds == _ODD_SPACE], data == _SPACE_BYTE


def _texts_at(places: _Places, ends: _Places, numbers: list[int]) -> list[int]:
    """The numbers of the texts that hold any of ``places``."""
    rows = np.unique(np.searchsorted(ends, places) - 1)
    return [numbers[row] for row in rows.tolist()]

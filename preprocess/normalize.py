"""Cleaning of a document's text, the same for training and for embedding.

A whole batch is tested and cleaned at once where that is cheaper than a Python call a text: most
text of most corpora needs nothing.
"""

import re
import unicodedata

from preprocess.config import CleaningConfig

# Tab, line ends and separators are category Cc too, but whitespace. U+FEFF is the one format
# character removed: joiners and direction marks carry meaning in Indic, Persian and emoji text.
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff]")
_ASCII_CONTROL = bytes(range(0x09)) + bytes(range(0x0E, 0x1C)) + b"\x7f"
# U+3000 is the last character of Unicode that is whitespace.
_ODD_SPACES = tuple(c for c in map(chr, range(0x3001)) if c.isspace() and c not in " \n")


class Cleaner:
    """Removes control characters, then normalises Unicode, then collapses whitespace.

    Cleaning what is clean changes nothing. The order is part of that: a control character may stand
    between a letter and its accent, and NFKC makes spaces.
    """

    def __init__(self, config: CleaningConfig) -> None:
        self._remove_control = config.control_characters == "remove"
        self._form = None if config.unicode == "none" else config.unicode
        self._collapse = config.whitespace == "collapse"

    def clean(self, text: str) -> str:
        """The text as it is hashed and tokenised."""
        if self._remove_control:
            text = _CONTROL.sub("", text)
        text = self._normalize(text)
        return " ".join(text.split()) if self._collapse else text

    def clean_batch(self, texts: list[str]) -> list[str]:
        """``[self.clean(text) for text in texts]``, faster."""
        if self._collapse:
            texts = [text.replace("\n", " ") if "\n" in text else text for text in texts]
        joined = "\n".join(texts)
        if joined.count("\n") != len(texts) - 1:
            return [self.clean(text) for text in texts]
        if self._remove_control and _has_control(joined):
            joined = _CONTROL.sub("", joined)
        if self._form and not joined.isascii():
            joined = "\n".join([self._normalize(text) for text in joined.split("\n")])
        return _collapse_lines(joined) if self._collapse else joined.split("\n")

    def _normalize(self, text: str) -> str:
        # Both tests are far cheaper than the normalisation, the first than the second.
        if not self._form or text.isascii() or unicodedata.is_normalized(self._form, text):
            return text
        return unicodedata.normalize(self._form, text)


def _has_control(text: str) -> bool:
    if text.isascii():
        return len(text.encode().translate(None, _ASCII_CONTROL)) != len(text)
    return _CONTROL.search(text) is not None


def _collapse_lines(text: str) -> list[str]:
    """The lines of a text, each with runs of whitespace as one space and none at its ends."""
    for space in _ODD_SPACES:
        text = text.replace(space, " ")
    return [
        " ".join(line.split()) if "  " in line else line.strip(" ") for line in text.split("\n")
    ]

"""Spellings of the tokens of a ``tokenizer.json``, in the form that all tokenizers of biloom share.

A subword that begins a word starts with U+2581, and a byte that is not a character of its own is spelt as
<0xE7>. Of the forms that models of the library ``tokenizers`` use, two are different:

- Byte-level models (GPT-2) spell each byte as one character, such as Ġ for a space.
- WordPiece (BERT) marks with ## the subwords that do not begin a word.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from preprocess.tokenizers.space_marks import SPACE_MARK

KEPT = 1 << 16
"""Spellings that are kept in memory: about 6 MB."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def _characters_of_bytes() -> Iterator[tuple[str, int]]:
    """Yield the character that spells each byte: `bytes_to_unicode` of GPT-2's encoder.

    Printable characters of Latin-1 spell themselves, and the other bytes the characters from U+0100 on.
    """
    other = 0x100
    for byte in range(256):
        if 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or 0xAE <= byte <= 0xFF:
            yield chr(byte), byte
        else:
            yield chr(other), byte
            other += 1


BYTES = dict(_characters_of_bytes())


class FileSpellings:
    """Spells the tokens of a ``tokenizer.json`` by their ids in the file.

    Args:
        tokenizer: the `tokenizers.Tokenizer`.
        settings: the content of the file.

    Attributes:
        of: returns the spelling of a token; that of an id that the file leaves out is like ``<unused7>``.
    """

    def __init__(self, tokenizer: Any, settings: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._added = set(tokenizer.get_added_tokens_decoder())
        self._is_byte_level = _has_byte_level(
            [settings.get("pre_tokenizer"), settings.get("normalizer")]
        )
        self._falls_back = settings["model"].get("byte_fallback") is True
        self.of = lru_cache(maxsize=KEPT)(self._of)
        self._prefix = settings["model"].get("continuing_subword_prefix") or ""

    def _of(self, token: int) -> str:
        found = self._tokenizer.id_to_token(token)
        if found is None:
            return f"<unused{token}>"
        if token in self._added:
            return str(found)
        if self._is_byte_level:
            return _of_bytes(found)
        if self._prefix and not found.startswith(self._prefix):
            return f"{SPACE_MARK}{found}"
        return str(found).removeprefix(self._prefix)

    def unknown(self, text: str) -> str:
        """Return the spelling of an unknown token that covers this part of a text."""
        spelt = text.replace(" ", SPACE_MARK)
        return f"{SPACE_MARK}{spelt}" if self._prefix else spelt

    def is_text(self, token: int) -> bool:
        """Return True if a token is whole characters, and none that the file adds to the vocabulary."""
        is_used = token not in self._added and self._tokenizer.id_to_token(token) is not None
        return is_used and not _BYTE.search(self.of(token))

    def is_byte(self, token: int) -> bool:
        """Return True if a token is one byte that is not a character of its own."""
        has_bytes = self._falls_back or (self._is_byte_level and token not in self._added)
        return has_bytes and bool(_BYTE.fullmatch(self.of(token)))


def _of_bytes(found: str) -> str:
    """Return the spelling of a token of a byte-level model."""
    data = bytes(BYTES[character] for character in found if character in BYTES)
    text = data.decode("utf-8", "surrogateescape")
    # A space is spelt as U+2581, so U+2581 itself is spelt by its bytes.
    text = text.replace(SPACE_MARK, "".join(f"<0x{byte:02X}>" for byte in SPACE_MARK.encode()))
    text = text.replace(" ", SPACE_MARK)
    if text.isascii():
        return text
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def _has_byte_level(settings: Any) -> bool:
    """Return True if a part of the settings is of type "ByteLevel"."""
    if isinstance(settings, Mapping):
        return settings.get("type") == "ByteLevel" or _has_byte_level([*settings.values()])
    return isinstance(settings, list) and any(map(_has_byte_level, settings))

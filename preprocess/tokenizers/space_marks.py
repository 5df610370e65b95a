r"""U+2581 in texts that a SentencePiece model encodes.

SentencePiece replaces each space by U+2581 before it encodes a text, so it encodes a U+2581 of the text
as a space, too. `SpaceMarks` encodes such a character as the three byte pieces of its UTF-8 form
instead, as SentencePiece does with every character without a piece. It replaces U+2581 by a stand-in
character without a piece, and then replaces the ids of the stand-in's bytes. The model must have byte
pieces.
"""

import re
from itertools import chain
from typing import Any

import numpy as np

from preprocess.tokenizers.base import Ids, TokenizerError

SPACE_MARK = "\u2581"
"""The character by which SentencePiece spells a space."""

# Characters of three bytes in UTF-8, like U+2581: first those that texts do not use.
_STAND_INS = (range(0xFDD0, 0xFDF0), range(0xE000, 0xF900), range(0x800, 0xD800))


class SpaceMarks:
    """Encodes U+2581 of a text as bytes.

    Args:
        processor: the SentencePieceProcessor.

    Raises:
        TokenizerError: the model has no byte pieces.
    """

    def __init__(self, processor: Any) -> None:
        pieces = map(processor.id_to_piece, range(processor.get_piece_size()))
        used = set(chain.from_iterable(pieces))
        self._stand_in = next(c for c in map(chr, chain(*_STAND_INS)) if c not in used)
        self._any = re.compile(f"[{SPACE_MARK}{self._stand_in}]")
        self._replaced, self._by = (_bytes(processor, c) for c in (self._stand_in, SPACE_MARK))

    def hidden(self, text: str) -> str:
        """Return the text to encode, with the stand-in instead of U+2581; of the same length."""
        return text.replace(SPACE_MARK, self._stand_in)

    def restored(self, ids: Ids, text: str) -> Ids:
        """Return the ids of a text, given the ids of its hidden form; both are numbered by the model.

        Args:
            ids: ids of ``hidden(text)``.
            text: the text.
        """
        if SPACE_MARK not in text:
            return ids
        first, second, third = self._replaced
        # A text may contain the stand-in, too. UTF-8 is self-synchronising, so the bytes are found
        # nowhere else, and their order is that of the characters.
        at = np.flatnonzero((ids[:-2] == first) & (ids[1:-1] == second) & (ids[2:] == third))
        at = at[[found == SPACE_MARK for found in self._any.findall(text)]]
        ids = ids.copy()
        for offset, token in enumerate(self._by):
            ids[at + offset] = token
        return ids


def _bytes(processor: Any, character: str) -> list[int]:
    """Return the ids of the byte pieces of a character."""
    ids = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in character.encode()]
    if not all(map(processor.is_byte, ids)):
        raise TokenizerError("the model has no byte pieces, which U+2581 needs")
    return ids

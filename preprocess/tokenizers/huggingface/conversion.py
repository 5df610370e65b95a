"""Tokenizers as a ``tokenizer.json``, which the library ``tokenizers`` reads, and other programs do.

A converted tokenizer gives the ids of the original one for every cleaned text, so a tokenizer is converted
only if its steps can be expressed in the file:

- Words: a split at Python's whitespace, then a lookup. Other programs count other characters as whitespace,
  so the file lists them.
- SentencePiece (unigram, BPE or characters) without a normaliser of its own. SentencePiece replaces each
  space by U+2581 before it encodes. The converted pieces hold the space itself, so that U+2581 of a text
  stays another character.
- A ``tokenizer.json``: unchanged, except for three settings that biloom does not use.

The control tokens <s> and </s> have no id in the file, or a spelling that cleaned text does not have, so that
no text is encoded as them.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from preprocess.tokenizers.base import CONTROLS, UNKNOWN
from preprocess.tokenizers.huggingface.tokenizer import HuggingFaceTokenizer
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.space_marks import SPACE_MARK
from preprocess.tokenizers.subwords import (
    NORMALISER,
    PIECES,
    TRAINER,
    SentencePieceTokenizer,
    fields_of,
)
from preprocess.tokenizers.words import WordTokenizer

WHITESPACE = "".join(c for c in map(chr, range(0x3001)) if c.isspace())
"""The whitespace at which Python's `str.split` splits; U+3000 is the last whitespace of Unicode."""

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # types of pieces
_MODELS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_HIDDEN = "\0"
"""Begins the spelling of a control token. Cleaning removes this character."""


class Converted(NamedTuple):
    """A tokenizer as another program reads it.

    Attributes:
        kind: "word", "unigram", "bpe", "char" or "huggingface"; empty if it cannot be converted.
        file: the bytes of the ``tokenizer.json``; empty if it cannot be converted.
        moved_ids: id in the file -> id of biloom, for ids that differ.
        reason: why it cannot be converted; empty if it is.
    """

    kind: str
    file: bytes
    moved_ids: Mapping[int, int]
    reason: str = ""


class _Unconvertible(Exception):  # noqa: N818
    """The reason why a tokenizer cannot be converted."""


def converted(tokenizer: Tokenizer) -> Converted:
    """Return a tokenizer as a ``tokenizer.json`` that gives the same ids, or why there is none."""
    moved: dict[int, int] = {}
    try:
        if isinstance(tokenizer, HuggingFaceTokenizer):
            kind, settings = tokenizer.kind, _own_file(tokenizer)
            ours = np.arange(tokenizer.vocabulary, dtype=np.int32)
            pairs = zip(tokenizer.file_ids(ours).tolist(), ours.tolist(), strict=True)
            moved = {theirs: our for theirs, our in pairs if theirs not in (our, -1)}
        elif isinstance(tokenizer, WordTokenizer):
            kind, settings = tokenizer.kind, _words(tokenizer)
        else:
            assert isinstance(tokenizer, SentencePieceTokenizer)
            kind, settings = _pieces(tokenizer)
    except _Unconvertible as error:
        return Converted("", b"", {}, str(error))
    file = json.dumps(settings, ensure_ascii=False).encode()
    return Converted(kind, file, moved)


def _file(
    model: Mapping[str, Any], normalizers: list[dict[str, Any]], split: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": split,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }


def _own_file(tokenizer: HuggingFaceTokenizer) -> dict[str, Any]:
    """Return the settings of the file without those that have no effect in biloom."""
    settings: dict[str, Any] = json.loads(tokenizer.file)
    return settings | {"truncation": None, "padding": None, "post_processor": None}


def _words(tokenizer: WordTokenizer) -> dict[str, Any]:
    ids = range(len(CONTROLS), tokenizer.vocabulary)
    vocabulary = {tokenizer.spelling(token): token for token in ids}
    unknown = CONTROLS[UNKNOWN]
    if unknown in vocabulary:
        unknown += " "  # is no word
    model = {"type": "WordLevel", "vocab": {unknown: UNKNOWN, **vocabulary}, "unk_token": unknown}
    pattern = {"Regex": f"[{WHITESPACE}]+"}
    split = {"type": "Split", "pattern": pattern, "behavior": "Removed", "invert": False}
    return _file(model, [], split)


class _Piece(NamedTuple):
    spelling: str
    score: float
    type: int


def _pieces(tokenizer: SentencePieceTokenizer) -> tuple[str, dict[str, Any]]:
    """Return the kind of a SentencePiece model and the settings of its file."""
    kind = _check_settings(tokenizer)
    messages = [value for number, value in fields_of(tokenizer.model) if number == PIECES]
    of_model = [_piece(message) for message in messages if isinstance(message, bytes)]
    if any(piece.type not in (_NORMAL, _UNKNOWN, _CONTROL, _BYTE) for piece in of_model):
        raise _Unconvertible("it has user-defined or unused pieces")
    # A control token that the model lacks is a piece that no text has.
    pieces = [
        of_model[theirs] if theirs >= 0 else _Piece(_HIDDEN + CONTROLS[ours], 0, _CONTROL)
        for ours, theirs in enumerate(tokenizer.model_ids().tolist())
    ]
    spellings = [piece.spelling for piece in pieces]
    if len({*spellings}) < len(spellings):
        raise _Unconvertible("two of its pieces have the same spelling")
    split = None
    if kind == "unigram":
        model = _unigram(pieces)
        split = _byte_split(pieces) if tokenizer.has_bytes else None
    else:
        model = _bpe(pieces, merges=kind == "bpe")
    model["byte_fallback"] = tokenizer.has_bytes
    normalizers: list[dict[str, Any]] = [{"type": "Prepend", "prepend": " "}]
    if not tokenizer.keeps_marks:
        replace = {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}
        normalizers.append(replace)
    return kind, _file(model, normalizers, split)


def _check_settings(tokenizer: SentencePieceTokenizer) -> str:
    """Return the kind of a SentencePiece model.

    Raises:
        _Unconvertible: its settings are not those of a model that is trained by biloom.
    """
    fields = dict(fields_of(tokenizer.model))
    trainer, normaliser = (_settings(fields.get(number)) for number in (TRAINER, NORMALISER))
    kind = _MODELS[trainer.get(3, 1)]
    if kind == "word":
        raise _Unconvertible("it is a SentencePiece model of words")
    # The numbers of the fields, and their defaults, are those of sentencepiece_model.proto.
    has_rules = bool(normaliser.get(2))
    adds_prefix, removes_spaces, escapes = (normaliser.get(number, 1) for number in (3, 4, 5))
    is_suffix = trainer.get(24, 0)
    if has_rules or not adds_prefix or removes_spaces or not escapes or is_suffix:
        raise _Unconvertible("its SentencePiece model has a normaliser of its own")
    return kind


def _settings(message: int | bytes | None) -> dict[int, Any]:
    return dict(fields_of(message)) if isinstance(message, bytes) else {}


def _piece(message: bytes) -> _Piece:
    fields: dict[int, Any] = dict(fields_of(message))
    (score,) = struct.unpack("<f", fields.get(2, b"\0\0\0\0"))
    kind = fields.get(3, _NORMAL)
    spelling = fields.get(1, b"").decode().replace(SPACE_MARK, " ")
    return _Piece(_HIDDEN + spelling if kind in (_UNKNOWN, _CONTROL) else spelling, score, kind)


def _unigram(pieces: list[_Piece]) -> dict[str, Any]:
    normal = {piece.spelling: piece.score for piece in pieces if piece.type == _NORMAL}
    inside = {character for spelling in normal for character in spelling}
    if not inside <= normal.keys():
        raise _Unconvertible("some of its characters are part of pieces, but are no pieces")
    # SentencePiece never takes a text such as "<0x41>" for the piece of a byte. Here it could, but the piece
    # costs more than its characters, if they are pieces; otherwise, `_byte_split` divides it.
    least = 20 * min([*normal.values(), -10.0])
    vocabulary = [[piece.spelling, normal.get(piece.spelling, least)] for piece in pieces]
    return {"type": "Unigram", "unk_id": UNKNOWN, "vocab": vocabulary}


def _byte_split(pieces: list[_Piece]) -> dict[str, Any] | None:
    """Return a pre-tokenizer that divides the spelling of a byte in a text, if a unigram model needs it.

    It isolates characters without a piece, which are encoded alone anyway.
    """
    normal = {piece.spelling for piece in pieces if piece.type == _NORMAL}
    digit = "[0-9A-F]"
    # characters of "<0x41>", with the text before and after them
    places = (
        ("<", "", f"0x{digit}{digit}>"),
        ("0", "<", f"x{digit}{digit}>"),
        ("x", "<0", f"{digit}{digit}>"),
        ("0123456789ABCDEF", "<0x", f"{digit}>"),
        ("0123456789ABCDEF", f"<0x{digit}", ">"),
        (">", f"<0x{digit}{digit}", ""),
    )
    parts = []
    for characters, before, after in places:
        if missing := "".join(sorted({*characters} - normal)):
            parts.append(f"(?<={before})[{missing}](?={after})")
    if not parts:
        return None
    pattern = {"Regex": "|".join(parts)}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def _bpe(pieces: list[_Piece], merges: bool) -> dict[str, Any]:
    ids = {piece.spelling: number for number, piece in enumerate(pieces)}
    normal = {piece.spelling: piece.score for piece in pieces if piece.type == _NORMAL}
    pairs = []
    for spelling, score in normal.items() if merges else ():
        for cut in range(1, len(spelling)):
            before, after = spelling[:cut], spelling[cut:]
            if before in normal and after in normal:
                pairs.append((-score, before, after))
    # SentencePiece merges the pair whose piece has the highest score.
    pairs.sort(key=lambda pair: pair[0])
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": pieces[UNKNOWN].spelling,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,  # as SentencePiece does
        "ignore_merges": False,
        "vocab": ids,
        "merges": [[before, after] for _, before, after in pairs],
    }

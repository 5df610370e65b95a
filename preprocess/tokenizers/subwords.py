"""SentencePiece tokenizers: trained here (unigram, BPE or characters), or an existing model.

An existing model keeps its normaliser and the order of its pieces. Only its control ids move:
`UNKNOWN`, `BOS` and `EOS` are 0, 1 and 2 here, and the other pieces follow in the model's order. So
T5's model (pad 0, </s> 1, <unk> 2, no <s>) can be used as well as LLaMA's. It also keeps SentencePiece's
own treatment of U+2581, which it encodes as a space. A model that is trained here encodes U+2581 as
bytes (`space_marks`); models of version 0.1 do not, so that the ids of a text stay the same.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.config import CharConfig, SentencePieceConfig
from preprocess.files.storage import join, read_bytes, write_bytes
from preprocess.tokenizers.base import BOS, CONTROLS, EOS, UNKNOWN, Ids, Token, TokenizerError
from preprocess.tokenizers.kind_file import save_kind
from preprocess.tokenizers.space_marks import SPACE_MARK, SpaceMarks

TRAINER_THREADS = 4
"""Fixed, because the pieces of a unigram model depend on the number of threads."""

SENTENCE_BYTES = 16_384
"""Longer texts are split, at whitespace if possible, because SentencePiece's trainer skips them."""

CHARACTERS = 0x110000
"""Vocabulary size of a `char` model: all of Unicode, so that only the text limits it."""

PIECES, TRAINER, NORMALISER = 1, 2, 3
"""Numbers of the fields of a model file: a message per piece, and those with the settings."""

MODEL = "tokenizer.model"
BYTES = "bytes"
"""Value of "space_marks" in tokenizer.json, if U+2581 is encoded as bytes."""

_LONGEST = SENTENCE_BYTES // 4  # a character is four bytes at most
_SENTENCE = re.compile(rf"\S(?:.{{0,{_LONGEST - 2}}}\S)?(?!\S)|\S{{{_LONGEST}}}", re.DOTALL)


class SentencePieceTokenizer:
    """A `Tokenizer` around a SentencePiece model.

    Args:
        model: the bytes of the ``.model`` file.
        kind: "sentencepiece" or "char".
        keeps_marks: encode U+2581 of a text as bytes, instead of as a space.

    Raises:
        TokenizerError: ``model`` is not a SentencePiece model, or has no byte pieces for U+2581.
    """

    def __init__(
        self, model: bytes, kind: str = "sentencepiece", keeps_marks: bool = False
    ) -> None:
        import sentencepiece

        self.kind = kind
        self._model = model
        try:
            if not model:
                raise RuntimeError("it is empty")
            if model.lstrip().startswith(b"{"):
                raise RuntimeError(
                    "it is JSON; if it is a tokenizer.json of Hugging Face, set tokenizer.kind=huggingface"
                )
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            # Fail now if a piece is not UTF-8, and not when a text contains it.
            for piece in range(self._processor.get_piece_size()):
                self._processor.id_to_piece(piece)
        except (RuntimeError, UnicodeDecodeError) as error:
            raise TokenizerError(f"not a SentencePiece model ({_reason(error)})") from error
        self._marks = SpaceMarks(self._processor) if keeps_marks else None
        # (vocabulary,) the model's id for each of our ids; -1 for a control id the model lacks.
        self._of_model = _in_our_order(self._processor)
        self.vocabulary = len(self._of_model)
        self._ours: npt.NDArray[np.int32] | None = None
        if not np.array_equal(self._of_model, np.arange(self.vocabulary)):
            known = self._of_model >= 0
            self._ours = np.zeros(self._processor.get_piece_size(), np.int32)
            self._ours[self._of_model[known]] = np.flatnonzero(known)
        self._bytes = np.array(
            [n >= 0 and self._processor.is_byte(n) for n in self._of_model.tolist()]
        )

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        hidden = list(map(self._marks.hidden, texts)) if self._marks else list(texts)
        rows = list(self._processor.encode(hidden, num_threads=1, return_type="numpy"))
        if self._marks:
            rows = list(map(self._marks.restored, rows, texts))
        return rows if self._ours is None else [self._ours[ids] for ids in rows]

    def decode(self, ids: Ids) -> str:
        with _damage():
            return str(self._processor.decode(self._of_model[ids].tolist()))

    def tokens(self, text: str) -> list[Token]:
        hidden = self._marks.hidden(text) if self._marks else text
        with _damage():
            found = self._processor.encode(hidden, return_type="offset_mapping")
        ids, pieces = np.array(found["ids"], np.int32), found["pieces"]
        if self._marks and SPACE_MARK in text:
            ids = self._marks.restored(ids, text)
            pieces = map(self._processor.id_to_piece, ids.tolist())
        ids = ids if self._ours is None else self._ours[ids]
        rows = zip(ids.tolist(), pieces, found["offsets"], strict=True)
        return [Token(token, piece, start, end) for token, piece, (start, end) in rows]

    def spelling(self, token: int) -> str:
        # Control tokens have our spellings, even if the model has others.
        if token < len(CONTROLS):
            return CONTROLS[token]
        return str(self._processor.id_to_piece(int(self._of_model[token])))

    def byte_tokens(self, ids: Ids) -> int:
        return int(np.count_nonzero(self._bytes[ids]))

    def longest(self, number: int) -> list[str]:
        spellings = map(self.spelling, np.flatnonzero(~self._bytes)[len(CONTROLS) :].tolist())
        pieces = (piece.replace(SPACE_MARK, " ").strip(" ") for piece in spellings)
        return sorted({*pieces}, key=lambda piece: (-len(piece), piece))[:number]

    @property
    def has_bytes(self) -> bool:
        """True if the model has byte pieces, so that it can encode every character."""
        return bool(self._bytes.any())

    def restores(self, text: str) -> bool:
        """Return True if decoding the ids of ``text`` restores it.

        U+2581 and space count as equal for a model that encodes both as a space.
        """
        decoded = self.decode(self.encode([text])[0])
        return decoded == (text if self._marks else text.replace(SPACE_MARK, " "))

    @property
    def model(self) -> bytes:
        """The bytes of the ``.model`` file."""
        return self._model

    @property
    def keeps_marks(self) -> bool:
        """True if U+2581 of a text is encoded as bytes, and not as a space."""
        return self._marks is not None

    def model_ids(self) -> npt.NDArray[np.int64]:
        """Return the model's id of each of our ids, (vocabulary,); -1 for a control id that it lacks."""
        return self._of_model

    def save(self, folder: str) -> tuple[str, ...]:
        write_bytes(join(folder, MODEL), self._model)
        marks = {"space_marks": BYTES} if self._marks else {}
        return save_kind(folder, self.kind, {"file": MODEL}, marks)


@contextmanager
def _damage() -> Iterator[None]:
    """Convert the error of a damaged model, whose normaliser returns bytes that are not UTF-8."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"the SentencePiece model is damaged (a text gives bytes that are not UTF-8: {error.reason}); "
            "copy it again"
        ) from error


def _in_our_order(processor: Any) -> npt.NDArray[np.int64]:
    """Return the model's ids in our order, (vocabulary,); -1 for a control id that it lacks."""
    # Also -1 if "<s>" is a normal piece of the model, which a text can produce.
    controls = [processor.unk_id(), processor.bos_id(), processor.eos_id()]
    others = [n for n in range(processor.get_piece_size()) if n not in controls]
    return np.array([*controls, *others])


def is_sentencepiece(model: bytes) -> bool:
    """Return True if these are the bytes of a SentencePiece model."""
    try:
        SentencePieceTokenizer(model)
    except TokenizerError:
        return False
    return True


def read_sentencepiece(path: str) -> SentencePieceTokenizer:
    """Load the existing SentencePiece model at ``path``, a path or URL.

    Raises:
        TokenizerError: the file cannot be read, or is not a SentencePiece model.
    """
    model = read_model(path)
    try:
        tokenizer = SentencePieceTokenizer(model)
        if NORMALISER not in dict(fields_of(model)):
            raise TokenizerError("it has no normaliser, so it is truncated; copy it again")
        return tokenizer
    except TokenizerError as error:
        raise TokenizerError(
            f"tokenizer.file: {path}: {error}; name the .model file that SentencePiece wrote"
        ) from error


def fields_of(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field of a protocol buffer: an integer, or bytes.

    SentencePiece writes the pieces first and then the normaliser. It also loads a file that was cut between
    two fields, as a model of fewer pieces without a normaliser.

    Args:
        message: a model file, or the bytes of one of its messages.
    """
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while place < len(message):
        tag = varint()
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            yield number, varint()
            continue
        if wire_type != 2 and wire_type not in _FIXED:
            return
        size = varint() if wire_type == 2 else _FIXED[wire_type]
        yield number, message[place : place + size]
        place += size


_FIXED = {1: 8, 5: 4}
"""Bytes of a value of fixed size, by wire type."""


def read_model(path: str) -> bytes:
    """Read the bytes of the existing model at ``path``, a path or URL.

    Raises:
        TokenizerError: the file cannot be read.
    """
    try:
        return read_bytes(path)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise TokenizerError(f"tokenizer.file: {path}: cannot be read ({reason})") from error


def train_sentencepiece(
    config: SentencePieceConfig | CharConfig, texts: Iterable[str]
) -> SentencePieceTokenizer:
    """Train a model on cleaned ``texts``, which are iterated once; the trainer holds them in memory.

    A small corpus gives fewer pieces than requested.

    Raises:
        TokenizerError: there is no text, or the requested vocabulary is too small for its characters.
    """
    import sentencepiece

    lines = _Lines(texts)
    rest = iter(lines)
    first = next(rest, None)
    if first is None:
        raise TokenizerError(
            "the train split has no text to train a tokenizer on; check prepare.input and "
            "prepare.filters"
        )
    if isinstance(config, CharConfig):
        model_type, size = "char", CHARACTERS
    else:
        model_type, size = config.model, config.vocabulary
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=chain([first], rest),
            model_writer=model,
            model_type=model_type,
            vocab_size=size,
            # So that a small corpus with fewer pieces than requested is not an error.
            hard_vocab_limit=False,
            character_coverage=config.character_coverage,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            max_sentence_length=SENTENCE_BYTES,
            num_threads=TRAINER_THREADS,
            unk_id=UNKNOWN,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=-1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        if lines.error:
            raise lines.error from error
        raise TokenizerError(
            f"SentencePiece cannot train {size} pieces on this text ({_reason(error)}); "
            "raise tokenizer.vocabulary or lower tokenizer.character_coverage"
        ) from error
    return SentencePieceTokenizer(model.getvalue(), config.kind, keeps_marks=True)


class _Lines:
    """The texts, split to the length the trainer accepts.

    Attributes:
        error: the exception that reading the texts raised, because SentencePiece turns every
            exception of an iterator into a RuntimeError.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.error: BaseException | None = None
        self._texts = texts

    def __iter__(self) -> Iterator[str]:
        try:
            for text in self._texts:
                yield from _SENTENCE.findall(text)
        except BaseException as error:
            self.error = error
            raise


def _reason(error: Exception) -> str:
    return str(error).strip().rsplit("\n", 1)[-1].rsplit("] ", 1)[-1].strip() or "no reason given"

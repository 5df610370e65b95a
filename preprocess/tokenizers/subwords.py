"""Pieces of a SentencePiece model: one learnt here (unigram, BPE or characters), or one given.

A given model keeps its own normaliser and its own order of pieces. Only its control ids are moved:
every model has `UNKNOWN`, `BOS` and `EOS` as 0, 1 and 2, and its other pieces after them in its own
order, so that T5's (pad 0, </s> 1, <unk> 2, no <s>) serves as well as LLaMA's.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.config import CharConfig, SentencePieceConfig
from preprocess.files.storage import join, read_bytes, write_bytes
from preprocess.tokenizers.base import BOS, CONTROLS, EOS, UNKNOWN, Ids, Token, TokenizerError
from preprocess.tokenizers.kind_file import save_kind

TRAINER_THREADS = 4
"""SentencePiece's unigram pieces depend on the thread count, so it is a constant."""

SENTENCE_BYTES = 16_384
"""SentencePiece's trainer leaves out longer texts, so they are cut, at whitespace where they can be."""

CHARACTERS = 0x110000
"""Code points of Unicode: the size of a `char` vocabulary is the text's affair."""

_LONGEST = SENTENCE_BYTES // 4  # a character is four bytes at most
_SENTENCE = re.compile(rf"\S(?:.{{0,{_LONGEST - 2}}}\S)?(?!\S)|\S{{{_LONGEST}}}", re.DOTALL)
_SPACE = "\u2581"


class SentencePieceTokenizer:
    """Pieces of a SentencePiece model; where it has byte pieces, they stand for what no other spells.

    Raises:
        TokenizerError: ``model`` is no SentencePiece model.
    """

    def __init__(self, model: bytes, kind: str = "sentencepiece") -> None:
        import sentencepiece

        self.kind = kind
        self._model = model
        try:
            if not model:
                raise RuntimeError("it is empty")
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise TokenizerError(f"no SentencePiece model ({_reason(error)})") from error
        # (vocabulary,) the model's id of each of ours, -1 where it has none.
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
        found = list(self._processor.encode(list(texts), num_threads=1, return_type="numpy"))
        return found if self._ours is None else [self._ours[ids] for ids in found]

    def decode(self, ids: Ids) -> str:
        return str(self._processor.decode(self._of_model[ids].tolist()))

    def tokens(self, text: str) -> list[Token]:
        found = self._processor.encode(text, return_type="offset_mapping")
        ids = found["ids"] if self._ours is None else self._ours[found["ids"]].tolist()
        places = zip(ids, found["pieces"], found["offsets"], strict=True)
        return [Token(token, piece, start, end) for token, piece, (start, end) in places]

    def spelling(self, token: int) -> str:
        # The controls by our names, whatever the model calls them.
        if token < len(CONTROLS):
            return CONTROLS[token]
        return str(self._processor.id_to_piece(int(self._of_model[token])))

    def byte_tokens(self, ids: Ids) -> int:
        return int(np.count_nonzero(self._bytes[ids]))

    def longest(self, number: int) -> list[str]:
        spellings = map(self.spelling, np.flatnonzero(~self._bytes)[len(CONTROLS) :].tolist())
        pieces = (piece.replace(_SPACE, " ").strip(" ") for piece in spellings)
        return sorted({*pieces}, key=lambda piece: (-len(piece), piece))[:number]

    @property
    def has_bytes(self) -> bool:
        """Whether the model has byte pieces, so that no character is unknown to it."""
        return bool(self._bytes.any())

    def restores(self, text: str) -> bool:
        """Whether ``text`` can be put together again from its ids (U+2581 reads as a space)."""
        decoded: str = self._processor.decode(self._processor.encode(text))
        return decoded == text.replace(_SPACE, " ")

    def save(self, folder: str) -> tuple[str, ...]:
        write_bytes(join(folder, "tokenizer.model"), self._model)
        return save_kind(folder, self.kind, file="tokenizer.model")


def _in_our_order(processor: Any) -> npt.NDArray[np.int64]:
    """(vocabulary,) the model's ids as UNKNOWN, BOS, EOS and the rest; -1 for one it has not."""
    # SentencePiece gives -1 also for a "<s>" that a text can produce: a piece like any other.
    controls = [processor.unk_id(), processor.bos_id(), processor.eos_id()]
    others = [n for n in range(processor.get_piece_size()) if n not in controls]
    return np.array([*controls, *others])


def read_sentencepiece(path: str) -> SentencePieceTokenizer:
    """The tokenizer of the existing model at ``path``, a path or URL.

    Raises:
        TokenizerError: it cannot be read, or is no SentencePiece model.
    """
    model = read_model(path)
    try:
        return SentencePieceTokenizer(model)
    except TokenizerError as error:
        raise TokenizerError(
            f"tokenizer.file: {path}: {error}; give the .model file that SentencePiece wrote"
        ) from error


def read_model(path: str) -> bytes:
    """The bytes of the model at ``path``.

    Raises:
        TokenizerError: it cannot be read.
    """
    try:
        return read_bytes(path)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise TokenizerError(f"tokenizer.file: {path}: cannot be read ({reason})") from error


def train_sentencepiece(
    config: SentencePieceConfig | CharConfig, texts: Iterable[str]
) -> SentencePieceTokenizer:
    """A model learnt from ``texts`` (cleaned), which are gone through once and held by the trainer.

    Raises:
        TokenizerError: there is no text, or too little for the vocabulary asked.
    """
    import sentencepiece

    lines = _Lines(texts)
    if not lines.any():
        raise TokenizerError("the train split has no text to make a tokenizer of")
    character = isinstance(config, CharConfig)
    size = CHARACTERS if isinstance(config, CharConfig) else config.vocabulary
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="char" if isinstance(config, CharConfig) else config.model,
            vocab_size=size,
            # A small corpus holds fewer pieces than asked for; that is no mistake.
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
            f"SentencePiece cannot make {size} pieces of this text ({_reason(error)}); "
            "raise tokenizer.vocabulary, lower tokenizer.character_coverage, or give it more text"
        ) from error
    return SentencePieceTokenizer(model.getvalue(), "char" if character else "sentencepiece")


class _Lines:
    """The texts cut to what the trainer takes; what goes wrong in reading them is kept.

    SentencePiece makes a RuntimeError of any exception of an iterator's.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.error: BaseException | None = None
        self._lines = (line for text in texts for line in _SENTENCE.findall(text))
        self._first: list[str] = []

    def any(self) -> bool:
        """Whether there is a line."""
        self._first = [line for line in (next(self._lines, None),) if line is not None]
        return bool(self._first)

    def __iter__(self) -> Iterator[str]:
        try:
            yield from self._first
            yield from self._lines
        except BaseException as error:
            self.error = error
            raise


def _reason(error: Exception) -> str:
    return str(error).strip().rsplit("\n", 1)[-1].rsplit("] ", 1)[-1].strip() or "no reason given"

"""Text to ids and back to spellings, behind one small interface.

Every kind has three control ids that no text can produce: unknown, begin (<s>) and end (</s>).
Text arrives cleaned; a tokenizer changes nothing in it.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from preprocess.config import SentencePieceConfig, TokenizerConfig, WordConfig
from preprocess.errors import UserError
from preprocess.storage import join, read_bytes, write_bytes

UNKNOWN, BOS, EOS = 0, 1, 2
CONTROLS = ("<unk>", "<s>", "</s>")

TRAINER_THREADS = 4
"""SentencePiece's unigram pieces depend on the thread count, so it is a constant."""

SENTENCE_BYTES = 16_384
"""SentencePiece's trainer leaves out longer texts, so they are cut, at whitespace where they can be."""

_LONGEST = SENTENCE_BYTES // 4  # a character is four bytes at most
_SENTENCE = re.compile(rf"\S(?:.{{0,{_LONGEST - 2}}}\S)?(?!\S)|\S{{{_LONGEST}}}", re.DOTALL)

Ids = npt.NDArray[np.int32]


class TokenizerError(UserError):
    """Text no tokenizer can be made from, or a folder without one."""


@dataclass(frozen=True)
class Token:
    """A token of a text: its id, its spelling, and the characters [start, end) it covers."""

    id: int
    spelling: str
    start: int
    end: int


class Tokenizer(Protocol):
    """What the stages need of a tokenizer."""

    kind: str
    vocabulary: int

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, without control ids."""

    def tokens(self, text: str) -> list[Token]:
        """The same ids with their spellings and places."""

    def spelling(self, token: int) -> str:
        """How an id is written; pieces that begin a word start with U+2581."""

    def save(self, folder: str) -> tuple[str, ...]:
        """Write the tokenizer's files; returns their names."""


class SentencePieceTokenizer:
    """Pieces of a SentencePiece model; bytes stand for what no piece spells."""

    kind = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.vocabulary: int = self._processor.get_piece_size()

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        return list(self._processor.encode(list(texts), num_threads=1, return_type="numpy"))

    def tokens(self, text: str) -> list[Token]:
        found = self._processor.encode(text, return_type="offset_mapping")
        places = zip(found["ids"], found["pieces"], found["offsets"], strict=True)
        return [Token(token, piece, start, end) for token, piece, (start, end) in places]

    def spelling(self, token: int) -> str:
        return str(self._processor.id_to_piece(int(token)))

    def save(self, folder: str) -> tuple[str, ...]:
        write_bytes(join(folder, "tokenizer.model"), self._model)
        return _save_kind(folder, self.kind, "tokenizer.model")


class WordTokenizer:
    """Whitespace-separated words; ids are ranks by count, ties by code points (so by bytes)."""

    kind = "word"

    def __init__(self, words: Sequence[str]) -> None:
        self._words = tuple(words)
        self._ids = {word: number + len(CONTROLS) for number, word in enumerate(self._words)}
        self.vocabulary = len(CONTROLS) + len(self._words)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        find = self._ids.get
        return [np.array([find(w, UNKNOWN) for w in t.split()], np.int32) for t in texts]

    def tokens(self, text: str) -> list[Token]:
        found, place = [], 0
        for word in text.split():
            start = text.index(word, place)
            place = start + len(word)
            found.append(Token(self._ids.get(word, UNKNOWN), word, start, place))
        return found

    def spelling(self, token: int) -> str:
        return CONTROLS[token] if token < len(CONTROLS) else self._words[token - len(CONTROLS)]

    def save(self, folder: str) -> tuple[str, ...]:
        write_bytes(join(folder, "vocabulary.txt"), "".join(f"{w}\n" for w in self._words).encode())
        return _save_kind(folder, self.kind, "vocabulary.txt")


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """A tokenizer learnt from ``texts`` (cleaned); the same texts give the same bytes.

    Raises:
        TokenizerError: there is no text, or too little for the vocabulary asked.
    """
    if isinstance(config, WordConfig):
        counts = Counter(word for text in texts for word in text.split())
        words = [word for word, n in counts.items() if n >= config.min_count]
        if not words:
            raise TokenizerError("the train split has no word to make a vocabulary of")
        return WordTokenizer(sorted(words, key=lambda w: (-counts[w], w)))
    return _train_sentencepiece(config, texts)


def _train_sentencepiece(config: SentencePieceConfig, texts: Iterable[str]) -> Tokenizer:
    import sentencepiece

    lines = [line for text in texts for line in _SENTENCE.findall(text)]
    if not lines:
        raise TokenizerError("the train split has no text to make a tokenizer of")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=config.model,
            vocab_size=config.vocabulary,
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
        raise TokenizerError(
            f"SentencePiece cannot make {config.vocabulary} pieces of this text ({_reason(error)}); "
            "raise tokenizer.vocabulary, lower tokenizer.character_coverage, or give it more text"
        ) from error
    return SentencePieceTokenizer(model.getvalue())


def _reason(error: Exception) -> str:
    return str(error).strip().rsplit("\n", 1)[-1].rsplit("] ", 1)[-1].strip() or "no reason given"


def _save_kind(folder: str, kind: str, file: str) -> tuple[str, ...]:
    write_bytes(join(folder, "tokenizer.json"), json.dumps({"kind": kind, "file": file}).encode())
    return ("tokenizer.json", file)


def load_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer that was saved in ``folder``.

    Raises:
        TokenizerError: the folder holds none, or one of a kind this version does not know.
    """
    try:
        saved: dict[str, Any] = json.loads(read_bytes(join(folder, "tokenizer.json")))
        kind = saved["kind"]
        if kind not in (SentencePieceTokenizer.kind, WordTokenizer.kind):
            raise TokenizerError(f"{folder}: tokenizer kind '{kind}' needs a newer biloom")
        data = read_bytes(join(folder, str(saved["file"])))
        if kind == SentencePieceTokenizer.kind:
            return SentencePieceTokenizer(data)
        return WordTokenizer(data.decode().split("\n")[:-1])
    except TokenizerError:
        raise
    # A damaged model is a RuntimeError of SentencePiece's.
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise TokenizerError(
            f"{folder}: holds no tokenizer ({error}); run `biloom tokenizer`"
        ) from error


@lru_cache(maxsize=4)
def cached_tokenizer(folder: str, content: str) -> Tokenizer:
    """``load_tokenizer`` once a process; ``content`` tells a folder made anew from the old one."""
    return load_tokenizer(folder)

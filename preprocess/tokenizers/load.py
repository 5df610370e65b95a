"""Text to ids and back to spellings, behind one small interface.

Every kind has three control ids that no text can produce: unknown, begin (<s>) and end (</s>).
Text arrives cleaned; a tokenizer changes nothing in it, but for a given model with a normaliser of
its own.
"""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from preprocess.config import TokenizerConfig, WordConfig
from preprocess.files.storage import StoreError, join, read_bytes
from preprocess.tokenizers.base import Ids, Token, TokenizerError
from preprocess.tokenizers.kind_file import KIND_FILE
from preprocess.tokenizers.subwords import SentencePieceTokenizer, train_sentencepiece
from preprocess.tokenizers.words import WordTokenizer, count_words


class Tokenizer(Protocol):
    """What the stages need of a tokenizer."""

    kind: str
    vocabulary: int

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, without control ids."""

    def decode(self, ids: Ids) -> str:
        """The text that ids of it spell, as far as they tell: unknown words, and spaces, may be lost."""

    def tokens(self, text: str) -> list[Token]:
        """The same ids with their spellings and places."""

    def spelling(self, token: int) -> str:
        """How an id is written; pieces that begin a word start with U+2581."""

    def byte_tokens(self, ids: Ids) -> int:
        """How many of ``ids`` stand for a byte, since nothing else spells the text there."""

    def longest(self, number: int) -> list[str]:
        """The longest spellings, longest first: where text that is no language shows first."""

    def save(self, folder: str) -> tuple[str, ...]:
        """Write the tokenizer's files; returns their names."""


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """A tokenizer learnt from ``texts`` (cleaned); the same texts give the same bytes.

    Raises:
        TokenizerError: there is no text, or too little for the vocabulary asked.
    """
    if isinstance(config, WordConfig):
        return count_words(config, texts)
    return train_sentencepiece(config, texts)


def load_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer that was saved in ``folder``.

    Raises:
        TokenizerError: the folder holds none, or one of a kind this version does not know.
    """
    try:
        saved: dict[str, Any] = json.loads(read_bytes(join(folder, KIND_FILE)))
        kind, file = saved["kind"], saved.get("file")
        if kind == WordTokenizer.kind:
            return WordTokenizer.load(folder)
        if kind in ("sentencepiece", "char"):
            return SentencePieceTokenizer(read_bytes(join(folder, str(file))), kind)
    except StoreError:
        raise
    # A damaged model is a TokenizerError, which is a ValueError.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(
            f"{folder}: holds no tokenizer ({error}); run `biloom tokenizer`"
        ) from error
    raise TokenizerError(f"{folder}: tokenizer kind '{kind}' needs a newer biloom")


@lru_cache(maxsize=4)
def cached_tokenizer(folder: str, content: str) -> Tokenizer:
    """``load_tokenizer`` once a process; ``content`` tells a folder made anew from the old one."""
    return load_tokenizer(folder)

"""The interface of all tokenizers, and how they are trained and loaded.

Every tokenizer has three control ids: unknown, begin of sentence (<s>) and end of sentence (</s>).
No text produces the last two. Tokenizers take cleaned text and do not normalise it further, except
for an existing SentencePiece model or tokenizer.json that has its own normaliser.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from preprocess.config import CharConfig, SentencePieceConfig, WordConfig
from preprocess.errors import one_line
from preprocess.files.errors import StoreError
from preprocess.files.verified import DamagedResult, manifest_of, read_verified
from preprocess.tokenizers.base import Ids, Token, TokenizerError
from preprocess.tokenizers.huggingface.tokenizer import FILE, HuggingFaceTokenizer, MissingPackage
from preprocess.tokenizers.kind_file import read_kind
from preprocess.tokenizers.subwords import (
    BYTES,
    MODEL,
    SentencePieceTokenizer,
    train_sentencepiece,
)
from preprocess.tokenizers.words import WordTokenizer, count_words


class Tokenizer(Protocol):
    """Maps text to ids and ids to spellings.

    Attributes:
        kind: "sentencepiece", "char", "word" or "huggingface".
        vocabulary: number of ids, control ids included.
    """

    kind: str
    vocabulary: int

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text, without <s> and </s>."""

    def decode(self, ids: Ids) -> str:
        """Return the text of ids; unknown words and the exact whitespace may be lost."""

    def tokens(self, text: str) -> list[Token]:
        """Return the ids of `encode` with their spellings and character offsets."""

    def spelling(self, token: int) -> str:
        """Return the spelling of an id; subwords that begin a word start with U+2581."""

    def byte_tokens(self, ids: Ids) -> int:
        """Count the ids that stand for one byte of a character that is not in the vocabulary."""

    def longest(self, number: int) -> list[str]:
        """Return the ``number`` longest spellings, longest first.

        They reveal markup, base64 and other text that is not language.
        """

    def save(self, folder: str) -> tuple[str, ...]:
        """Write the tokenizer's files to a folder and return their names."""


def train_tokenizer(
    config: SentencePieceConfig | CharConfig | WordConfig, texts: Iterable[str]
) -> Tokenizer:
    """Train a tokenizer on cleaned ``texts``; the same texts give the same bytes.

    Raises:
        TokenizerError: there is no text, no word is frequent enough, or the requested vocabulary is
            too small for the characters of the text.
    """
    if isinstance(config, WordConfig):
        return count_words(config, texts)
    return train_sentencepiece(config, texts)


def load_tokenizer(folder: str) -> Tokenizer:
    """Load the tokenizer in ``folder``, a path or URL.

    Its files are verified if the folder has a manifest.

    Raises:
        ManifestError: the manifest is damaged.
        DamagedResult: a file differs from its record in the manifest.
        MissingPackage: the tokenizer is a ``tokenizer.json``, and ``tokenizers`` is not installed.
        TokenizerError: the folder holds no tokenizer, a damaged one, or an unknown kind.
    """
    manifest = manifest_of(folder)
    try:
        saved = read_kind(folder, manifest)
        kind, marks = saved["kind"], saved.get("space_marks")
        if kind == WordTokenizer.kind:
            return WordTokenizer.load(folder, manifest)
        if kind == HuggingFaceTokenizer.kind:
            _check_file(saved, FILE)
            return HuggingFaceTokenizer(read_verified(folder, manifest, FILE))
        if kind in ("sentencepiece", "char") and marks in (None, BYTES):
            _check_file(saved, MODEL)
            return SentencePieceTokenizer(
                read_verified(folder, manifest, MODEL), kind, marks == BYTES
            )
    except (StoreError, DamagedResult, MissingPackage):
        raise
    # A damaged model is a TokenizerError, which is a ValueError.
    except (OSError, ValueError, KeyError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else one_line(str(error))
        raise TokenizerError(
            f"{one_line(folder)}: holds no tokenizer ({reason}); run `biloom tokenizer`"
        ) from error
    name = (
        f"{kind!r:.40}"
        if marks in (None, BYTES)
        else f"{kind!r:.40} with space_marks {marks!r:.40}"
    )
    raise TokenizerError(f"{one_line(folder)}: tokenizer kind {name} needs a newer biloom")


def _check_file(saved: Mapping[str, Any], name: str) -> None:
    """Refuse another file name, because a name from an untrusted source may lead out of the folder."""
    if saved["file"] != name:
        raise ValueError(f"its file is {saved['file']!r:.60}, not {name}")


@lru_cache(maxsize=4)
def cached_tokenizer(folder: str, content: str) -> Tokenizer:
    """Load a tokenizer once per process.

    Args:
        folder: the tokenizer's folder.
        content: content hash of its manifest, so that a folder that was made again is loaded again.
    """
    return load_tokenizer(folder)

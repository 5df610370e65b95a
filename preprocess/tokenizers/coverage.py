"""How a tokenizer takes to a corpus: how much it knows, how long its texts become."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from preprocess.tokenizers.base import UNKNOWN
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.subwords import SentencePieceTokenizer

SAMPLE_BYTES = 10_000_000
"""Text that is enough for shares to some hundredths of a percent."""

LONGEST = 20
BATCH_TEXTS = 256
LONG_WORD = 15
"""Characters a word, on average over a document, above which it is taken to be written without
spaces (Chinese, Japanese, Thai, ...). Words of Finnish or Turkish are 8 long."""


def coverage(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """What ``tokenizer`` makes of ``texts`` (cleaned).

    Returns:
        bytes, characters, tokens: sizes of the texts, without document ends.
        unknown, byte_tokens: shares of the tokens that are the unknown word, or a byte.
        bytes_per_token, tokens_per_character: how much they are shortened.
        tokens_per_word: over documents written with spaces, none where there is no such document.
        spaced: share of the characters in documents written with spaces.
        restored: share of documents that their tokens spell again, of SentencePiece models only.
        used, vocabulary: ids that occur, of all.
        longest: spellings of most characters (of words: bytes).
    """
    sizes = dict.fromkeys(("documents", "bytes", "characters", "tokens", "unknown", "byte"), 0)
    spaced = dict.fromkeys(("characters", "words", "tokens"), 0)
    seen = np.zeros(tokenizer.vocabulary, bool)
    restored = 0
    texts = iter(texts)
    while batch := list(islice(texts, BATCH_TEXTS)):
        for text, ids in zip(batch, tokenizer.encode(batch), strict=True):
            sizes["documents"] += 1
            sizes["bytes"] += len(text.encode())
            sizes["characters"] += len(text)
            sizes["tokens"] += len(ids)
            sizes["unknown"] += int(np.count_nonzero(ids == UNKNOWN))
            sizes["byte"] += tokenizer.byte_tokens(ids)
            seen[ids] = True
            words = len(text.split())
            if len(text) <= LONG_WORD * words:
                spaced["characters"] += len(text)
                spaced["words"] += words
                spaced["tokens"] += len(ids)
        if isinstance(tokenizer, SentencePieceTokenizer):
            restored += sum(map(tokenizer.restores, batch))
    pieces = isinstance(tokenizer, SentencePieceTokenizer)
    return {
        **{key: sizes[key] for key in ("documents", "bytes", "characters", "tokens")},
        "unknown": _share(sizes["unknown"], sizes["tokens"]),
        "byte_tokens": _share(sizes["byte"], sizes["tokens"]),
        "bytes_per_token": _share(sizes["bytes"], sizes["tokens"]),
        "tokens_per_character": _share(sizes["tokens"], sizes["characters"]),
        "tokens_per_word": _share(spaced["tokens"], spaced["words"]),
        "spaced": _share(spaced["characters"], sizes["characters"]),
        "restored": _share(restored, sizes["documents"]) if pieces else None,
        "used": int(np.count_nonzero(seen)),
        "vocabulary": tokenizer.vocabulary,
        "longest": tokenizer.longest(LONGEST),
    }


def coverage_rows(found: dict[str, Any]) -> Sequence[Sequence[str]]:
    """The figures of `coverage` as rows of a table: what, how much."""
    rows = [
        ("unknown", _percent(found["unknown"])),
        ("bytes for want of a piece", _percent(found["byte_tokens"])),
        ("bytes a token", _number(found["bytes_per_token"])),
        ("tokens a character", _number(found["tokens_per_character"])),
        ("tokens a word, where there are spaces", _number(found["tokens_per_word"])),
        ("texts spelt again by their tokens", _percent(found["restored"])),
        ("vocabulary used", f"{found['used']:,} of {found['vocabulary']:,}"),
    ]
    return [row for row in rows if row[1]]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

"""Measures of how well a tokenizer suits a text: unknown tokens, and tokens per word and character."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from preprocess.tokenizers.base import UNKNOWN
from preprocess.tokenizers.huggingface.tokenizer import HuggingFaceTokenizer
from preprocess.tokenizers.load import Tokenizer
from preprocess.tokenizers.subwords import SentencePieceTokenizer

SAMPLE_BYTES = 10_000_000
"""Bytes of text to measure on, enough for an error of a few hundredths of a percentage point."""

LONGEST = 20
"""How many of the longest spellings to report."""

BATCH_TEXTS = 256
"""Texts to encode at once."""

LONG_WORD = 15
"""A document with more characters per word than this on average is treated as text without spaces
(Chinese, Japanese, Thai, ...). For comparison, Finnish and Turkish words average 8 characters."""


def coverage(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Measure ``tokenizer`` on cleaned ``texts``.

    Returns:
        A dictionary that can be written as JSON; shares and ratios are None if undefined.

        documents, bytes, characters, tokens: totals, without document boundaries.
        unknown: share of tokens that are the unknown token.
        byte_tokens: share of tokens that are a single byte of a character.
        bytes_per_token, tokens_per_character: ratios of the totals.
        tokens_per_word: ratio in the documents written with spaces (see `LONG_WORD`).
        spaced: share of all characters that are in documents written with spaces.
        restored: share of documents that decoding restores exactly; subwords only.
        used: number of distinct ids that occur.
        once: number of distinct ids that occur once.
        vocabulary: number of ids of the tokenizer.
        longest: the longest spellings of the vocabulary, longest first.
    """
    sizes = dict.fromkeys(("documents", "bytes", "characters", "tokens", "unknown", "byte"), 0)
    spaced = dict.fromkeys(("characters", "words", "tokens"), 0)
    seen = np.zeros(tokenizer.vocabulary, np.uint32)
    restored = 0
    texts = iter(texts)
    while batch := list(islice(texts, BATCH_TEXTS)):
        rows = tokenizer.encode(batch)
        # Once a batch, because a call per text takes longer than encoding it.
        used, counts = np.unique(np.concatenate(rows), return_counts=True)
        seen[used] += counts.astype(np.uint32)
        for text, ids in zip(batch, rows, strict=True):
            sizes["documents"] += 1
            sizes["bytes"] += len(text.encode())
            sizes["characters"] += len(text)
            sizes["tokens"] += len(ids)
            sizes["unknown"] += int(np.count_nonzero(ids == UNKNOWN))
            sizes["byte"] += tokenizer.byte_tokens(ids)
            words = len(text.split())
            if len(text) <= LONG_WORD * words:
                spaced["characters"] += len(text)
                spaced["words"] += words
                spaced["tokens"] += len(ids)
        if isinstance(tokenizer, SentencePieceTokenizer | HuggingFaceTokenizer):
            restored += sum(map(tokenizer.restores, batch))
    pieces = isinstance(tokenizer, SentencePieceTokenizer | HuggingFaceTokenizer)
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
        "once": int(np.count_nonzero(seen == 1)),
        "vocabulary": tokenizer.vocabulary,
        "longest": tokenizer.longest(LONGEST),
    }


def coverage_rows(figures: dict[str, Any]) -> Sequence[Sequence[str]]:
    """Return the result of `coverage` as (label, value) rows of a table, without undefined ratios."""
    rows = [
        ("unknown tokens", _percent(figures["unknown"])),
        ("byte tokens", _percent(figures["byte_tokens"])),
        ("bytes per token", _number(figures["bytes_per_token"])),
        ("tokens per character", _number(figures["tokens_per_character"])),
        ("tokens per word, in text with spaces", _number(figures["tokens_per_word"])),
        ("documents restored exactly by decoding", _percent(figures["restored"])),
        ("vocabulary used", f"{figures['used']:,} of {figures['vocabulary']:,}"),
    ]
    return [row for row in rows if row[1]]


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"

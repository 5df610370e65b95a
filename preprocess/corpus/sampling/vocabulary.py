"""A tokenizer for a trial, before there is one: trained on a sample, with the settings of the final one."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from preprocess.config import (
    CharConfig,
    HuggingFaceConfig,
    SentencePieceConfig,
    TokenizerConfig,
    WordConfig,
)
from preprocess.tokenizers.huggingface.tokenizer import read_huggingface
from preprocess.tokenizers.load import Tokenizer, train_tokenizer
from preprocess.tokenizers.subwords import read_sentencepiece

TRAINED_BYTES = 500_000
"""Bytes of text to train a unigram model on, which takes 2 to 3 s a megabyte. Such a model is as fast as
the final one, but needs more tokens."""
COUNTED_BYTES = 4_000_000
"""Bytes of text to train a BPE model on, which takes 0.2 s a megabyte. The final model needs about as
many tokens as this one."""
HELD_OUT = 10
"""One of this many texts is not trained on, to count its tokens."""


@dataclass(frozen=True)
class Trained:
    """A tokenizer for a trial.

    Attributes:
        tokenizer: the tokenizer.
        factor: number of tokens of the final tokenizer, as a multiple of its own.
        growth: exponent by which its vocabulary grows with the text; 0 if the settings limit it.
        seconds: CPU seconds a megabyte to train it; 0 if it was not trained.
    """

    tokenizer: Tokenizer
    factor: float = 1.0
    growth: float = 0.0
    seconds: float = 0.0


def trained_on(texts: Sequence[str], settings: TokenizerConfig) -> Trained:
    """Return a tokenizer that is trained on some of the texts.

    Args:
        texts: cleaned texts in a random order.
        settings: settings of the final tokenizer.

    Raises:
        UserError: no tokenizer can be trained on the texts, or the file of the settings cannot be used.
    """
    if isinstance(settings, WordConfig):
        return _trained(texts, settings, growth=_growth(texts))
    if isinstance(settings, HuggingFaceConfig):
        return Trained(read_huggingface(settings.given))
    if not isinstance(settings, SentencePieceConfig):
        return _trained(_head(texts, COUNTED_BYTES), settings)
    if settings.file:
        return Trained(read_sentencepiece(settings.file))
    held_out, rest = texts[::HELD_OUT], [text for n, text in enumerate(texts) if n % HELD_OUT]
    few, many = _head(rest, TRAINED_BYTES), _head(rest, COUNTED_BYTES)
    bpe = settings.model_copy(update={"model": "bpe"})
    if settings.model == "bpe" or len(many) <= len(few):
        return _trained(many or texts, settings)
    made = _trained(few, settings)
    counter = train_tokenizer(bpe, many)
    own, final = (sum(map(len, one.encode(held_out))) for one in (made.tokenizer, counter))
    return replace(made, factor=final / max(1, own))


def _trained(
    texts: Sequence[str],
    settings: SentencePieceConfig | CharConfig | WordConfig,
    growth: float = 0.0,
) -> Trained:
    began = time.process_time()
    made = train_tokenizer(settings, texts)
    seconds = time.process_time() - began
    size = sum(len(text.encode()) for text in texts)
    return Trained(made, growth=growth, seconds=1e6 * seconds / max(1, size))


def _growth(texts: Sequence[str]) -> float:
    """Return the exponent of Heaps' law for the words of texts.

    Heaps, "Information Retrieval" (1978): a text of n words has about n ** exponent distinct ones.
    """
    half = {word for text in texts[: len(texts) // 2] for word in text.split()}
    every = half | {word for text in texts[len(texts) // 2 :] for word in text.split()}
    return math.log2(len(every) / len(half)) if half else 1.0


def _head(texts: Sequence[str], size: int) -> list[str]:
    """Return the first texts that have about ``size`` bytes together."""
    taken: list[str] = []
    for text in texts:
        if size <= 0:
            break
        taken.append(text)
        size -= len(text.encode())
    return taken

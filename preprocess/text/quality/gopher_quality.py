"""Quality rules of Gopher.

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher"
(https://arxiv.org/abs/2112.11446), appendix A.1.1, "Quality Filtering". The paper came without code; a
public implementation is ``gopher_quality_filter.py`` of datatrove (Hugging Face).

The paper does not define a word. Here it is as in `preprocess.text.quality.layout`. Words without any
letter, mark or number do not count towards the number of words and their mean length, as in
datatrove; the length of a word is its number of letters, marks and numbers, so that punctuation beside
it does not count.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from preprocess.text.quality.character_kinds import ALPHANUMERIC, LETTER
from preprocess.text.quality.config import GopherQualityConfig
from preprocess.text.quality.hashing import PieceHashes
from preprocess.text.quality.layout import Layout, Mask, ratios

BULLETS = "•‣◦▪●-*"
"""A line that starts with one of these starts with a bullet."""
_ELLIPSIS = "…"


def gopher_quality(layout: Layout, config: GopherQualityConfig) -> Iterator[tuple[str, Mask]]:
    """Yield each rule's reason, and which texts it drops, bool, shape (texts,).

    In text without spaces between words, the rules of the mean word length and of stop words are not
    applied, because each letter counts as a word.
    """
    words = layout.words
    proper = words.counts(layout.alphanumeric_words)
    if config.min_words is not None:
        yield "gopher_too_few_words", proper < config.min_words
    if config.max_words is not None:
        yield "gopher_too_many_words", proper > config.max_words
    characters = layout.lines.sums(layout.count_in(ALPHANUMERIC, layout.lines))
    mean = ratios(characters, proper)
    odd = np.zeros(len(mean), bool)
    if config.min_mean_word_length is not None:
        odd |= mean < config.min_mean_word_length
    if config.max_mean_word_length is not None:
        odd |= mean > config.max_mean_word_length
    yield "gopher_mean_word_length", odd & ~layout.is_unspaced
    if config.max_symbols_per_word is not None:
        most = config.max_symbols_per_word * words.numbers
        hashes = layout.numbers_at(np.flatnonzero(layout.codes == ord("#")))
        yield "gopher_hash_signs", hashes > most
        yield "gopher_ellipses", _ellipses(layout) > most
    if config.max_bullet_lines is not None:
        bullets = np.isin(layout.codes[layout.lines.starts], [*map(ord, BULLETS)])
        yield "gopher_bullet_lines", layout.lines.shares(bullets) > config.max_bullet_lines
    if config.max_ellipsis_lines is not None:
        share = layout.lines.shares(ends_with_ellipsis(layout))
        yield "gopher_ellipsis_lines", share > config.max_ellipsis_lines
    if config.min_alphabetic_words is not None:
        alphabetic = words.shares((layout.word_kinds & LETTER) != 0)
        yield "gopher_alphabetic_words", alphabetic < config.min_alphabetic_words
    if config.min_stop_words is not None:
        few = ~layout.is_unspaced
        if few.any():
            few &= _different(layout, config.stop_words) < config.min_stop_words
        yield "gopher_stop_words", few


def _ellipses(layout: Layout) -> npt.NDArray[np.int64]:
    """Return the number of "..." and U+2026 in each text, shape (texts,)."""
    found = layout.numbers_at(np.flatnonzero(layout.codes == ord(_ELLIPSIS)))
    dots = np.flatnonzero(layout.codes == ord("."))
    begins = np.flatnonzero(np.diff(dots, prepend=-2) > 1)
    number = np.diff(begins, append=len(dots)) // 3  # of "..." in each run of dots
    runs = np.repeat(dots[begins], number)
    return found + layout.numbers_at(runs)


def ends_with_ellipsis(layout: Layout) -> Mask:
    """Return which lines end with "..." or U+2026, shape (lines,)."""
    codes, ends = layout.codes, layout.lines.ends
    found = codes[ends - 1] == ord(_ELLIPSIS)
    dots = layout.lines.lengths >= 3
    for back in (1, 2, 3):
        dots &= codes[ends - back] == ord(".")
    marked: Mask = found | dots
    return marked


def _different(layout: Layout, wanted: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return how many of the wanted words each text has, shape (texts,)."""
    found = np.zeros(len(layout.text_list), np.int64)
    for word in set(wanted):
        found += layout.words.counts(layout.word_hashes == word_hash(word)) > 0
    return found


@cache
def word_hash(word: str) -> np.uint64:
    """Return the hash of a word, as in `Layout.word_hashes`."""
    codes = np.fromiter(map(ord, word), np.int64, len(word))
    hashed: np.uint64 = PieceHashes(codes).of(np.array([0]), np.array([len(word)]))[0]
    return hashed

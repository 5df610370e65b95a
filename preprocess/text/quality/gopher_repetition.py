"""Repetition rules of Gopher.

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher"
(https://arxiv.org/abs/2112.11446), appendix A.1.1, "Repetition Removal" and table A1. The paper came
without code; a public implementation is ``gopher_repetition_filter.py`` of datatrove.

The first occurrence of a line, paragraph or n-gram does not count as a duplicate. Characters in several
repeated n-grams count once. White space does not count, neither in n-grams nor in the text. The most
frequent n-gram must occur twice at least.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from preprocess.text.quality.config import GopherRepetitionConfig
from preprocess.text.quality.hashing import Hashes, by_text, equal_pairs, ngram_hashes, scrambled
from preprocess.text.quality.layout import Layout, Mask, Spans, ratios

TOP_SIZES = (2, 3, 4)
DUPLICATE_SIZES = (5, 6, 7, 8, 9, 10)
"""Sizes in words of the n-grams of the two kinds of rules."""


def gopher_repetition(layout: Layout, config: GopherRepetitionConfig) -> Iterator[tuple[str, Mask]]:
    """Yield each rule's reason, and which texts it drops, bool, shape (texts,)."""
    pieces = (
        ("line", layout.lines, config.max_duplicate_lines, config.max_duplicate_line_characters),
        (
            "paragraph",
            layout.paragraphs,
            config.max_duplicate_paragraphs,
            config.max_duplicate_paragraph_characters,
        ),
    )
    for name, spans, most, most_characters in pieces:
        hashes = layout.line_hashes if name == "line" else layout.paragraph_hashes
        repeated = layout.repeated_lines if name == "line" else spans.repeats(hashes)
        if most is not None:
            yield f"gopher_duplicate_{name}s", spans.shares(repeated) > most
        if most_characters is not None:
            share = repeated_characters(spans, repeated)
            yield f"gopher_duplicate_{name}_characters", share > most_characters
    if config.max_top_ngrams is not None:
        yield from _top_ngrams(layout, config.max_top_ngrams)
    if config.max_duplicate_ngrams is not None:
        yield from _duplicate_ngrams(layout, config.max_duplicate_ngrams)


def repeated_characters(spans: Spans, repeated: Mask) -> npt.NDArray[np.float64]:
    """Return the share of characters in repeated pieces among those of all pieces, shape (texts,)."""
    return ratios(spans.sums(spans.lengths * repeated), spans.sums(spans.lengths))


def _top_ngrams(layout: Layout, limits: tuple[float, ...]) -> Iterator[tuple[str, Mask]]:
    """Of equally frequent n-grams, the longest in characters counts."""
    words = layout.words
    totals = words.sums(words.lengths)
    grams = ngram_hashes(layout.word_hashes, TOP_SIZES)
    for (size, hashes), limit in zip(grams, limits, strict=True):
        later, earlier = equal_pairs(_own_ngrams(hashes, words.texts, size))
        # Copies of one n-gram are a chain of pairs.
        begins = np.flatnonzero(np.append(True, later[:-1] != earlier[1:])) if len(later) else later
        copies = np.diff(np.append(begins, len(later))) + 1
        places = earlier[begins]
        texts, lengths = words.texts[places], np.zeros(len(begins), np.intp)
        for at in range(size):
            lengths += words.lengths[places + at]
        order = np.lexsort((lengths, copies, texts))
        last = order[np.append(np.diff(texts[order]) > 0, True)] if len(order) else order
        above = np.zeros(len(totals), bool)
        above[texts[last]] = copies[last] * lengths[last] > limit * totals[texts[last]]
        yield f"gopher_top_{size}_gram", above


def _duplicate_ngrams(layout: Layout, limits: tuple[float, ...]) -> Iterator[tuple[str, Mask]]:
    words = layout.words
    totals = words.sums(words.lengths)
    hashes, lengths, bounds = layout.word_hashes, words.lengths, words.bounds
    _, share = next(_repeated_characters(hashes, lengths, bounds, DUPLICATE_SIZES[:1]))
    # The words of a repeated longer n-gram are all in repeated 5-grams.
    suspects = np.flatnonzero(share > min(limits) * totals)
    chosen = np.isin(words.texts, suspects)
    bounds = np.concatenate([[0], np.cumsum(words.numbers[suspects])])
    shares = _repeated_characters(hashes[chosen], lengths[chosen], bounds, DUPLICATE_SIZES)
    for (size, found), limit in zip(shares, limits, strict=True):
        above = np.zeros(len(totals), bool)
        above[suspects] = found > limit * totals[suspects]
        yield f"gopher_duplicate_{size}_grams", above


def _repeated_characters(
    hashes: Hashes,
    lengths: npt.NDArray[np.intp],
    bounds: npt.NDArray[np.intp],
    sizes: tuple[int, ...],
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield each n, and the characters of each text in n-grams that occur earlier in it too.

    Args:
        hashes: hash of each word, shape (words,).
        lengths: characters of each word, shape (words,).
        bounds: index of the first word of each text, and the number of words, shape (texts + 1,).
        sizes: the sizes n, in rising order.
    """
    words = Spans(np.arange(len(hashes)), np.arange(1, len(hashes) + 1), bounds)
    for size, grams in ngram_hashes(hashes, sizes):
        repeated, _ = equal_pairs(_own_ngrams(grams, words.texts, size))
        covered = np.zeros(len(hashes) + 1, np.int32)
        np.add.at(covered, repeated, 1)
        np.add.at(covered, repeated + size, -1)
        yield size, words.sums(lengths * (np.cumsum(covered[:-1]) > 0))


def _own_ngrams(hashes: Hashes, texts: npt.NDArray[np.intp], size: int) -> Hashes:
    """Return hashes of n-grams that are equal only in one text, shape (n-grams,).

    N-grams that reach into the next text have hashes of their own.
    """
    grams = by_text(hashes, texts[: len(hashes)])
    outside = np.flatnonzero(texts[: len(hashes)] != texts[size - 1 : size - 1 + len(hashes)])
    grams[outside] = scrambled(outside.astype(np.uint64))
    return grams

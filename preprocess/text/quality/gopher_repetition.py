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
from preprocess.text.quality.layout import Layout, Mask, Spans, ratios
from preprocess.text.quality.ngrams import Numbers, RepeatedNgrams, repeated_ngrams

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
        repeated = spans.repeats(hashes)
        if most is not None:
            yield f"gopher_duplicate_{name}s", spans.shares(repeated) > most
        if most_characters is not None:
            share = repeated_characters(spans, repeated)
            yield f"gopher_duplicate_{name}_characters", share > most_characters
    yield from _ngrams(layout, config)


def repeated_characters(spans: Spans, repeated: Mask) -> npt.NDArray[np.float64]:
    """Return the share of characters in repeated pieces among those of all pieces, shape (texts,)."""
    return ratios(spans.sums(spans.lengths * repeated), spans.sums(spans.lengths))


def _ngrams(layout: Layout, config: GopherRepetitionConfig) -> Iterator[tuple[str, Mask]]:
    """Yield the reasons and masks of the rules for n-grams; none for sizes that no text repeats."""
    top = dict(zip(TOP_SIZES, config.max_top_ngrams or (), strict=False))
    duplicate = dict(zip(DUPLICATE_SIZES, config.max_duplicate_ngrams or (), strict=False))
    sizes = [*top, *duplicate]
    words = layout.words
    sums = np.zeros(len(words) + 1, np.int64)  # characters of the words before each word
    np.cumsum(words.lengths, out=sums[1:])
    for grams in repeated_ngrams(layout.word_hashes, words, max(sizes, default=0)):
        if (limit := top.get(grams.size)) is not None:
            yield f"gopher_top_{grams.size}_gram", _top_above(grams, words, sums, limit)
        if (limit := duplicate.get(grams.size)) is not None:
            above = _duplicates_above(grams, words, sums, limit)
            yield f"gopher_duplicate_{grams.size}_grams", above


def _top_above(grams: RepeatedNgrams, words: Spans, sums: Numbers, limit: float) -> Mask:
    """Return in which texts the most frequent n-gram has a share of characters above the limit.

    Of equally frequent n-grams, the longest in characters counts.

    Args:
        grams: the repeated n-grams.
        words: the words.
        sums: characters of the words before each word, and of all words, shape (words + 1,).
        limit: the share.
    """
    most = limit * np.diff(sums[words.bounds])  # (texts,)
    above = np.zeros(len(most), bool)
    places, copies = grams.different()
    texts, lengths = words.texts[places], sums[places + grams.size] - sums[places]
    over = copies * lengths > most[texts]
    # Only in texts with such an n-gram, it matters which one is the most frequent.
    above[texts[over]] = True
    chosen = np.flatnonzero(above[texts])
    order = chosen[np.lexsort((lengths[chosen], copies[chosen], texts[chosen]))]
    last = order[np.diff(texts[order], append=len(most)) > 0]
    above[texts[last]] = over[last]
    return above


def _duplicates_above(grams: RepeatedNgrams, words: Spans, sums: Numbers, limit: float) -> Mask:
    """Return in which texts the n-grams that occur earlier too have a share of characters above the limit.

    The arguments are those of `_top_above`.
    """
    begins = np.sort(grams.later)
    # A word in several n-grams counts once.
    ends = np.minimum(begins + grams.size, np.append(begins[1:], len(words)))
    lengths = np.append(0, np.cumsum(sums[ends] - sums[begins]))
    at = lengths[np.searchsorted(begins, words.bounds)]
    above: Mask = np.diff(at) > limit * np.diff(sums[words.bounds])
    return above

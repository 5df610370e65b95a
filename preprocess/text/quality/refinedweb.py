"""Removal of boilerplate lines as for RefinedWeb.

Source: Penedo et al. 2023, "The RefinedWeb Dataset for Falcon LLM" (https://arxiv.org/abs/2306.01116),
section 3.2, "Line-wise corrections", and appendix G.2. No code was published, and the appendix names
examples of its phrases only; the phrases here are these examples and their usual spellings. The paper
edits a line with a phrase; here the line is removed.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from preprocess.text.quality.character_kinds import LETTER, UPPER
from preprocess.text.quality.config import RefinedWebLinesConfig
from preprocess.text.quality.layout import Layout, Mask, Positions, ratios

PHRASE_WORDS = 10
"""Most words of a line that a phrase removes."""

_COUNTER = re.compile(
    r"\W*\d[\d.,]*\s?[kKmMbB]?\s+(?:likes?|shares?|comments?|views?|followers?|replies|reposts?|"
    r"retweets?|downloads?|upvotes?|downvotes?|reactions?|bookmarks?)\W*",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"^sign[\s-]?in\b|\bread\s+more\W*$|\bitems?\s+in\s+(?:your\s+)?cart\b", re.IGNORECASE
)


def refinedweb_lines(layout: Layout, config: RefinedWebLinesConfig) -> Iterator[tuple[str, Mask]]:
    """Yield each rule's reason, and which lines it removes, bool, shape (lines,).

    In text without spaces between words, a line of one word is kept.
    """
    lines = layout.lines
    letters = layout.count_in(LETTER, lines)
    if config.max_uppercase is not None:
        share = ratios(layout.count_in(UPPER, lines), letters)
        yield "refinedweb_uppercase", share > config.max_uppercase
    if config.numbers:
        yield "refinedweb_numbers", letters == 0
    short = np.flatnonzero(layout.line_word_counts <= PHRASE_WORDS)
    if config.counters:
        yield "refinedweb_counter", _match(layout, short, lambda line: _COUNTER.fullmatch(line))
    if config.single_words:
        single = layout.line_word_counts == 1
        yield "refinedweb_single_word", single & ~layout.is_unspaced[lines.texts]
    if config.phrases:
        yield "refinedweb_phrase", _match(layout, short, lambda line: _PHRASE.search(line))


def lost_words(layout: Layout, remain: Mask) -> npt.NDArray[np.float64]:
    """Return the share of words in removed lines of each text, shape (texts,)."""
    counts = layout.line_word_counts
    return ratios(layout.lines.sums(counts * ~remain), layout.lines.sums(counts))


def _match(layout: Layout, chosen: Positions, matches: Callable[[str], object]) -> Mask:
    found = np.zeros(len(layout.lines), bool)
    found[[index for index in chosen.tolist() if matches(layout.line(index))]] = True
    return found

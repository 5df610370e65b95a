"""Rules of C4.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer" (JMLR 21, https://jmlr.org/papers/v21/20-074.html), section 2.2. Reference implementation:
``c4_utils.py`` of TensorFlow Datasets, from which the longest word, the phrases about policies and the
citation marks are. datatrove's ``c4_filters.py`` has other defaults (3 words a line, 5 sentences).

Here, other scripts count too: a terminal punctuation mark is a character of Unicode's property
Sentence_Terminal, and closing quotation marks of all kinds are quotation marks. A sentence ends at a
terminal mark before white space, where the reference uses NLTK. Not applied: the removal of repeated
spans of three sentences, and the language (`FilterConfig.languages`). In scripts without a full stop,
such as Thai, neither terminal punctuation nor the number of sentences counts.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from preprocess.text.quality.character_kinds import (
    LETTER,
    QUOTE,
    SPACE,
    TERMINAL,
    UNSPACED_SCRIPTS,
    letters_of,
)
from preprocess.text.quality.config import C4Config
from preprocess.text.quality.gopher_quality import ends_with_ellipsis
from preprocess.text.quality.layout import Layout, Mask
from preprocess.text.quality.removed_lines import Removed

POLICIES = ("terms of use", "privacy policy")
COOKIES = ("cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_LAST_ASCII = 0x7F


def without_citations(text: str) -> tuple[str, Removed | None]:
    """Return the text without citation marks, and what was removed."""
    first = _CITATION.search(text) if "[" in text else None
    if first is None:
        return text, None
    shorter = _CITATION.sub("", text)
    return shorter, Removed("c4_citations", 0, len(text) - len(shorter), first[0])


def c4_lines(layout: Layout, config: C4Config) -> Iterator[tuple[str, Mask]]:
    """Yield each rule's reason, and which lines it removes, bool, shape (lines,)."""
    lines = layout.lines
    if config.max_word_length is not None:
        yield "c4_long_word", _has_long_word(layout, config.max_word_length)
    if config.terminal_punctuation:
        ended = (layout.kinds[lines.ends - 1] & (TERMINAL | QUOTE)) != 0
        unended = (~ended | ends_with_ellipsis(layout)) & ~layout.is_unpunctuated[lines.texts]
        yield "c4_no_terminal_punctuation", unended
    if config.min_words is not None:
        yield "c4_short_line", layout.line_word_counts < config.min_words
    if config.javascript:
        yield "c4_javascript", layout.lines_with(["javascript"])
    if config.policy:
        # Most texts do not mention cookies, and each phrase is searched on its own.
        cookies = COOKIES if layout.lines_with(["cookie"]).any() else ()
        yield "c4_policy", layout.lines_with([*POLICIES, *cookies])


def c4_documents(
    layout: Layout, remain: Mask, config: C4Config, bad_words: re.Pattern[str] | None
) -> Iterator[tuple[str, Mask]]:
    """Yield each rule's reason, and which texts it drops, bool, shape (texts,).

    Args:
        layout: the texts.
        remain: which lines were not removed, shape (lines,). As in the reference, only these decide.
        config: the rules.
        bad_words: pattern of the words that must not occur (`bad_words_pattern`).
    """
    lines = layout.lines
    if config.lorem_ipsum:
        found = layout.lines_with(["lorem ipsum"]) & remain
        yield "c4_lorem_ipsum", lines.counts(found) > 0
    if config.curly_brackets:
        brackets = np.flatnonzero((layout.codes == ord("{")) | (layout.codes == ord("}")))
        found = layout.lines_at(brackets) & remain
        yield "c4_curly_bracket", lines.counts(found) > 0
    if config.min_sentences is not None:
        sentences = lines.sums(_sentences(layout) * remain)
        few = sentences < config.min_sentences
        yield "c4_too_few_sentences", few & ~(layout.is_unpunctuated & (sentences > 0))
    if bad_words is not None:
        found = np.zeros(len(lines), bool)
        for text, content in enumerate(layout.text_list):
            if bad_words.search(content.lower()):
                for index in range(lines.bounds[text], lines.bounds[text + 1]):
                    found[index] = remain[index] and bad_words.search(layout.line(index).lower())
        yield "c4_bad_words", lines.counts(found) > 0


def bad_words_pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern of words or phrases in lower case.

    A word must stand alone, between characters that are no letters, numbers or "_". A word of a script
    without spaces may stand anywhere, as in the reference for Japanese, Thai and Chinese.
    """
    alone: list[str] = []
    anywhere: list[str] = []
    for word in sorted(set(words), key=lambda word: (-len(word), word)):
        inside = any(map(letters_of(UNSPACED_SCRIPTS).__contains__, map(ord, word)))
        (anywhere if inside else alone).append(re.escape(word))
    patterns = [rf"(?<!\w)(?:{'|'.join(alone)})(?!\w)"] if alone else []
    return re.compile("|".join([*patterns, *anywhere]))


def _has_long_word(layout: Layout, most: int) -> Mask:
    return layout.lines_at(layout.words.starts[layout.words.lengths > most])


def _sentences(layout: Layout) -> npt.NDArray[np.int64]:
    """Return the number of sentences of each line, shape (lines,)."""
    kinds, lines = layout.kinds, layout.lines
    marks = np.flatnonzero((kinds & TERMINAL) != 0)
    following = kinds[marks + 1]
    after = (following & SPACE) != 0
    after |= ((following & QUOTE) != 0) & (
        (kinds[np.minimum(marks + 2, len(kinds) - 1)] & SPACE) != 0
    )
    # In scripts without spaces, no white space follows a full stop.
    after |= (layout.codes[marks] > _LAST_ASCII) & ((following & LETTER) != 0)
    ends = marks[after]
    # The end of the line ends a sentence, with or without a mark.
    last = np.maximum(lines.ends - 2, lines.starts)
    return np.searchsorted(ends, last) - np.searchsorted(ends, lines.starts) + 1

"""The text of a sentence whose tokens are given, and the tokens of a text.

A language model reads text, and a tagger tags tokens.

A model that was trained on text without spaces between words has never seen its pieces with spaces between
them. The separators of a sentence therefore come from its text, or from the scripts of its tokens.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Literal, NamedTuple

from lightning_modules.tasks.tagging.config import Join
from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import UserError
from preprocess.reading.labelled.examples import TaggedSentence
from preprocess.text.scripts import script_ranges
from preprocess.tokenizers.segmentation.joined_words import SPACE, JoinedWords
from preprocess.tokenizers.segmentation.segmenters import (
    SEGMENTERS,
    SegmenterName,
    check_segmenter,
    word_spans,
)

SPACELESS = (
    "Han", "Hiragana", "Katakana", "Bopomofo", "Yi",
    "Thai", "Lao", "Khmer", "Myanmar", "Tibetan",
)  # fmt: skip
"""Scripts without spaces between words."""
PUNCTUATION = ((0x3000, 0x303F), (0xFF00, 0xFF65))
"""Punctuation and full-width forms that are used in these scripts, with no spaces around them."""
MOSTLY = 0.9
"""Share of tokens of one character from which a file is one of single characters."""
COUNTED_AT_ONCE = 256
"""Sentences that are tokenised at once to count shared pieces."""

Joined = Literal["text", "space", "script", "none"]
"""How tokens are joined; see `separators`."""


def how_to_join(setting: Join, sentences: Sequence[TaggedSentence]) -> Joined:
    """Return how the tokens of the sentences of a training file are joined.

    "auto" takes the sentences' own text if all have one, no separators if the tokens are single
    characters, and otherwise the scripts of the tokens.
    """
    if setting != "auto":
        return setting
    if sentences and all(sentence.text is not None for sentence in sentences):
        return "text"
    return "none" if are_characters(sentences) else "script"


def are_characters(sentences: Iterable[TaggedSentence]) -> bool:
    """Return whether the tokens are the single characters of a text."""
    lengths = [len(token) for sentence in sentences for token in sentence.tokens]
    return sum(length == 1 for length in lengths) >= MOSTLY * len(lengths) > 0


def are_segmented(sentences: Sequence[TaggedSentence]) -> bool:
    """Return whether the tokens are words of text without spaces, which no rule of ours can find."""
    firsts = [token[0] for sentence in sentences for token in sentence.tokens]
    spaceless = sum(map(_is_spaceless, firsts))
    return 2 * spaceless > len(firsts) and not are_characters(sentences)


def joined_text(sentence: TaggedSentence, how: Joined) -> list[str] | JoinedWords:
    """Return the tokens of a sentence as a text to embed with ``unit="word"``."""
    between = separators(sentence, how)
    if all(one == SPACE for one in between):
        return [*sentence.tokens]
    return JoinedWords(sentence.tokens, between)


def separators(sentence: TaggedSentence, how: Joined) -> list[str]:
    """Return the text before each token of a sentence except the first.

    Args:
        sentence: the sentence.
        how: "space": a space. "none": nothing. "script": nothing beside a character of a script
            without spaces, otherwise a space. "text": what is in the sentence's text, with each
            stretch of whitespace as one space; for a sentence without text as "script".
    """
    if how == "text" and sentence.text is not None:
        ends, starts = [end for _, end in sentence.offsets], [a for a, _ in sentence.offsets[1:]]
        between = [sentence.text[a:b] for a, b in zip(ends, starts, strict=False)]
        return [re.sub(r"\s+", SPACE, one) for one in between]
    if how in ("space", "none"):
        return [SPACE if how == "space" else ""] * (len(sentence.tokens) - 1)
    pairs = zip(sentence.tokens, sentence.tokens[1:], strict=False)
    return ["" if _is_spaceless(a[-1]) or _is_spaceless(b[0]) else SPACE for a, b in pairs]


@cache
def _is_spaceless(character: str) -> bool:
    point = ord(character)
    return any(first <= point <= last for first, last in _spaceless_ranges())


@cache
def _spaceless_ranges() -> tuple[tuple[int, int], ...]:
    return (*PUNCTUATION, *(span for script in SPACELESS for span in script_ranges(script)))


class Pieces(NamedTuple):
    """How the tokens of a file fit the pieces that a language model reads.

    Attributes:
        tokens: number of tokens.
        shared: number of those that share a piece with the token before, so that a part of their
            vectors is the same.
        emptied: number of tokens that the model's cleaning empties; they are read as unknown.
    """

    tokens: int
    shared: int
    emptied: int

    def describe(self) -> list[str]:
        """Return a sentence for each count that is not 0."""
        told = []
        if self.shared:
            told.append(
                f"{self.shared:,} of {self.tokens:,} tokens share a piece of the language model's "
                "tokenizer with the token before; a part of their vectors is equal"
            )
        if self.emptied:
            told.append(
                f"{self.emptied:,} of {self.tokens:,} tokens are empty after the language model's "
                "cleaning, and are read as unknown"
            )
        return told


def count_pieces(model: BiLM, texts: Sequence[Sequence[str]]) -> Pieces:
    """Tokenise texts of words, and return how their words fit the pieces; computes no vectors."""
    tokens = shared = emptied = 0
    for start in range(0, len(texts), COUNTED_AT_ONCE):
        for read in model.reader.read(texts[start : start + COUNTED_AT_ONCE]):
            first, last = read.word_spans()
            tokens += len(first)
            shared += int((first[1:] <= last[:-1]).sum())
            emptied += sum(not word.spelling for word in read.words)
    return Pieces(tokens, shared, emptied)


class CuttingError(UserError):
    """Raised if a text cannot be cut into tokens like those of the training file."""


@dataclass(frozen=True)
class TextCutter:
    """Cuts texts into words that spaces do not separate, if the tokens of the training file are such.

    Attributes:
        segmented: whether the tokens of the training file are words of text without spaces.
        segmenter: finds the words; None if none is known.
        by_rule: whether a rule may find the words, because the user set one.

    Raises:
        CuttingError: a segmenter is given, but the tokens of the training file are no such words.
        SegmenterError: the segmenter is not installed.
    """

    segmented: bool
    segmenter: SegmenterName | None = None
    by_rule: bool = False

    def __post_init__(self) -> None:
        if self.segmenter is None:
            return
        if not self.segmented:
            raise CuttingError(
                f"segmenter: {self.segmenter} finds the words of text without spaces between them, but "
                "the tokens of the training file are single characters or separated by spaces; remove "
                "segmenter"
            )
        check_segmenter(self.segmenter)

    def __call__(self, sentence: TaggedSentence) -> TaggedSentence:
        """Return a sentence, with its text cut again if a rule made its tokens.

        Raises:
            CuttingError: no segmenter is known and no rule was set.
        """
        if not (self.segmented and sentence.is_cut):
            return sentence
        assert sentence.text is not None, "only a text is cut"
        if sentence.tags:
            raise CuttingError(
                f"{sentence.place}: this is a text with spans, but the tagger was trained on words of text "
                "without spaces between them; pass the words as tokens with tags, segmented as the "
                "training file is"
            )
        if self.segmenter is not None:
            spans = word_spans(sentence.text, self.segmenter)
            tokens = tuple(sentence.text[start:end] for start, end in spans)
            return replace(sentence, tokens=tokens, offsets=tuple((a, b) for a, b in spans))
        if self.by_rule:
            return sentence
        raise CuttingError(
            f"{sentence.place}: this is a text without tokens, but the tagger was trained on words of "
            "text without spaces between them, which no rule finds; segment it as the training file "
            f"is: name a segmenter with segmenter= ({', '.join(SEGMENTERS)}), or pass the words as tokens "
            "in JSON Lines or CoNLL columns"
        )


def share_found(
    sentences: Iterable[TaggedSentence], join: Joined, segmenter: SegmenterName
) -> float:
    """Return the share of the tokens of sentences that a segmenter finds in their text."""
    total = found = 0
    for sentence in sentences:
        text, places = text_of(sentence, join)
        total += len(places)
        found += len({*places} & {(start, end) for start, end in word_spans(text, segmenter)})
    return found / max(total, 1)


def text_of(sentence: TaggedSentence, join: Joined) -> tuple[str, Sequence[tuple[int, int]]]:
    """Return the text of a sentence, and the (start, end) of each token in it."""
    if sentence.text is not None:
        return sentence.text, sentence.offsets
    between = separators(sentence, join)
    pieces = [*JoinedWords(sentence.tokens, between).pieces()]
    ends = [*accumulate(map(len, pieces))]
    # Separators and tokens take turns; the first separator is empty.
    return "".join(pieces), [*zip(ends[::2], ends[1::2], strict=True)]

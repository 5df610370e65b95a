"""Tokens for texts without tokens, like those that a tagger was trained on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from lightning_modules.tasks.tagging.joining import Joined, separators
from preprocess.errors import UserError
from preprocess.reading.labelled.examples import TaggedSentence
from preprocess.tokenizers.segmentation.joined_words import JoinedWords
from preprocess.tokenizers.segmentation.segmenters import (
    SEGMENTERS,
    SegmenterName,
    check_segmenter,
    word_spans,
)


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

"""Precision, recall and F1 of spans, as conlleval or seqeval's strict mode count them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lightning_modules.tasks.tagging.spans import Scheme, spans_of, strict_spans_of


class Score(NamedTuple):
    """Counts of spans and the figures that follow from them; a ratio of nothing is 0.

    Attributes:
        correct: predicted spans with the bounds and the label of a gold span.
        predicted: predicted spans.
        gold: gold spans.
    """

    correct: int
    predicted: int
    gold: int

    @property
    def precision(self) -> float:
        """Share of the predicted spans that are correct."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the gold spans that are predicted."""
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.predicted + self.gold
        return 2 * self.correct / total if total else 0.0


@dataclass(frozen=True)
class SpanScores:
    """Scores of all spans and of each label.

    Attributes:
        micro: all spans together, which conlleval prints first.
        by_label: each label that occurs, in alphabetical order.
        accuracy: share of the tokens with the gold tag, "O" included; 0 without tokens.
        tokens: number of tokens.
    """

    micro: Score
    by_label: Mapping[str, Score]
    accuracy: float
    tokens: int


def score_spans(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    strict: Scheme | None = None,
) -> SpanScores:
    """Score predicted tags against gold tags.

    Args:
        gold: the gold tags of each sentence.
        predicted: the predicted tags of each sentence, in the same scheme.
        strict: count only spans that are valid in this scheme, as seqeval's strict mode does; None
            reads both sides as conlleval does.

    Raises:
        ValueError: the sentences differ in number or length.
    """
    if len(gold) != len(predicted):
        raise ValueError(
            f"{len(gold)} sentences have gold tags, and {len(predicted)} predicted ones"
        )
    correct: Counter[str] = Counter()
    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    right = tokens = 0
    for number, pair in enumerate(zip(gold, predicted, strict=True)):
        if len(pair[0]) != len(pair[1]):
            raise ValueError(
                f"sentence {number + 1} has {len(pair[0])} gold tags and {len(pair[1])} predicted ones"
            )
        tokens += len(pair[0])
        right += sum(a == b for a, b in zip(*pair, strict=True))
        spans = [{*(strict_spans_of(tags, strict) if strict else spans_of(tags))} for tags in pair]
        correct.update(span.label for span in spans[0] & spans[1])
        for count, found in zip(counts, spans, strict=True):
            count.update(span.label for span in found)
    by_label = {
        label: Score(correct[label], counts[1][label], counts[0][label])
        for label in sorted(counts[0] | counts[1])
    }
    micro = Score(correct.total(), counts[1].total(), counts[0].total())
    return SpanScores(micro, by_label, right / tokens if tokens else 0.0, tokens)

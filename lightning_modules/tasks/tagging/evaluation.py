"""Scores of predicted tags with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.intervals import Indices, Interval, bootstrap_intervals
from lightning_modules.tasks.tagging.span_scores import Score, score_spans
from lightning_modules.tasks.tagging.spans import Scheme, spans_of, strict_spans_of

Tags = Sequence[Sequence[str]]
"""The tags of each sentence."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Evaluation:
    """Scores of one or several trainings on the same sentences; all are shares, from 0 to 1.

    Attributes:
        scores: each score with its 95 % interval. "accuracy" is the share of right tags. If the tags
            are those of spans, "precision", "recall" and "f1" count spans as conlleval does, and
            "strict_f1" only spans that are valid in the scheme, as seqeval's strict mode does.
        by_label: scores of the spans of each label, over all trainings.
        counts: what the scores are computed from, (trainings, sentences, 2 or 8) int64.
    """

    scores: Mapping[str, Interval]
    by_label: Mapping[str, Score]
    counts: npt.NDArray[np.int64] = field(repr=False, compare=False)

    @property
    def first(self) -> str:
        """The name of the score that matters most."""
        return "f1" if "f1" in self.scores else "accuracy"


def evaluate(
    gold: Tags, runs: Sequence[Tags], scheme: Scheme | None, resamples: int = RESAMPLES
) -> Evaluation:
    """Score the predictions of one or several trainings.

    A score of several trainings is the mean of their scores. Its interval is a percentile bootstrap
    over sentences, in which the trainings share the drawn sentences.

    Args:
        gold: the gold tags of each sentence; at least one sentence.
        runs: the predicted tags of each training, in the scheme of the gold tags.
        scheme: their scheme; None if they are not those of spans.
        resamples: draws of the bootstrap.
    """
    counts = np.stack([_counts(gold, run, scheme) for run in runs])  # (runs, sentences, counts)

    def statistic(drawn: Indices) -> dict[str, float]:
        return _scores(counts[:, drawn].sum(1), scheme is not None)

    found = bootstrap_intervals(statistic, len(gold), resamples=resamples)
    by_label: dict[str, Score] = {}
    if scheme is not None:
        pooled = score_spans([*gold] * len(runs), [tags for run in runs for tags in run])
        by_label = dict(pooled.by_label)
    return Evaluation(found, by_label, counts)


def difference(more: Evaluation, less: Evaluation, resamples: int = RESAMPLES) -> Interval:
    """Return how much the first score of one evaluation is above that of another, with its interval.

    Both are scored on the same draws of sentences, so that the interval is narrower than those of the
    scores suggest.
    """
    name = more.first

    def statistic(drawn: Indices) -> dict[str, float]:
        one, two = (
            _scores(each.counts[:, drawn].sum(1), name == "f1")[name] for each in (more, less)
        )
        return {name: one - two}

    return bootstrap_intervals(statistic, more.counts.shape[1], resamples=resamples)[name]


def dev_score(gold: Tags, predicted: Tags, has_spans: bool) -> float:
    """Return F1 of spans, or accuracy if the tags are not those of spans."""
    scores = score_spans(gold, predicted)
    return scores.micro.f1 if has_spans else scores.accuracy


def _counts(gold: Tags, run: Tags, scheme: Scheme | None) -> npt.NDArray[np.int64]:
    """Return for each sentence the counts that `_scores` takes, (sentences, 2 or 8)."""
    rows = []
    for true, found in zip(gold, run, strict=True):
        row = [sum(a == b for a, b in zip(true, found, strict=True)), len(true)]
        if scheme is not None:
            for spans in (
                [{*spans_of(tags)} for tags in (true, found)],
                [{*strict_spans_of(tags, scheme)} for tags in (true, found)],
            ):
                row += [len(spans[0] & spans[1]), len(spans[1]), len(spans[0])]
        rows.append(row)
    return np.array(rows, np.int64)


def _scores(totals: npt.NDArray[np.int64], has_spans: bool) -> dict[str, float]:
    """Return the mean scores of trainings, given their counts (runs, counts)."""
    found = {"accuracy": _ratio(totals[:, 0], totals[:, 1])}
    if has_spans:
        correct, predicted, gold, strict, strict_predicted, strict_gold = totals[:, 2:].T
        found["precision"] = _ratio(correct, predicted)
        found["recall"] = _ratio(correct, gold)
        found["f1"] = _ratio(2 * correct, predicted + gold)
        found["strict_f1"] = _ratio(2 * strict, strict_predicted + strict_gold)
    return found


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> float:
    """Return the mean of part / whole, where a ratio of nothing is 0."""
    return float((part / np.maximum(whole, 1)).mean())

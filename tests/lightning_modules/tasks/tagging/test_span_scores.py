"""Scores beside the real seqeval, and on examples that were counted by hand."""

import math
import warnings
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.tasks.tagging.span_scores import Score, score_spans
from lightning_modules.tasks.tagging.spans import Scheme, spans_of, strict_spans_of

LABELS = ("PER", "LOC")
Pairs = list[list[tuple[str, str]]]


def pairs_of(letters: str) -> st.SearchStrategy[Pairs]:
    """Sentences of (gold, predicted) tags, most of them invalid."""
    tags = ["O", *(f"{letter}-{label}" for letter in letters for label in LABELS)]
    token = st.tuples(st.sampled_from(tags), st.sampled_from(tags))
    return st.lists(st.lists(token, min_size=1, max_size=12), min_size=1, max_size=4)


def split(pairs: Pairs) -> tuple[list[list[str]], list[list[str]]]:
    return [[a for a, _ in tags] for tags in pairs], [[b for _, b in tags] for tags in pairs]


def quietly(call: object, *arguments: object, **options: object) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where a ratio of nothing is 0
        return float(call(*arguments, **options))  # type: ignore[operator]


@settings(deadline=None)  # the first call imports scikit-learn
@given(pairs_of("BIES"))
def test_default_scores_are_those_of_seqeval(pairs: Pairs) -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    gold, predicted = split(pairs)
    ours = score_spans(gold, predicted)
    for name in ("precision", "recall", "f1"):
        theirs = quietly(getattr(metrics, f"{name}_score"), gold, predicted)
        assert math.isclose(getattr(ours.micro, name), theirs, abs_tol=1e-12)
    assert ours.accuracy == quietly(metrics.accuracy_score, gold, predicted)


@pytest.mark.parametrize(
    ("scheme", "letters"), [("IOB1", "BI"), ("IOB2", "BI"), ("IOBES", "BIES"), ("BILOU", "BILU")]
)
def test_strict_scores_are_those_of_seqeval(scheme: Scheme, letters: str) -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    theirs = getattr(pytest.importorskip("seqeval.scheme"), scheme)

    @settings(deadline=None)
    @given(pairs_of(letters))
    def check(pairs: Pairs) -> None:
        gold, predicted = split(pairs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = metrics.classification_report(
                gold, predicted, mode="strict", scheme=theirs, output_dict=True
            )
        ours = score_spans(gold, predicted, scheme)
        for label, score in {**ours.by_label, "micro avg": ours.micro}.items():
            if label != "micro avg" and not score.gold:
                continue  # seqeval lists gold labels only
            wanted = report.get(label, {"precision": 0, "recall": 0, "f1-score": 0, "support": 0})
            assert math.isclose(score.precision, wanted["precision"], abs_tol=1e-12)
            assert math.isclose(score.recall, wanted["recall"], abs_tol=1e-12)
            assert math.isclose(score.f1, wanted["f1-score"], abs_tol=1e-12)
            assert score.gold == wanted["support"]

    check()


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("I-PER I-PER O I-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("I-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("B-PER I-LOC", [(0, 1, "PER"), (1, 2, "LOC")]),
        ("O B-PER E-PER E-PER", [(1, 3, "PER"), (3, 4, "PER")]),
        ("S-PER I-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("B-PER L-PER U-PER", [(0, 2, "PER"), (2, 3, "PER")]),
        ("B-PER M-PER W-PER", [(0, 2, "PER"), (2, 3, "PER")]),
        ("B M E S O", [(0, 3, "_"), (3, 4, "_")]),
        ("PER PER O PER LOC", [(0, 2, "PER"), (3, 4, "PER"), (4, 5, "LOC")]),
        ("B-GPE-NAM I-GPE-NAM", [(0, 2, "GPE-NAM")]),
        ("", []),
    ],
)
def test_conlleval_reads_invalid_sequences(tags: str, spans: list[tuple[int, int, str]]) -> None:
    assert list(spans_of(tags.split())) == spans


@pytest.mark.parametrize(
    ("scheme", "tags", "spans"),
    [
        ("IOB2", "I-PER B-PER I-PER I-LOC", [(1, 3, "PER")]),
        ("IOBES", "B-PER O S-PER B-PER E-PER E-PER", [(2, 3, "PER"), (3, 5, "PER")]),
        ("IOB1", "B-PER I-PER B-PER", [(1, 2, "PER"), (2, 3, "PER")]),
        ("IOB1", "I-PER B-PER B-LOC", [(0, 1, "PER")]),
        ("IO", "I-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("IOB2", "B-PER E-PER", [(0, 1, "PER")]),
    ],
)
def test_strict_reading(scheme: Scheme, tags: str, spans: list[tuple[int, int, str]]) -> None:
    assert list(strict_spans_of(tags.split(), scheme)) == spans


def test_counts_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-LOC"]]
    scores = score_spans(gold, predicted)
    assert scores.micro == Score(1, 3, 3)
    assert scores.by_label == {"LOC": Score(0, 1, 2), "PER": Score(1, 2, 1)}
    assert (scores.accuracy, scores.tokens) == (0.5, 6)
    assert (scores.micro.precision, scores.micro.recall, scores.micro.f1) == (1 / 3, 1 / 3, 1 / 3)


def test_nothing_scores_zero() -> None:
    nothing: list[Sequence[str]] = []
    assert score_spans(nothing, nothing).accuracy == 0
    assert score_spans([["O"]], [["O"]]).micro.f1 == 0


def test_a_span_does_not_go_on_in_the_next_sentence() -> None:
    scores = score_spans([["I-PER"], ["I-PER"]], [["I-PER"], ["I-PER"]])
    assert scores.micro.gold == 2


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="sentence 1 has 1 gold tags and 2 predicted ones"):
        score_spans([["O"]], [["O", "O"]])
    with pytest.raises(ValueError, match="1 sentences have gold tags, and 0 predicted ones"):
        score_spans([["O"]], [])

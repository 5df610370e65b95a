"""Scores of tags with intervals."""

import pytest

from lightning_modules.tasks.tagging.evaluation import dev_score, difference, evaluate
from lightning_modules.tasks.tagging.span_scores import score_spans

GOLD = [["B-A", "I-A", "O"], ["O", "B-B"], ["B-A", "O"], ["O"]]
FOUND = [["B-A", "I-A", "O"], ["O", "I-B"], ["O", "O"], ["B-A"]]


def test_scores_are_those_of_the_whole_file() -> None:
    found = evaluate(GOLD, [FOUND], "IOB2")
    loose, strict = score_spans(GOLD, FOUND), score_spans(GOLD, FOUND, "IOB2")
    assert found.scores["precision"].value == pytest.approx(loose.micro.precision)
    assert found.scores["recall"].value == pytest.approx(loose.micro.recall)
    assert found.scores["f1"].value == pytest.approx(loose.micro.f1)
    assert found.scores["strict_f1"].value == pytest.approx(strict.micro.f1)
    assert strict.micro.f1 < loose.micro.f1, "the span without B counts in one of them"
    assert found.scores["accuracy"].value == pytest.approx(5 / 8)
    assert found.by_label == loose.by_label


def test_intervals_hold_the_score_and_repeat() -> None:
    one, same = (evaluate(GOLD * 10, [FOUND * 10], "IOB2").scores for _ in range(2))
    assert one == same
    assert one["f1"].low < one["f1"].value < one["f1"].high


def test_several_trainings_are_averaged() -> None:
    scores = [evaluate(GOLD, [run], "IOB2").scores["f1"].value for run in (FOUND, GOLD)]
    both = evaluate(GOLD, [FOUND, GOLD], "IOB2")
    assert both.scores["f1"].value == pytest.approx(sum(scores) / 2)
    assert both.by_label["B"].gold == 2


def test_a_difference_is_over_the_same_sentences() -> None:
    right, wrong = (evaluate(GOLD * 10, [run * 10], "IOB2") for run in (GOLD, FOUND))
    found = difference(right, wrong)
    assert found.value == pytest.approx(1 - wrong.scores["f1"].value)
    assert 0 < found.low < found.value < found.high
    assert difference(wrong, wrong) == (0, 0, 0)
    words = [evaluate([["NN", "VB"]], [[["NN", tag]]], None) for tag in ("VB", "NN")]
    assert difference(*words).value == 0.5


def test_tags_without_spans_have_an_accuracy_only() -> None:
    found = evaluate([["NN", "VB"]], [[["NN", "NN"]]], None)
    assert {*found.scores} == {"accuracy"}
    assert found.by_label == {}
    assert found.scores["accuracy"].value == 0.5


def test_without_spans_on_both_sides_f1_is_zero() -> None:
    found = evaluate([["O", "O"]], [[["O", "O"]]], "IOB2", resamples=10)
    assert found.scores["f1"].value == 0
    assert found.scores["accuracy"].value == 1


def test_the_dev_score() -> None:
    assert dev_score(GOLD, FOUND, True) == pytest.approx(score_spans(GOLD, FOUND).micro.f1)
    assert dev_score(GOLD, FOUND, False) == pytest.approx(5 / 8)

"""Labels as arrays, the held-out share, and texts that occur twice."""

import numpy as np
import pytest

from lightning_modules.tasks.classification.examples import Problem, hold_out, overlap_of
from preprocess.reading.labelled.examples import LabelledText


def text(text: str, *labels: str, pair: str | None = None) -> LabelledText:
    return LabelledText(text, pair, labels, "line 1")


def test_single_labels_are_indices_and_an_unknown_one_is_none_of_them() -> None:
    problem = Problem.of([text("a", "y"), text("b", "x")], "single")
    assert problem.labels == ("x", "y")
    others = [text("c", "y"), text("d", "new"), text("e", "more")]
    assert problem.truth(others).tolist() == [1, 3, 2]
    assert problem.unknown(others) == {"new": 1, "more": 1}


def test_several_labels_are_flags_with_a_column_for_each_unknown_one() -> None:
    problem = Problem.of([text("a", "y", "x"), text("b")], "several")
    found = problem.truth([text("c", "y"), text("d"), text("e", "x", "new", "more")])
    assert found.tolist() == [[False, True, False, False], [False] * 4, [True, False, True, True]]
    assert problem.truth([text("d")]).tolist() == [[False] * 3]


def test_numbers_are_numbers() -> None:
    examples = [LabelledText("a", None, ("1.5",), "line 1", 1.5)]
    problem = Problem.of(examples, "number")
    assert problem.labels == ()
    assert problem.truth(examples).tolist() == [1.5]


def test_the_held_out_share_has_about_the_same_share_of_each_label() -> None:
    examples = [text(f"text {n}", "rare" if n % 10 == 0 else "common") for n in range(1000)]
    split = hold_out(examples, 0.2, seed=1)
    assert sorted(split.train + split.dev) == [*range(1000)]
    labels = [examples[n].labels[0] for n in split.dev]
    assert 19 <= labels.count("rare") <= 21
    assert 179 <= labels.count("common") <= 181


def test_the_held_out_share_of_labels_with_one_text_is_of_the_given_size() -> None:
    examples = [text(f"text {n}", f"label {n}") for n in range(1000)]
    assert 60 < len(hold_out(examples, 0.1, seed=1).dev) < 140


def test_a_text_is_held_out_or_not_whatever_the_order_of_the_file() -> None:
    examples = [text(f"text {n}", str(n % 3)) for n in range(100)]
    dev = {examples[n].text for n in hold_out(examples, 0.3, 1).dev}
    back = examples[::-1]
    assert {back[n].text for n in hold_out(back, 0.3, 1).dev} == dev
    assert {examples[n].text for n in hold_out(examples, 0.3, 2).dev} != dev


def test_equal_texts_are_on_the_same_side() -> None:
    examples = [
        text(f"Text  {n % 50}" if n % 2 else f"text {n % 50}", str(n % 3)) for n in range(300)
    ]
    split = hold_out(examples, 0.5, 1)
    found = overlap_of([examples[n] for n in split.train], [examples[n] for n in split.dev])
    assert not found.dev.any()
    assert split.dev


def test_numbers_are_held_out_as_one_group() -> None:
    examples = [LabelledText(f"t{n}", None, (str(n),), "line 1", float(n)) for n in range(100)]
    assert len(hold_out(examples, 0.2, 1).dev) in (19, 20, 21)


@pytest.mark.parametrize(("other", "is_same"), [("a  B ", True), ("a c", False)])
def test_overlap_ignores_spaces_and_case(other: str, is_same: bool) -> None:
    found = overlap_of([text("A b", "x")], [text(other, "y")])
    assert found.dev.tolist() == [is_same]


def test_overlap_counts_repeats_and_contradictions() -> None:
    train = [text("a", "x"), text("a", "x"), text("b", "x"), text("B", "y")]
    found = overlap_of(train, [text("c", "x")])
    assert (found.repeated, found.contradicting, found.dev.tolist()) == (2, 1, [False])


def test_pairs_are_the_same_only_if_both_texts_are() -> None:
    train = [text("a", "x", pair="b")]
    dev = [text("a", "x", pair="b"), text("a", "x", pair="c"), text("a", "x")]
    assert overlap_of(train, dev).dev.tolist() == [True, False, False]


def test_labels_with_lone_surrogates_are_held_out() -> None:
    examples = [text(f"\ud800{n}", "\udc00") for n in range(20)]
    assert len(np.unique(hold_out(examples, 0.5, 1).dev)) == 10

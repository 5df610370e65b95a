"""The baselines that a classifier must beat."""

import numpy as np
import pytest

from lightning_modules.tasks.classification.examples import Problem
from lightning_modules.tasks.classification.linear import baselines
from lightning_modules.tasks.classification.linear.baselines import Texts, bag_of_words, majority

SINGLE = Problem("single", ("bad", "good"))
TRAIN = Texts(["a fine film", "fine and warm", "a dull film", "dull and cold"] * 3, None)
LABELS = np.array([1, 1, 0, 0] * 3)
DEV = Texts(["fine indeed", "so dull"], None)


def test_the_most_frequent_label_is_predicted_for_all() -> None:
    found = majority(np.array([0, 1, 1]), SINGLE, dev=2)
    assert found.name == "majority ('good')"
    assert found.predicted.tolist() == [1, 1]


def test_the_most_frequent_set_of_labels_is_predicted_for_all() -> None:
    flags = np.array([[True, False, False], [True, True, False], [True, False, False]])
    found = majority(flags, Problem("several", ("a", "b")), dev=2)
    assert found.name == "majority ('a')"
    assert found.predicted.tolist() == [[True, False, False]] * 2


def test_the_mean_number_is_predicted_for_all() -> None:
    found = majority(np.array([1.0, 4.0]), Problem("number", ()), dev=2)
    assert found.name == "mean of train (2.5)"
    assert found.predicted.tolist() == [2.5, 2.5]


def test_a_bag_of_words_reads_words() -> None:
    found = bag_of_words(TRAIN, LABELS, DEV, SINGLE, "none", 1)
    assert found.name == "tf-idf of 1-2-grams of words, logistic regression"
    assert found.predicted.tolist() == [1, 0]


def test_text_without_spaces_is_read_by_characters() -> None:
    train = Texts(["这个酒店很好，服务也好", "这个酒店很差，服务也差"] * 5, None)
    dev = Texts(["房间好极了", "房间差极了"], None)
    found = bag_of_words(train, np.array([1, 0] * 5), dev, SINGLE, "none", 1)
    assert found.name == "tf-idf of 1-3-grams of characters, logistic regression"
    assert found.predicted.tolist() == [1, 0]


def test_both_texts_of_a_pair_are_read() -> None:
    train = Texts(["same"] * 12, TRAIN.texts)
    dev = Texts(["same"] * 2, DEV.texts)
    assert bag_of_words(train, LABELS, dev, SINGLE, "none", 1).predicted.tolist() == [1, 0]


def test_several_labels_and_numbers_are_predicted() -> None:
    flags = np.stack([LABELS == 0, LABELS == 1, LABELS > 5], 1)
    found = bag_of_words(TRAIN, flags, DEV, Problem("several", ("bad", "good")), "none", 1)
    assert found.predicted.tolist() == [[False, True, False], [True, False, False]]
    numbers = bag_of_words(TRAIN, LABELS.astype(float), DEV, Problem("number", ()), "none", 1)
    assert numbers.name.endswith("ridge regression")
    assert numbers.predicted[0] > numbers.predicted[1]


def test_many_labels_are_those_of_the_nearest_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MANY", 5)
    found = bag_of_words(TRAIN, LABELS, DEV, SINGLE, "none", 1)
    assert found.name == "tf-idf of 1-2-grams of words, nearest text"
    assert found.predicted.tolist() == [1, 0]
    flags = np.stack([LABELS == 1, LABELS == 0, LABELS > 5], 1)
    found = bag_of_words(TRAIN, flags, DEV, Problem("several", ("good", "bad")), "none", 1)
    assert found.name == "tf-idf of 1-2-grams of words, nearest text"
    assert found.predicted.tolist() == [[True, False, False], [False, True, False]]


def test_texts_without_words_have_no_features() -> None:
    found = bag_of_words(
        Texts([" ", ""], None), np.array([0, 1]), Texts([" "], None), SINGLE, "none", 1
    )
    assert found.name == "tf-idf: the texts have no words"
    assert found.predicted.tolist() == [0]

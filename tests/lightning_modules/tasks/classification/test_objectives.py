"""Losses and scores of the kinds of targets."""

import numpy as np
import pytest
import torch

from lightning_modules.tasks.classification.objectives import Objective


def test_one_label_is_scored_by_accuracy_and_trained_by_cross_entropy() -> None:
    truth = np.array([0, 0, 0, 1, 3])  # 3 is a label that was not in the training texts
    objective = Objective("single", truth[:4], 3)
    tensor = objective.tensor(truth)
    outputs = torch.tensor([[2.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 2]])
    assert objective.score(outputs, tensor) == pytest.approx(3 / 5)
    rows = outputs.log_softmax(1)
    expected = -(rows[0, 0] + rows[1, 0] + rows[2, 0] + rows[3, 1]) / 4
    assert objective.loss(outputs, tensor).item() == pytest.approx(expected.item())
    assert objective.loss(outputs[4:], tensor[4:]).item() == 0


def test_balanced_weights_give_each_label_the_same_share() -> None:
    truth = np.array([0, 0, 0, 2])  # no text has label 1
    objective = Objective("single", truth, 3, "balanced")
    outputs = torch.zeros(4, 3, requires_grad=True)
    objective.loss(outputs, objective.tensor(truth)).backward()
    assert outputs.grad is not None
    pulls = [-outputs.grad[truth == label, label].sum().item() for label in (0, 2)]
    assert pulls[0] == pytest.approx(pulls[1])
    # The most frequent label alone has the higher accuracy, but not the higher macro-F1.
    sides = torch.tensor([[1.0, 0, 0]] * 4), torch.eye(3)[[0, 2, 2, 2]]
    assert objective.score(sides[0], objective.tensor(truth)) == pytest.approx((6 / 7 + 0) / 2)
    assert objective.score(sides[1], objective.tensor(truth)) == pytest.approx((1 / 2 + 1 / 2) / 2)
    plain = Objective("single", truth, 3).loss(outputs, objective.tensor(truth))
    assert objective.loss(outputs, objective.tensor(truth)).item() == pytest.approx(plain.item())


def test_several_labels_are_scored_by_micro_f1() -> None:
    truth = np.array([[1, 1, 0, 1], [0, 0, 1, 0]], bool)  # the last column: unknown labels
    objective = Objective("several", truth, 3)
    tensor = objective.tensor(truth)
    outputs = torch.tensor([[3.0, -3, 3], [-3, -3, 3]])
    assert objective.score(outputs, tensor) == pytest.approx(2 * 2 / (3 + 3))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(outputs, tensor) * 3
    assert objective.loss(outputs, tensor).item() == pytest.approx(expected.item())
    assert objective.score(-torch.ones(2, 3), torch.zeros(2, 3)) == 0


def test_balanced_weights_of_several_labels_balance_presence_and_absence() -> None:
    truth = np.array([[1], [0], [0], [0]], bool)
    objective = Objective("several", truth, 1, "balanced")
    outputs = torch.zeros(4, 1, requires_grad=True)
    objective.loss(outputs, objective.tensor(truth)).backward()
    assert outputs.grad is not None
    assert outputs.grad.sum().item() == pytest.approx(0, abs=1e-6)


def test_a_number_is_trained_in_units_of_its_variance() -> None:
    truth = np.array([100.0, 300.0])
    objective = Objective("number", truth, 0)
    assert (objective.outputs, objective.center, objective.scale) == (1, 200, 100)
    outputs = torch.tensor([[100.0], [100.0]])
    assert objective.loss(outputs, objective.tensor(truth)).item() == pytest.approx(2)
    assert objective.score(outputs, objective.tensor(truth)) == pytest.approx(-20_000)
    assert Objective("number", np.array([5.0, 5.0]), 0).scale == 1

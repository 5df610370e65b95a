"""Figures of a step, and the numbers of skipped steps on the device."""

import math
from unittest import mock

import torch

from lightning_modules.training.step_figures import StepFigures, _HostCopy


def test_steps_whose_gradient_is_not_finite_are_counted() -> None:
    figures = StepFigures(2)
    told = []
    for norm in (1.0, math.nan, math.inf, 2.0, math.nan):
        is_skipped = figures.count_gradient(torch.tensor(norm))
        assert bool(is_skipped) is not math.isfinite(norm)
        told.append((figures.skipped, figures.skipped_in_a_row, figures.known_skipped_in_a_row))

    assert told == [(0, 0, 0), (1, 1, 1), (2, 2, 2), (2, 0, 0), (3, 1, 1)]


def test_further_terms_are_means_over_the_parts_and_not_part_of_the_loss() -> None:
    figures = StepFigures(2)
    for loss, term in ((1.0, 4.0), (3.0, 8.0)):
        figures.add(torch.tensor([loss, loss + 1]))
        figures.add_term("loss_layers", torch.tensor(term))
    figures.finish(0.1)
    logged = figures.to_log()
    assert (logged["train_loss"], logged["loss_layers"], logged["loss_backward"]) == (2.5, 6, 3)

    figures.add(torch.ones(2))
    figures.finish(0.1)
    assert "loss_layers" not in figures.to_log()


def test_steps_with_a_scale_above_1_are_not_known_as_skipped_in_a_row() -> None:
    figures = StepFigures(2)
    told = []
    for norm, scale in (
        (math.inf, 4.0),
        (math.inf, 2.0),
        (math.nan, 1.0),
        (math.inf, 0.5),
        (1, 0.25),
    ):
        figures.count_gradient(torch.tensor(norm), torch.tensor(scale))
        told.append((figures.skipped_in_a_row, figures.known_skipped_in_a_row))
        again = StepFigures(2)
        again.restore(figures.to_save())
        assert again.to_save() == figures.to_save()

    assert told == [(1, 0), (2, 0), (3, 1), (4, 2), (0, 0)]


def test_the_numbers_of_skipped_steps_are_restored() -> None:
    figures = StepFigures(1)
    figures.restore({"skipped": 7, "skipped_in_a_row": 2})
    assert figures.known_skipped_in_a_row == 2

    figures.count_gradient(torch.tensor(math.nan))
    assert (figures.skipped, figures.skipped_in_a_row) == (8, 3)


def test_a_copy_from_a_device_without_events_is_done_at_once() -> None:
    tensor = mock.Mock(is_cuda=False)
    _HostCopy(tensor)
    tensor.to.assert_called_once_with("cpu", non_blocking=False)

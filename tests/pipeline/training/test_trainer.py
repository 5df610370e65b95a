"""What `fit` compares between processes, and which warnings reach the user."""

import warnings
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from lightning_modules.nn.kernels import support
from lightning_modules.nn.recurrent.graphs import Graphs
from pipeline.training.inputs import TrainingInputs
from pipeline.training.trainer import _purpose, _quiet


def purpose_of(precision: str) -> str:
    inputs = SimpleNamespace(
        config=SimpleNamespace(train=SimpleNamespace(rows=8, row_passes=1)),
        place=SimpleNamespace(work="folder"),
        step=0,
        precision=precision,
    )
    return _purpose(cast(TrainingInputs, inputs))


def test_processes_of_different_precision_have_different_purposes() -> None:
    assert purpose_of("bf16") == purpose_of("bf16") != purpose_of("float16")


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x


def test_warnings_about_slower_training_are_shown_and_others_are_not() -> None:
    def fail(function: Any) -> Any:
        raise RuntimeError("two\nlines")

    shown: list[str] = []
    with _quiet(shown.append):
        warnings.warn("use more workers", stacklevel=1)
        support._warn.__wrapped__("two\nlines")
        Graphs(2, 3, fail).of(Twice)(torch.zeros(2, 2, 3, 4))

    kernels, graphs = shown
    assert kernels.startswith("two\nlines, so this GPU trains with PyTorch's operations")
    assert graphs.startswith(
        "the recurrent layers cannot be captured in CUDA graphs (RuntimeError: "
    )

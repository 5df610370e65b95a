"""Compiling the pointwise part of a recurrent step.

Apart from the matmuls a step is a dozen small operations on the same numbers, bound by memory: one
kernel reads and writes each number once. On a CPU it is C++ (torch.compile would need four loops and
as many copies for it, and 30 microseconds to be called), built by the compiler and with the flags
that torch.compile uses; on any other device torch.compile makes it from the eager cell.
"""

import importlib.util
import os
import shutil
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from preprocess.errors import UserError

Mode = Literal["auto", "on", "off"]


class Cell(NamedTuple):
    """A step forward and its gradient; both write to tensors among their arguments."""

    forward: Callable[..., None]
    backward: Callable[..., None]


class Recipe(Protocol):
    """What there is to know of a cell: a module (lstm_cell, gru_cell)."""

    NAME: str
    EAGER: Cell

    def build(self) -> Cell:
        """The C++ cell."""

    def arguments(
        self, step: int, rows: int, hidden: int, clip: float, device: torch.device
    ) -> tuple[list[Any], list[Any]]:
        """What forward and backward are given at a step (0 or 1) of a run over time."""


def compile_cell(
    mode: Mode, recipe: Recipe, device: torch.device, rows: int, hidden: int, clip: float
) -> tuple[Cell, str]:
    """The cell for this device and a sentence that says whether it is compiled, and why not.

    It is compiled here, and tried against the eager cell on numbers of the real size, so that a
    failure is met here as well. Other rows and lengths of text compile nothing again.

    Raises UserError where mode is "on" and the compiler is missing or fails; "auto" goes on with
    the eager cell.
    """
    name = recipe.NAME
    if mode == "off":
        return recipe.EAGER, f"The {name} cell is not compiled (train.compile is off)."
    start = time.monotonic()
    reason = _missing_compiler(device)
    if reason is None:
        try:
            cell = _compiled(recipe, device, rows, hidden, clip)
        except Exception as error:  # compilers fail in many ways, each with a type of its own
            reason = f"the compiler failed: {type(error).__name__}: {str(error).strip()[:300]}"
        else:
            return cell, f"The {name} cell is compiled ({time.monotonic() - start:.1f} s)."
    if mode == "on":
        raise UserError(
            f"train.compile is on, but the {name} cell cannot be compiled: {reason}. "
            "Mend that, or set train.compile to auto or off."
        )
    return recipe.EAGER, f"The {name} cell is not compiled, training is slower: {reason}."


CPP = """
#include <torch/csrc/inductor/cpp_prefix.h>
using V = at::vec::Vectorized<float>;
static inline V sigmoid(V x) { return V(1) / (V(1) + x.neg().exp()); }
"""  # how every kernel begins


def build_kernel(arguments: list[str], source: str) -> Callable[..., None]:
    """Compile the C++ function `kernel` with arguments of these types; tensors go as pointers."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    kernel: Callable[..., None] = CppPythonBindingsCodeCache.load_pybinding(arguments, source)
    return kernel


def try_cell(
    cell: Cell, recipe: Recipe, rows: int, hidden: int, clip: float, device: torch.device
) -> None:
    """Run a cell beside the eager one; raises AssertionError where their numbers differ.

    After this torch.compile compiles nothing again: it is told that rows vary, and it has seen the
    first step, whose tensors lie at the beginning of their storage, and another.
    """
    rows = max(2, rows)  # one would be compiled as a constant
    for step in (0, 1):
        for ours, theirs, arguments in zip(
            cell, recipe.EAGER, recipe.arguments(step, rows, hidden, clip, device), strict=True
        ):
            expected = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
            theirs(*expected)
            for tensor in arguments:
                if isinstance(tensor, Tensor) and tensor.dim() == 3:
                    torch._dynamo.mark_dynamic(tensor, 1)
            ours(*arguments)
            torch.testing.assert_close(arguments, expected, atol=1e-4, rtol=1e-4)


def _missing_compiler(device: torch.device) -> str | None:
    if device.type == "cuda":
        found = importlib.util.find_spec("triton") is not None
        return None if found else "the package triton is not installed"
    if any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name):
        return None
    return "no C++ compiler (g++, clang++ or the one $CXX names) is on the PATH"


def _compiled(recipe: Recipe, device: torch.device, rows: int, hidden: int, clip: float) -> Cell:
    with warnings.catch_warnings(), torch.no_grad():
        # the compiler's own deprecations are nobody's business here
        warnings.simplefilter("ignore")
        if device.type == "cpu":
            cell = recipe.build()
        else:
            cell = Cell(*(torch.compile(step) for step in recipe.EAGER))
        try_cell(cell, recipe, rows, hidden, clip, device)
    return cell

"""The pointwise part of an LSTM step and its gradient, eager or compiled.

Apart from the matmuls it is a dozen small operations on the same numbers, bound by memory: one
compiled kernel reads and writes each number once. Both functions take both directions at once,
(2 * rows, ...), so that no number of rows gives the length 1 for which code is specialised.
"""

import importlib.util
import os
import shutil
import time
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from preprocess.errors import UserError


class Cell(NamedTuple):
    """A forward step and its gradient."""

    forward: Callable[[Tensor, Tensor, float | None], tuple[Tensor, Tensor]]
    backward: Callable[
        [Tensor, Tensor, Tensor, Tensor, Tensor, float | None], tuple[Tensor, Tensor]
    ]


def cell_forward(gates: Tensor, cell: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
    """Gates (n, 4 * hidden) before the nonlinearities, cell (n, hidden) -> c', sigmoid(o) tanh(c')."""
    i, f, g, o = gates.chunk(4, 1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    if clip is not None:
        cell = cell.clamp(-clip, clip)
    return cell, o.sigmoid() * cell.tanh()


def cell_backward(
    gates: Tensor,
    before: Tensor,
    after: Tensor,
    d_squashed: Tensor,
    d_after: Tensor,
    clip: float | None,
) -> tuple[Tensor, Tensor]:
    """Gradient of cell_forward: by the gates (n, 4 * hidden) and by the cell (n, hidden).

    The nonlinearities are computed again: dearer in eager mode, free in a compiled kernel, and
    only the gates are kept from the forward pass.
    """
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    squashed = after.tanh()
    d_cell = d_after + d_squashed * o * (1 - squashed * squashed)
    if clip is not None:
        d_cell = d_cell * (after.abs() < clip)
    d_gates = [
        d_cell * g * i * (1 - i),
        d_cell * before * f * (1 - f),
        d_cell * i * (1 - g * g),
        d_squashed * squashed * o * (1 - o),
    ]
    return torch.cat(d_gates, 1), d_cell * f


EAGER = Cell(cell_forward, cell_backward)


def compile_cell(
    mode: Literal["auto", "on", "off"],
    device: torch.device,
    hidden: int,
    clip: float | None,
    rows: int,
) -> tuple[Cell, str]:
    """The cell for this device and a sentence that says whether it is compiled, and why not.

    It is compiled here, on numbers of the real size, so that a failure is met here as well. The
    number of rows stays variable: other rows compile nothing again.

    Raises UserError where mode is "on" and the compiler is missing or fails; "auto" goes on with
    the eager cell.
    """
    if mode == "off":
        return EAGER, "The LSTM cell is not compiled (train.compile is off)."
    start = time.monotonic()
    reason = _missing_compiler(device)
    if reason is None:
        try:
            cell = _compiled(device, hidden, clip, rows)
        except Exception as error:  # torch.compile fails in many ways, each with a type of its own
            reason = f"torch.compile failed: {type(error).__name__}: {str(error).strip()[:300]}"
        else:
            return cell, f"The LSTM cell is compiled ({time.monotonic() - start:.1f} s)."
    if mode == "on":
        raise UserError(
            f"train.compile is on, but the LSTM cell cannot be compiled: {reason}. "
            "Mend that, or set train.compile to auto or off."
        )
    return EAGER, f"The LSTM cell is not compiled, training is slower: {reason}."


def _missing_compiler(device: torch.device) -> str | None:
    if device.type == "cuda":
        found = importlib.util.find_spec("triton") is not None
        return None if found else "the package triton is not installed"
    if any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name):
        return None
    return "no C++ compiler (g++, clang++ or the one $CXX names) is on the PATH"


def _compiled(device: torch.device, hidden: int, clip: float | None, rows: int) -> Cell:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore"
        )  # the compiler's own deprecations are nobody's business here
        cell = Cell(torch.compile(cell_forward), torch.compile(cell_backward))
        numbers = [
            torch.zeros(2 * rows, width, device=device) for width in (4 * hidden, *[hidden] * 4)
        ]
        for tensor in numbers:
            torch._dynamo.mark_dynamic(tensor, 0)
        gates, before, after, d_squashed, d_after = numbers
        cell.forward(gates, before, clip)
        cell.backward(gates, before, after, d_squashed, d_after, clip)
    return cell

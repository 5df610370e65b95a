"""Compilation of the pointwise part of a recurrent step, the cell.

Besides its matmuls, a step is a dozen pointwise operations, which are bound by memory traffic. A fused
kernel reads and writes each number once. On a CPU the kernel is hand-written C++, built with the compiler
and the flags of torch.compile; the code that torch.compile itself generates has four loops with copies
between them, and 30 us of overhead per call. On a GPU of compute capability 8.0 or higher the kernel is
written in Triton. On other devices torch.compile compiles the eager cell.
"""

import os
import shutil
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_modules.nn.kernels.support import LEAST_CAPABILITY, triton_problem
from preprocess.errors import UserError

Mode = Literal["auto", "on", "off"]


class Cell(NamedTuple):
    """The forward and the backward function of a step; both write results into their arguments."""

    forward: Callable[..., None]
    backward: Callable[..., None]


class CellModule(Protocol):
    """Interface of the modules that define a cell: lstm_cell, gru_cell, sru_cell and
    hgrn2.matrix_cell.

    Attributes:
        NAME: name of the cell in messages.
        EAGER: the cell in PyTorch operations.
        fused: returns the cell of Triton kernels, which are compiled when they are called; None if there
            are no such kernels.
    """

    NAME: str
    EAGER: Cell

    def build(self) -> Cell:
        """Compile the cell in C++."""

    @property
    def fused(self) -> Callable[[], Cell] | None: ...

    def sample_arguments(
        self,
        step: int,
        rows: int,
        hidden: int,
        clip: float,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[list[Any], list[Any]]:
        """Return arguments of forward and of backward, in the memory layout of step 0 or 1 of a layer.

        Args:
            step: 0 or 1; the tensors of step 0 begin their storage.
            rows: rows of a batch.
            hidden: hidden size.
            clip: bound of the cell state, inf for none; a GRU ignores it.
            device: device of the tensors.
            dtype: dtype of what lies between two matmuls.
        """


def compile_cell(
    mode: Mode, module: CellModule, device: torch.device, rows: int, hidden: int, clip: float
) -> tuple[Cell, str]:
    """Compile a cell for a device and check it against the eager cell.

    The check runs at the real size, so a failure shows here and not in training. The compiled cell is
    also valid for other numbers of rows.

    Args:
        mode: "on" compiles or raises; "auto" compiles, or returns the eager cell if that fails;
            "off" returns the eager cell.
        module: the module that defines the cell.
        device: device of the weights.
        rows: rows of a batch.
        hidden: hidden size.
        clip: bound of the cell state, inf for none.

    Returns:
        The cell, and a sentence for the user that says whether it is compiled and, if not, why.

    Raises:
        UserError: mode is "on", and the compiler is missing or fails.
    """
    name = module.NAME
    if mode == "off":
        return module.EAGER, f"The {name} cell is not compiled (train.compile is off)."
    start = time.monotonic()
    reason = _missing_compiler(device)
    if device.type != "cpu" and module.fused is None:
        reason = "it has no fused kernel for a GPU"
    if reason is None:
        older = _missing_capability(device)
        try:
            cell = _compiled(module, device, rows, hidden, clip, fused=not older)
        except Exception as error:  # compilers raise many types of exceptions
            reason = f"the compiler failed: {type(error).__name__}: {str(error).strip()[:300]}"
        else:
            how = f"compiled by torch.compile, because {older}" if older else "compiled"
            return cell, f"The {name} cell is {how} ({time.monotonic() - start:.1f} s)."
    if mode == "on":
        raise UserError(
            f"train.compile or embed.compile is on, but the {name} cell cannot be compiled: {reason}. "
            "Fix this, or set train.compile to auto or off, or embed.compile to off."
        )
    return module.EAGER, f"The {name} cell is not compiled, so training is slower: {reason}."


CPP = """
#include <torch/csrc/inductor/cpp_prefix.h>
using V = at::vec::Vectorized<float>;
static inline V sigmoid(V x) { return V(1) / (V(1) + x.neg().exp()); }
// It takes 0.44 of the time of x.tanh(). Near 0, where the quotient cancels, it is a Taylor polynomial.
static inline V tanh_of(V x) {
    const V square = x * x, e = (x.abs() * V(-2)).exp();
    const V far = ((V(1) - e) / (V(1) + e)).copysign(x);
    V sum(62.f / 2835);
    sum = at::vec::fmadd(sum, square, V(-17.f / 315));
    sum = at::vec::fmadd(sum, square, V(2.f / 15));
    sum = at::vec::fmadd(sum, square, V(-1.f / 3));
    return V::blendv(far, at::vec::fmadd(sum * square, x, x), x.abs() < V(.3f));
}
"""  # the beginning of every kernel


def build_kernel(arguments: list[str], source: str) -> Callable[..., None]:
    """Compile the C++ function `kernel` of a source; tensors are passed as pointers.

    Args:
        arguments: C++ type of each argument.
        source: the C++ source.
    """
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    kernel: Callable[..., None] = CppPythonBindingsCodeCache.load_pybinding(arguments, source)
    return kernel


def check_cell(
    cell: Cell,
    module: CellModule,
    rows: int,
    hidden: int,
    clip: float,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Raise AssertionError if the results of a cell differ from those of the eager cell.

    This also makes torch.compile compile everything it needs: the number of rows is marked as dynamic,
    and both kinds of step are run, the first one (whose tensors begin their storage) and a later one.
    """
    rows = max(2, rows)  # torch.compile would treat 1 as a constant
    tolerance = 1e-4 if dtype == torch.float32 else 0.02  # the last bit may differ
    for step in (0, 1):
        for ours, theirs, arguments in zip(
            cell,
            module.EAGER,
            module.sample_arguments(step, rows, hidden, clip, device, dtype),
            strict=True,
        ):
            expected = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
            theirs(*expected)
            for tensor in arguments:
                if isinstance(tensor, Tensor) and tensor.dim() == 3:
                    torch._dynamo.mark_dynamic(tensor, 1)
            ours(*arguments)
            for a, b in zip(arguments, expected, strict=True):
                if isinstance(a, Tensor):
                    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def _missing_compiler(device: torch.device) -> str | None:
    if device.type == "cuda":
        return triton_problem() or None
    if any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name):
        return None
    return "no C++ compiler (g++, clang++ or the value of $CXX) is on the PATH"


def _missing_capability(device: torch.device) -> str:
    """Return why the Triton kernels do not run on a GPU, or ""; other devices have no such kernels."""
    if device.type != "cuda":
        return ""
    if torch.version.hip is not None:
        return "the fused kernels are made for NVIDIA GPUs"
    found = torch.cuda.get_device_capability(device)
    if found >= LEAST_CAPABILITY:
        return ""
    return "the GPU's compute capability {}.{} is below {}.{}".format(*found, *LEAST_CAPABILITY)


def _compiled(
    module: CellModule, device: torch.device, rows: int, hidden: int, clip: float, fused: bool
) -> Cell:
    dtypes = [torch.float32]
    with warnings.catch_warnings(), torch.no_grad():
        # Deprecation warnings of the compiler are not useful to users.
        warnings.simplefilter("ignore")
        if device.type == "cpu":
            cell = module.build()
        elif device.type == "cuda" and fused:
            assert module.fused
            cell = module.fused()
            dtypes.append(torch.bfloat16)
        else:
            cell = Cell(*(torch.compile(step) for step in module.EAGER))
            # The type of matrix products on such a GPU, unless the user sets another one.
            dtypes.append(torch.bfloat16 if torch.version.hip else torch.float16)
        for dtype in dtypes:
            check_cell(cell, module, rows, hidden, clip, device, dtype)
    return cell

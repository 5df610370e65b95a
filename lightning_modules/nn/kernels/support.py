"""Decide whether the fused kernels run on a device. Where they do not, PyTorch's operations are used."""

import functools
import importlib.metadata
import importlib.util
import sys
import warnings

import torch

LEAST_CAPABILITY = (8, 0)
"""Lowest compute capability whose tensor cores multiply bfloat16."""
LEAST_TRITON = (3, 2)
"""Lowest version of Triton: that of PyTorch 2.6."""


def are_usable(device: torch.device) -> bool:
    """Return True if the kernels run on a device.

    They need an NVIDIA GPU of compute capability 8.0 or higher, and Triton. If only Triton is missing or
    too old, or cannot compile a kernel, a warning says so once.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return False
    problem = triton_problem() or launch_problem(device)
    if problem:
        _warn(problem)
    return not problem


def triton_problem() -> str:
    """Return why Triton cannot be used, or ""."""
    if "triton" not in sys.modules and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    version = _triton_version()
    least = ".".join(map(str, LEAST_TRITON))
    found = tuple(int(part) for part in version.split(".")[:2])
    return f"triton {version} is older than {least}" if found < LEAST_TRITON else ""


@functools.cache
def launch_problem(device: torch.device) -> str:
    """Return why a small kernel cannot be compiled or launched on a GPU, or "".

    Triton needs a C compiler and a folder for its cache, and must know the GPU.
    """
    from lightning_modules.nn.kernels.wide_softmax import softmax_rows_

    try:
        column = torch.zeros(1, dtype=torch.int64, device=device)
        softmax_rows_(torch.zeros(1, 16, device=device), None, column, False)
    except Exception as error:  # compilers raise many types of exceptions
        return f"triton fails ({type(error).__name__}: {str(error).strip()[:300]})"
    return ""


@functools.cache
def _triton_version() -> str:
    """Return the version of Triton; the lowest that is supported if it is not known."""
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:  # other names, as pytorch-triton
        return ".".join(map(str, LEAST_TRITON))


@functools.cache
def _warn(problem: str) -> None:
    warnings.warn(
        f"{problem}, so this GPU trains with PyTorch's operations instead of fused kernels, which is "
        "slower; install a C compiler and the version of triton that this version of torch requires",
        stacklevel=2,
    )

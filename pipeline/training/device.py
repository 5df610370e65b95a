"""The device that the network runs on, the number of devices and threads, and the precision."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from pipeline.config.runners import RunnerConfig
from preprocess.errors import UserError
from preprocess.work.resources import check_threads, usable_cores

Precision = Literal["float32", "tf32", "bf16", "float16"]
"""Types of matrix products."""
DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
}
"""Dtype of the factors of matrix products."""
LEAST_FLOAT16 = (7, 0)
"""Lowest compute capability with units for float16 matrix products."""


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the torch device; "auto" means a GPU if there is one, otherwise the CPU.

    Raises:
        UserError: "cuda" is set and there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but torch finds no GPU; set it to auto or cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def device_count(devices: int | None, device: torch.device) -> int:
    """Return how many devices of this machine to train on.

    Args:
        devices: the number in the config; None means all GPUs, or one CPU process.
        device: decides between GPUs and CPU processes.

    Raises:
        UserError: there are fewer GPUs than ``devices``.
    """
    if device.type == "cpu":
        return devices or 1
    available = torch.cuda.device_count()
    if devices and devices > available:
        raise UserError(
            f"train.devices is {devices}, but torch finds {available} GPU(s); lower it, or set "
            "train.device to cpu"
        )
    return devices or available


def with_a_worker_per_gpu(
    runner: RunnerConfig, device: Literal["auto", "cpu", "cuda"]
) -> RunnerConfig:
    """Return the runner with a worker for each GPU of this machine.

    Only the direct runner without a number of workers is changed, and only if there is a GPU.
    """
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    if runner.kind != "direct" or runner.options.workers is not None or not gpus:
        return runner
    options = runner.options.model_copy(update={"workers": gpus})
    return runner.model_copy(update={"options": options})


def use_cores(processes: int) -> None:
    """Let torch use this process's part of the usable cores of the machine.

    Args:
        processes: processes of the training on this machine.

    Raises:
        RuntimeError: its threads cannot be started.
    """
    threads = min(torch.get_num_threads(), max(1, usable_cores() // processes))
    torch.set_num_threads(threads)
    # Lightning would set another number, and worker processes inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    check_threads(threads)


def resolve_precision(
    precision: Literal["auto", "float32", "tf32", "bf16", "float16"], device: torch.device
) -> Precision:
    """Return the type of matrix products; "auto" is the fastest one that the device has units for.

    On CPUs, "auto" means float32, because CPUs without matrix units emulate the other types.

    Raises:
        UserError: "tf32" is set, and the device does not have it.
    """
    on_gpu = device.type == "cuda"
    if precision == "tf32" and not (on_gpu and torch.cuda.is_tf32_supported()):
        raise UserError(
            f"train.precision is tf32, but {device_name(device)} cannot compute in it; an NVIDIA GPU of "
            "compute capability 8.0 or higher can. Set it to auto or float32"
        )
    if precision != "auto":
        return precision
    if not on_gpu:
        return "float32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "float16" if torch.cuda.get_device_capability(device) >= LEAST_FLOAT16 else "float32"


@contextmanager
def tf32_products(is_used: bool) -> Iterator[None]:
    """Let GPUs round the factors of float32 matrix products to TF32 within a context.

    Args:
        is_used: whether to do so; otherwise, torch's setting stays as it is.
    """
    matmul = torch.backends.cuda.matmul
    if not is_used or torch.get_float32_matmul_precision() != "highest":
        yield
        return
    # Since torch 2.9. To set it alone makes `torch.get_float32_matmul_precision` fail, which
    # Lightning calls. `torch.set_float32_matmul_precision` would change products on CPUs too.
    former = getattr(matmul, "fp32_precision", None)
    matmul.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32 = False
        if former is not None:
            matmul.fp32_precision = former


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, or the number of CPU threads, for the console."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads"

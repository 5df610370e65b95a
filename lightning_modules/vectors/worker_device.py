"""The device of a process that embeds: a GPU of its own, or the CPU.

The process that sends a job may have no GPU while its workers have some, or the reverse, so each worker
chooses its device itself.
"""

import os
import socket
import threading
from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch

from preprocess.errors import UserError

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bf16", "auto"]
_lock = threading.Lock()
_held: dict[str, socket.socket] = {}
"""Sockets of the GPUs that this process has taken, by the GPU's name."""


@cache
def worker_device(wanted: DeviceName) -> str:
    """Return the device of this process, the same one at every call.

    Args:
        wanted: "auto" for a GPU that no other process of this kind uses, or the CPU if there is none;
            "cuda" for such a GPU; "cpu".

    Raises:
        UserError: "cuda" is wanted, and this machine has no GPU that is free.
    """
    with _lock:  # workers may be threads of one process
        return choose_device(wanted, [] if wanted == "cpu" else visible_gpus())


def choose_device(wanted: DeviceName, gpus: Sequence[str]) -> str:
    """Choose the device of this process, and reserve it.

    Args:
        wanted: see `worker_device`.
        gpus: names of the GPUs, unique on this machine, in torch's order.

    Raises:
        UserError: see `worker_device`.
    """
    if wanted == "cpu":
        return "cpu"
    for number, name in enumerate(gpus):
        if _take(name):
            return f"cuda:{number}"
    if wanted == "cuda":
        host = socket.gethostname()
        raise UserError(
            f"embed.device is cuda, and each of the {len(gpus)} GPUs of the machine {host} is used by "
            f"another process that embeds; set runner.options.workers to {len(gpus)}, or embed.device "
            "to auto"
            if gpus
            else f"embed.device is cuda, but torch finds no GPU on the machine {host}; set it to auto or cpu"
        )
    return "cpu"


def matmul_dtype(precision: Precision, device: str) -> torch.dtype | None:
    """Return `BiLM.matmul_dtype` for a precision.

    Args:
        precision: "auto" means bf16 on GPUs that support it.
        device: the device, from `worker_device`.
    """
    if precision == "auto":
        is_bf16 = device != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        is_bf16 = precision == "bf16"
    return torch.bfloat16 if is_bf16 else None


def visible_gpus() -> list[str]:
    """Return for each GPU that torch sees a name that is the same in all processes of this machine."""
    if not torch.cuda.is_available():
        return []
    return [
        str(torch.cuda.get_device_properties(number).uuid)
        for number in range(torch.cuda.device_count())
    ]


def _take(name: str) -> bool:
    """Take a GPU for this process; return False if another process has it.

    The kernel frees the name when the process ends for any reason, and no file is left behind.
    """
    if name in _held:
        return True
    if not hasattr(socket, "AF_UNIX"):
        return True
    mark = socket.socket(socket.AF_UNIX)
    try:
        # A name that begins with a null byte is not a file. Only Linux has such names.
        mark.bind(f"\0biloom-embed-{os.getuid()}-{name}")
    except OSError:
        mark.close()
        return False
    _held[name] = mark
    return True

"""Where the network runs, on how many devices, in which precision."""

from typing import Literal

import torch

from preprocess.errors import UserError


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device asked for; "auto" is a GPU where there is one.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device is cuda, but torch finds no GPU; set it to auto or cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def device_count(asked: int | None, device: torch.device) -> int:
    """Devices of this machine to train on: as asked, else all GPUs, or one CPU process.

    Raises:
        UserError: there are fewer GPUs.
    """
    if device.type == "cpu":
        return asked or 1
    found = torch.cuda.device_count()
    if asked and asked > found:
        raise UserError(
            f"train.devices is {asked}, but torch finds {found} GPU(s); lower it, or set "
            "train.device to cpu"
        )
    return asked or found


def has_bf16(precision: Literal["auto", "float32", "bf16"], device: torch.device) -> bool:
    """Whether matmuls are in bfloat16: where it is asked for, and by itself where a GPU has it.

    A CPU without matrix units only emulates it, several times slower than float32.
    """
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads"

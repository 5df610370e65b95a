"""Where the network runs."""

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


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} CPU threads"

"""What the network reads at once: a stretch of text of every row, one stream a direction.

Legend of all shapes: directions (1 or 2: [0] reads forward, [1] backward, already reversed in
time), time, rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules.nn.heads.routes import Routes


class Types(NamedTuple):
    """Words by their spelling, each distinct word once.

    characters: int64 (types of the bucket, length of the bucket) for every bucket of length;
    places: int64 (directions, time, rows), which type stands where, counted through the buckets in
    order.
    """

    characters: tuple[Tensor, ...]
    places: Tensor


class Window(NamedTuple):
    """Inputs, what is to be predicted after each, and how that is dealt to the output's clusters.

    inputs: ids, int64 (directions, time, rows), or Types; targets: ids, int64 (directions, time,
    rows), below 0 where nothing is predicted; routes: of targets.reshape(-1), none: made by the
    output layer; resets: bool (directions, time, rows), before which inputs the state is set to
    zero, none: nowhere.
    """

    inputs: Tensor | Types
    targets: Tensor
    routes: Routes | None = None
    resets: Tensor | None = None


def on_device(window: Window, device: torch.device) -> Window:
    """A window whose tensors lie there."""
    moved: Window = replaced(window, Tensor, lambda tensor: tensor.to(device))
    return moved


def replaced(found: Any, kind: type, call: Callable[[Any], Any]) -> Any:
    """What nested tuples hold, with ``call`` of whatever in them is of a kind in its place."""
    if isinstance(found, kind):
        return call(found)
    if isinstance(found, tuple):
        parts = [replaced(part, kind, call) for part in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
    return found

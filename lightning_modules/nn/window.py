"""The network's input: consecutive tokens of each row's text, a separate stream per direction.

Shapes are (directions, time, rows). Index 0 of directions reads forward; index 1, if there is one,
reads backward and is already reversed in time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_modules.nn.heads.routes import Routes


class Types(NamedTuple):
    """The spelling of each distinct word (type) of a window, and the type at each position.

    Attributes:
        characters: the types in buckets of similar length, each int64 (types, maximum length).
        positions: the type at each position, as an index into the concatenation of the buckets, int64
            (directions, time, rows).
        ids: the id of each type, int64 (types,); None unless they were asked for.
    """

    characters: tuple[Tensor, ...]
    positions: Tensor
    ids: Tensor | None = None


class Window(NamedTuple):
    """Inputs and targets of the network.

    Attributes:
        inputs: ids, int64 (directions, time, rows), or `Types` for a character CNN.
        targets: the id to predict after each input, int64 (directions, time, rows); below 0 where
            nothing is predicted.
        routes: `Routes` of ``targets.reshape(-1)``; None means that the output layer computes them.
        resets: True where the state is set to zero before the input is read, bool (directions,
            time, rows); None means nowhere.
    """

    inputs: Tensor | Types
    targets: Tensor
    routes: Routes | None = None
    resets: Tensor | None = None


def on_device(window: Window, device: torch.device) -> Window:
    """Return the window with its tensors on a device."""
    moved: Window = map_leaves(window, Tensor, lambda tensor: tensor.to(device))
    return moved


def map_leaves(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Return nested (named) tuples with ``function`` applied to each value of type ``kind``."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, tuple):
        parts = [map_leaves(part, kind, function) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value

"""Build a network from the settings and weights of a model folder, which may be untrusted.

Settings and weights are compared before memory is allocated, so a folder takes no more memory than its
files.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_modules.models.model_settings import ModelSettings
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.heads.routes import id_ranks
from lightning_modules.nn.recurrent.lstm import LSTMLayer
from preprocess.errors import UserError

RANKS = ("input.ranks", "head.ranks")
"""Names of the tensors that hold the frequency ranks of ids."""

CODE_POINTS = "input.code_points"
"""Name of the tensor that holds the characters of a dictionary."""


def network_of_weights(settings: ModelSettings, weights: Mapping[str, Tensor]) -> BiLMNetwork:
    """Return the network that has these weights, which it does not copy, on the CPU.

    Torch's generators and defaults are neither used nor changed.

    Args:
        settings: the settings.
        weights: all weights, float32, and ranks, int64.

    Raises:
        ValueError: settings and weights do not fit one another, or a weight is NaN or infinite.
    """
    try:
        needed = settings.parameters
        held = sum(tensor.numel() for tensor in weights.values())
        # Only to bound the number of modules; names and shapes are compared below.
        if needed > 2 * held:
            raise ValueError(f"config.json describes {needed:,} weights, but the file has {held:,}")
        with torch.device("meta"), _Uninitialised():
            network = BiLMNetwork(
                settings.model, settings.vocabulary, settings.cutoffs, head=settings.head
            )
    except (UserError, OverflowError, RuntimeError, AssertionError) as error:
        raise ValueError(f"config.json does not describe a network: {error}") from error
    _check_shapes(network.state_dict(), weights)
    check_finite(weights)
    for name in RANKS:
        if name in weights:
            try:
                id_ranks(weights[name], len(weights[name]))
            except UserError as error:
                raise ValueError(f"'{name}': {error}") from error
    if CODE_POINTS in weights:
        _check_code_points(weights[CODE_POINTS])
    network.load_state_dict(weights, assign=True)
    for module in network.modules():
        if isinstance(module, LSTMLayer | AdaptiveSoftmax):
            module.set_constants()
    return network


def _check_code_points(code_points: Tensor) -> None:
    """Raise ValueError unless characters are valid and increase."""
    inside = (code_points >= 0) & (code_points <= sys.maxunicode)
    if not inside.all() or (code_points.diff() <= 0).any():
        raise ValueError(f"'{CODE_POINTS}' does not hold increasing Unicode characters")


def check_type_vectors(settings: ModelSettings, vectors: Tensor) -> None:
    """Raise ValueError if stored vectors of words cannot be those of a network."""
    if not settings.words_are_spelled:
        raise ValueError(
            "it has type_vectors, but the network does not read words by their spelling"
        )
    shape = (settings.vocabulary, settings.model.recurrent.direction_width)
    if vectors.dtype != torch.float32 or tuple(vectors.shape) != shape:
        raise ValueError(
            f"type_vectors have shape {tuple(vectors.shape)} and type {_name(vectors.dtype)}, not "
            f"{shape} and float32"
        )
    check_finite({"type_vectors": vectors})


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a weight is NaN or infinite."""
    if name := first_not_finite(weights):
        raise ValueError(f"'{name}' holds NaN or infinity")


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, or None if there is none."""
    for name, tensor in weights.items():
        # The sum is many times faster than isfinite of each value. That of finite values may overflow.
        if (
            tensor.is_floating_point()
            and not tensor.sum().isfinite()
            and not tensor.isfinite().all()
        ):
            return name
    return None


def _check_shapes(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise ValueError if names, shapes or types differ."""
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"no tensor '{missing[0]}'")
    if unknown := sorted(found.keys() - expected.keys()):
        raise ValueError(f"the network of config.json has no tensor '{unknown[0]}'")
    for name, tensor in expected.items():
        dtype = torch.float32 if tensor.is_floating_point() else torch.int64
        if found[name].shape != tensor.shape or found[name].dtype != dtype:
            raise ValueError(
                f"'{name}' has shape {tuple(found[name].shape)} and type {_name(found[name].dtype)}, "
                f"but config.json needs {tuple(tensor.shape)} and {_name(dtype)}"
            )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class _Uninitialised(TorchFunctionMode):
    """Leaves out the random initialisation of weights, which is slow on the meta device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("uniform_", "normal_"):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))

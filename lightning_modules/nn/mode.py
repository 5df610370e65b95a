"""How a module is called: in training or not, and with constant weights or not."""

from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def is_training(module: nn.Module, training: bool | None) -> bool:
    """Return ``training``, or the mode of a module if it is None.

    With ``training=False``, a result does not depend on the mode, which another thread or a parent
    module may change at any moment.
    """
    return module.training if training is None else training


def constant_weights(module: M) -> M:
    """Return a copy of a module that shares its weights, but computes no gradients of them.

    Hooks are shared too. The module itself stays as it is, because other threads may use it.
    """
    shared: dict[int, Any] = {}
    with torch.inference_mode(False):
        for tensor in (*module.parameters(), *module.buffers()):
            # A tensor made in inference mode cannot be a part of a gradient.
            shared[id(tensor)] = tensor.clone() if tensor.is_inference() else tensor.detach()
    part: nn.Module
    for part in module.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            shared[id(hooks)] = hooks
    return deepcopy(module, shared)

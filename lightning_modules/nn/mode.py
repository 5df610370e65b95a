"""Whether a call is part of training."""

from torch import nn


def is_training(module: nn.Module, training: bool | None) -> bool:
    """Return ``training``, or the mode of a module if it is None.

    With ``training=False``, a result does not depend on the mode, which another thread or a parent
    module may change at any moment.
    """
    return module.training if training is None else training

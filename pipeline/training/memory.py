"""Refuse a model or a batch that cannot fit into memory, before it is allocated.

A Linux machine promises more memory than it has, so that a process which uses too much is killed
without a message.
"""

import torch

from lightning_modules.config import ModelConfig
from lightning_modules.sizes import parameter_count
from lightning_modules.training.config import SGDConfig, TrainConfig
from lightning_modules.training.ranks.distribution import Share
from preprocess.errors import UserError
from preprocess.reading.compression import available_memory

FLOAT32, BF16 = 4, 2
"""Bytes of an element."""


def needed_bytes(
    model: ModelConfig, train: TrainConfig, vocabulary: int, cutoffs: tuple[int, ...], share: Share
) -> tuple[int, int]:
    """Return lower bounds of the bytes that a rank needs for its weights and for a pass.

    The first number is for the weights and the optimiser's state, without gradients. The second one
    is for the gates of all recurrent layers, which the backward pass reads, in bfloat16.
    """
    states = 0 if isinstance(train.optimizer, SGDConfig) else 1
    weights = parameter_count(model, vocabulary, cutoffs) * FLOAT32 * (1 + states)
    recurrent = model.recurrent
    cells = share.of_pass * train.unroll * model.direction_count * recurrent.layers
    return weights, cells * 3 * recurrent.hidden * BF16


def check_memory(
    model: ModelConfig,
    train: TrainConfig,
    vocabulary: int,
    cutoffs: tuple[int, ...],
    share: Share,
    device: torch.device,
) -> None:
    """Raise UserError if `needed_bytes` are more than the device has.

    Args:
        model: the network.
        train: the settings of the training.
        vocabulary: number of ids.
        cutoffs: first rank of each tail of an adaptive softmax.
        share: the rows of this rank.
        device: the device of this rank.
    """
    weights, gates = needed_bytes(model, train, vocabulary, cutoffs, share)
    if device.type == "cuda":
        free = torch.cuda.get_device_properties(device).total_memory
    else:
        free = available_memory()
    if weights + gates <= free:
        return
    parameters = parameter_count(model, vocabulary, cutoffs)
    raise UserError(
        f"training needs at least {(weights + gates) / 1e9:,.1f} GB of memory, but "
        f"{free / 1e9:,.1f} GB are available: {weights / 1e9:,.1f} GB for {parameters:,} parameters "
        f"and the optimiser, {gates / 1e9:,.1f} GB for {share.of_pass:,} rows x {train.unroll:,} "
        f"tokens; "
        + (
            "lower model.recurrent.hidden, model.recurrent.layers, model.input or the vocabulary"
            if weights > gates
            else "lower train.rows or train.unroll, or raise train.row_passes"
        )
    )

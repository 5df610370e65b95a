"""The cutoffs of the adaptive softmax that a config trains. Imports no torch.

They follow from the settings of the fingerprint and the token counts only. They must not depend on the
device, nor on how its rows are divided over devices and passes, because one fingerprint means one
architecture.
"""

import numpy as np
import numpy.typing as npt

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.nn.heads.cutoffs import choose_cutoffs
from pipeline.config.schema import Config


def softmax_size(config: Config, head: AdaptiveSoftmaxConfig) -> tuple[int, float, int]:
    """Return the width of the head's input, its ``div``, and the positions of a whole step."""
    model, train = config.model, config.train
    positions = model.direction_count * train.rows * train.unroll
    return model.recurrent.direction_width, head.div, positions


def cutoffs_of(config: Config, counts: npt.NDArray[np.uint64]) -> tuple[int, ...]:
    """Return the ranks where the tail clusters begin; () if the head has none.

    Args:
        config: the config.
        counts: how often each id that can be predicted is a target, (output vocabulary,).
    """
    head = config.model.head
    if not isinstance(head, AdaptiveSoftmaxConfig):
        return ()
    if head.cutoffs != "auto":
        return head.cutoffs
    return choose_cutoffs(counts, *softmax_size(config, head))

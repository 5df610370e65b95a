"""The clusters of an adaptive softmax that a training begins with. Imports no torch.

They follow from the settings of the fingerprint and the token counts only. They must not depend on the
device, nor on how its rows are divided over devices and passes, because one fingerprint means one
architecture.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_modules.config import AdaptiveSoftmaxConfig, ModelConfig
from lightning_modules.nn.heads.cutoffs import choose_cutoffs
from lightning_modules.training.config import TrainConfig
from preprocess.shards.format import Corpus
from preprocess.shards.stream import target_counts


def output_counts(
    corpus: Corpus, model: ModelConfig, train: TrainConfig
) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Return how often each id that can be predicted is a target, (output vocabulary,)."""
    size = model.predictable_ids(corpus.vocabulary)
    return target_counts(corpus, train.boundary, model.direction_count, size)


def softmax_size(
    model: ModelConfig, train: TrainConfig, head: AdaptiveSoftmaxConfig
) -> tuple[int, float, int]:
    """Return the width of the head's input, its ``div``, and the positions of a whole window."""
    positions = model.direction_count * train.rows * train.unroll
    return model.recurrent.direction_width, head.div, positions


def cutoffs_of(model: ModelConfig, train: TrainConfig, counts: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return the ranks where the tail clusters begin; () if the head has none.

    Args:
        model: settings of the network.
        train: settings of the training.
        counts: the result of `output_counts`.
    """
    head = model.head
    if not isinstance(head, AdaptiveSoftmaxConfig):
        return ()
    if head.cutoffs != "auto":
        return head.cutoffs
    return choose_cutoffs(counts, *softmax_size(model, train, head))

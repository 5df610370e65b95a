"""The clusters of a trained adaptive softmax, for the output layer of another network."""

from torch import Tensor, nn

from lightning_modules.config import AdaptiveSoftmaxConfig, HeadConfig
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax

Clusters = tuple[tuple[int, ...], Tensor]
"""Cutoffs, and the rank of each id, int64 (vocabulary,)."""


def clusters_of_head(trained: nn.Module, head: HeadConfig, vocabulary: int) -> Clusters | None:
    """Return the clusters of a trained output layer, or None if they do not fit a new one.

    Args:
        trained: the trained output layer.
        head: settings of the new output layer.
        vocabulary: number of ids that the new output layer predicts.
    """
    if not (
        isinstance(head, AdaptiveSoftmaxConfig)
        and isinstance(trained, AdaptiveSoftmax)
        and trained.vocabulary == vocabulary
        and head.cutoffs in ("auto", trained.cutoffs)
    ):
        return None
    return trained.cutoffs, trained.ranks

"""Keep the first ids of a word tokenizer, which are its most frequent words.

Ids do not change. A text's other words become the unknown token; an input that reads characters still
computes their vectors from their spelling.
"""

from itertools import pairwise

import torch
from torch import Tensor

from lightning_modules.config import AdaptiveInputConfig, AdaptiveSoftmaxConfig
from lightning_modules.models.model_folder import TYPE_VECTORS
from lightning_modules.models.smaller.parts import HEAD, Parts
from lightning_modules.models.smaller.request import Names, SmallerError, check_vocabulary
from preprocess.tokenizers.base import CONTROLS
from preprocess.tokenizers.words import WordTokenizer

INPUT_ROWS = ("input.embedding.weight", "input.words.weight", TYPE_VECTORS)
"""Tensors with a row per id."""
OUTPUT_ROWS = ("head.weight", "head.bias")
"""Tensors with a row per id that can be predicted, of a full or sampled softmax."""
RANKS = "head.ranks"


def keep_first_ids(parts: Parts, vocabulary: int, names: Names) -> Parts:
    """Return the model with its first ids only.

    Input vectors of the kept ids do not change. A full or sampled softmax that is kept is normalised
    over the kept ids: log p(i) = z_i - log sum_{k kept} exp z_k.

    Args:
        parts: the model.
        vocabulary: number of ids to keep, control tokens included.
        names: names of the settings, for messages.

    Raises:
        SmallerError: as in `check_vocabulary`, or a cluster of an adaptive input would be empty.
    """
    settings, weights = parts.settings, dict(parts.weights)
    present, kind = settings.vocabulary, parts.tokenizer.kind
    check_vocabulary(settings.model, settings.head, present, kind, vocabulary, names)
    assert isinstance(parts.tokenizer, WordTokenizer)
    tokenizer = parts.tokenizer.first(vocabulary - len(CONTROLS))
    before = settings.model.predictable_ids(present)
    after = settings.model.predictable_ids(vocabulary)
    is_adaptive = isinstance(settings.model.head, AdaptiveSoftmaxConfig)
    for name in INPUT_ROWS:
        if name in weights:
            weights[name] = weights[name][:vocabulary].clone()
    cutoffs = settings.cutoffs
    if isinstance(settings.model.input, AdaptiveInputConfig) and not settings.model.tied:
        cutoffs = _cut_clusters(weights, cutoffs, vocabulary, names)
    elif after < before:
        cutoffs = tuple(cutoff for cutoff in cutoffs if cutoff < after)
    if is_adaptive and after < before:
        # It is dropped, but its ranks say how frequent ids are.
        weights = {k: w for k, w in weights.items() if not k.startswith(HEAD) or k == RANKS}
    for name in OUTPUT_ROWS:
        if name in weights:
            weights[name] = weights[name][:after].clone()
    if RANKS in weights:
        weights[RANKS] = _dense(weights[RANKS][:after])
    kept = Parts(settings, weights, tokenizer)
    # No tokenizer stage made the vocabulary, so it has no content hash of its own.
    return kept.with_settings(vocabulary=vocabulary, cutoffs=cutoffs, tokenizer="")


def _cut_clusters(
    weights: dict[str, Tensor], cutoffs: tuple[int, ...], vocabulary: int, names: Names
) -> tuple[int, ...]:
    """Drop the rows of an adaptive input's other ids; return the cutoffs of the kept ones.

    Each kept id stays in its cluster, because the clusters have vectors of different widths.
    """
    whole = weights["input.ranks"]
    bounds = (0, *cutoffs, len(whole))
    clusters = list(pairwise(bounds))
    firsts = [int(((whole >= a) & (whole < b)).nonzero()[0]) for a, b in clusters]
    # A tail goes if it and the rarer ones have no kept id.
    tails = max(k for k, first in enumerate(firsts) if first < vocabulary)
    for k in range(tails, len(cutoffs)):
        del weights[f"input.vectors.{k}"], weights[f"input.projections.{k}"]
    if (least := max(firsts[: tails + 1]) + 1) > vocabulary:
        raise SmallerError(
            f"{names.vocabulary}: no id of a cluster of the adaptive input is among the first "
            f"{vocabulary:,}; choose at least {least:,}"
        )
    kept = whole[:vocabulary].sort().values  # ranks of the kept ids
    parts = [kept[(kept >= a) & (kept < b)] - a for a, b in clusters[: tails + 1]]
    tensors = ["input.shortlist", *(f"input.vectors.{k}" for k in range(tails))]
    for name, rows in zip(tensors, parts, strict=True):
        weights[name] = weights[name][rows]
    weights["input.ranks"] = _dense(whole[:vocabulary])
    ends = torch.tensor([len(part) for part in parts]).cumsum(0)
    return tuple(ends[:-1].tolist())


def _dense(ranks: Tensor) -> Tensor:
    """Return the order of ranks as 0, 1, ..., without those that are missing."""
    return ranks.argsort().argsort()

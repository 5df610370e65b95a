"""Replace the input matrix by a product of two smaller ones.

The input vectors of all ids are the rows of a matrix T, (vocabulary, width). It is approximated by

    T = 1 m + A B,  A (vocabulary, rank),  B (rank, width)

with the smallest weighted squared error, sum_i p_i |T_i - m - A_i B|^2. Its solution is a principal
component analysis: m is the weighted mean of the rows, and the rows of B are the eigenvectors of the
weighted covariance with the largest eigenvalues. A row's weight is p_i = (rank_i + 1)^-0.5 with the
frequency rank of its id: the square root of its frequency by Zipf's law, which needs no corpus.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.config import WordCharCNNInputConfig
from lightning_modules.models.smaller.parts import Parts
from lightning_modules.models.smaller.request import Names, check_rank
from lightning_modules.one_thread import one_thread

ROWS_AT_ONCE = 1 << 14
"""Rows in float64 in memory at once."""

TABLE, MAP, BIAS = "input.embedding.weight", "input.linear.weight", "input.linear.bias"
WORDS, PROJECTION, PROJECTION_BIAS = (
    *("input.words.weight", "input.projection.weight"),
    "input.projection.bias",
)
HEAD_RANKS = "head.ranks"


class LowRank(NamedTuple):
    """An approximation of a matrix.

    Attributes:
        vectors: A, (vocabulary, rank), float32.
        linear: the transpose of B, (width, rank), float32.
        bias: m, (width,), float32.
        error: square root of the weighted squared error, relative to that of m alone; 0 to 1.
    """

    vectors: Tensor
    linear: Tensor
    bias: Tensor
    error: float


def low_rank(table: Tensor, linear: Tensor | None, rank: int, share: Tensor) -> LowRank:
    """Return the best approximation of ``table @ linear.T``.

    It is computed in float64 by one thread, so that the result does not depend on the number of threads.

    Args:
        table: (vocabulary, dim), float32.
        linear: (width, dim), float32; None means the identity.
        rank: less than dim and width.
        share: weight of each row, (vocabulary,), positive.
    """
    share = share.double() / share.double().sum()
    outer = None if linear is None else linear.double().T  # (dim, width)
    with one_thread():
        mean = torch.zeros(table.shape[1] if outer is None else outer.shape[1], dtype=torch.float64)
        for rows, part in _centred(table, outer, mean.clone()):
            mean += share[rows] @ part
        covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for rows, part in _centred(table, outer, mean):
            covariance += part.T @ (share[rows, None] * part)
        values, vectors = torch.linalg.eigh(covariance)  # rising
        values = values.clamp(min=0)
        basis = vectors[:, -rank:].flip(1)  # (width, rank)
        # The sign of an eigenvector is arbitrary: its largest component is made positive.
        largest = basis.abs().argmax(0)
        basis = basis * basis[largest, torch.arange(rank)].sign()
        narrow = torch.empty(len(table), rank)
        for rows, part in _centred(table, outer, mean):
            narrow[rows] = (part @ basis).float()
    total = float(values.sum())
    lost = float(values[:-rank].sum()) / total if total else 0.0
    return LowRank(narrow, basis.float().contiguous(), mean.float(), lost**0.5)


def _centred(table: Tensor, outer: Tensor | None, mean: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of rows, and the rows of T - 1 m in float64."""
    for start in range(0, len(table), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        part = table[rows].double()
        yield rows, (part if outer is None else part @ outer) - mean


def lower_rank(parts: Parts, rank: int, names: Names) -> tuple[Parts, float]:
    """Return the model with an input matrix of a lower rank, and its `LowRank.error`.

    An embedding gets narrower vectors and a linear map, ``input.dim`` = rank. In the input of an
    ELMoForManyLangs model, the vectors of words get narrower, ``input.word_dim`` = rank.

    Args:
        parts: the model.
        rank: the rank, at least 1.
        names: names of the settings, for messages.

    Raises:
        SmallerError: as in `check_rank`.
    """
    settings, weights = parts.settings, dict(parts.weights)
    check_rank(settings.model, settings.head, rank, names)
    config = settings.model.input
    linear: Tensor | None
    if isinstance(config, WordCharCNNInputConfig):
        # The rest reads the output of the convolution.
        table, (linear, rest) = (
            weights[WORDS],
            weights[PROJECTION].tensor_split([config.word_dim], 1),
        )
    else:
        table, linear = weights[TABLE], weights.get(MAP)
    found = low_rank(table, linear, rank, (_ranks(weights, len(table)) + 1).rsqrt())
    if isinstance(config, WordCharCNNInputConfig):
        changed = {"word_dim": rank}
        weights[WORDS] = found.vectors
        weights[PROJECTION] = torch.cat([found.linear, rest], 1)
        weights[PROJECTION_BIAS] = weights[PROJECTION_BIAS] + found.bias
    else:
        changed = {"dim": rank}
        weights[TABLE], weights[MAP] = found.vectors, found.linear
        weights[BIAS] = found.bias + weights[BIAS] if BIAS in weights else found.bias
    model = settings.model.model_copy(
        update={"input": config.model_copy(update=changed), "tied": False}
    )
    return parts._replace(weights=weights).with_settings(model=model), found.error


def _ranks(weights: Mapping[str, Tensor], vocabulary: int) -> Tensor:
    """Return the frequency rank of each id, (vocabulary,); ids are ranks where the model has none."""
    ranks = torch.arange(vocabulary)
    known = weights.get(HEAD_RANKS, ranks[:0])
    ranks[: len(known)] = known
    return ranks

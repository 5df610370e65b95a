"""The table of static vectors of a model: the mean contextual vector of each type.

Bommasani et al. (2020), "Interpreting Pretrained Contextualized Representations via Reductions to Static
Embeddings", section 2: a type's vector is the mean of its vectors in the texts of a corpus ("aggregated",
pooled by mean). A type that is in no text has the vector of the type alone ("decontextualized").
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_modules.distillation.errors import DistillationError
from lightning_modules.distillation.layer import TeacherLayer
from lightning_modules.distillation.type_sums import Doubles, Floats, Ids, TypeSums
from lightning_modules.vectors.pretrained import BiLM
from preprocess.tokenizers.base import BOS, CONTROLS, EOS, UNKNOWN

TYPES_AT_ONCE = 1024
"""Types that are embedded at once as texts of their own. Part of the result: vectors depend on the batch in
the last digits."""
ROWS_AT_ONCE = 1 << 14
"""Rows of a table that are in memory as float64 at once."""


class StaticTable(NamedTuple):
    """Static vectors.

    Attributes:
        vectors: (types, width) float32.
        counts: uses of each id in the corpus, int64 (types,).
        kept: share of the variance of the uses that is left after `reduced`; 1 without it.
    """

    vectors: Floats
    counts: Ids
    kept: float = 1.0

    @property
    def occurring(self) -> int:
        """Number of types that occur, without the control tokens."""
        return int((self.counts[len(CONTROLS) :] > 0).sum())

    @property
    def alone(self) -> int:
        """Number of types that have the vector of the type alone."""
        return len(self.counts) - len(CONTROLS) - self.occurring


def static_table(
    model: BiLM, layer: TeacherLayer, uses: TypeSums, advance: Callable[[int], None]
) -> StaticTable:
    """Return the static vector of each id of a model's tokenizer.

    The unknown token has the mean over its uses; without uses, that of the types that are used once; without
    these, that of all types that are used. Boundary tokens, which no text has, have the vector 0.

    Args:
        model: the model, on the CPU.
        layer: the layer of the vectors.
        uses: the sums of the vectors, which are changed to their means.
        advance: called with the number of types that were embedded alone, whenever some were.

    Raises:
        DistillationError: no token is used.
        VectorError: the model computes NaN or infinity.
    """
    uses.flush()
    means, counts = uses.sums, uses.counts
    if not counts.any():
        raise DistillationError(
            "the texts have no tokens, so there is nothing to average; name texts with words"
        )
    if not counts[UNKNOWN]:
        once = np.flatnonzero(counts == 1)
        some = once if len(once) else np.flatnonzero(counts)
        means[UNKNOWN] = means[some].sum(0) / counts[some].sum()
    means /= np.maximum(counts, 1)[:, None]
    vectors: Floats = means.astype(np.float32)
    absent = np.flatnonzero(counts == 0)
    absent = absent[absent >= len(CONTROLS)]
    for start in range(0, len(absent), TYPES_AT_ONCE):
        some = absent[start : start + TYPES_AT_ONCE]
        vectors[some] = _alone(model, layer, some)
        advance(len(some))
    vectors[[BOS, EOS]] = 0
    return StaticTable(vectors, counts)


def _alone(model: BiLM, layer: TeacherLayer, types: Ids) -> Floats:
    """Return the vectors of types as texts of one token, (types, dim).

    The types are read as ids, because the text of a subword may have other tokens.
    """
    ids, lengths = torch.from_numpy(types)[:, None], torch.ones(len(types), dtype=torch.int64)
    layers = model.encoder.frozen_layers(ids, lengths)  # (depth, types, 1, dim)
    return layer.of_all(layers[:, :, 0].float().numpy())


def check_dim(dim: int, width: int) -> None:
    """Check the number of principal components of vectors of ``width`` numbers.

    Raises:
        DistillationError: it is not between 1 and ``width - 1``.
    """
    if not 1 <= dim < width:
        raise DistillationError(
            f"--dim: {dim} is not possible, because the vectors of this model have {width} numbers; write a "
            f"number from 1 to {width - 1}, or leave --dim out"
        )


def reduced(table: StaticTable, dim: int) -> StaticTable:
    """Return vectors of ``dim`` numbers: the principal components of the table, the largest first.

    A type counts as often as it is used, and the mean of all uses is subtracted. Each component has the sign
    that makes its largest weight positive. Boundary tokens keep the vector 0.

    Raises:
        DistillationError: the table is not wider than ``dim``.
    """
    width = table.vectors.shape[1]
    check_dim(dim, width)
    used = np.flatnonzero(table.counts)
    shares = table.counts[used, None] / table.counts.sum()  # (used types, 1)
    mean: Doubles = np.zeros(width)
    covariance: Doubles = np.zeros((width, width))
    for part in _parts(len(used)):
        mean += (table.vectors[used[part]] * shares[part]).sum(0)
    for part in _parts(len(used)):
        centred = table.vectors[used[part]] - mean
        covariance += _product(centred.T, centred * shares[part])
    # In rising order.
    variances, components = torch.linalg.eigh(torch.from_numpy(covariance))
    basis: Tensor = components[:, -dim:].flip(1)  # (width, dim)
    largest = basis.abs().argmax(0)
    basis = basis * basis[largest, torch.arange(dim)].sign()
    found = np.zeros((len(table.vectors), dim), np.float32)
    for part in _parts(len(found)):
        found[part] = _product(table.vectors[part] - mean, basis.numpy())
    found[[BOS, EOS]] = 0
    kept = float(variances[-dim:].sum() / variances.sum().clamp(min=1e-300))
    return StaticTable(found, table.counts, kept)


def _parts(rows: int) -> Iterator[slice]:
    for start in range(0, rows, ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)


def _product(one: Doubles, other: Doubles) -> Doubles:
    # By torch, whose number of threads the caller sets.
    product: Doubles = (torch.from_numpy(one) @ torch.from_numpy(other)).numpy()
    return product

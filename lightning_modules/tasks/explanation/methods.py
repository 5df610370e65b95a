"""Attributions: how much each unit of a text adds to a score.

Legend of shapes: batch is the number of texts, units the number of units of the text (tokens, words, or
the tokens of two texts in a row), dim the size of an input vector.

A score is a differentiable function of input vectors, (batch, units, dim) -> (batch,), in which the rows
do not depend on each other. The baseline is the text in which every input vector is zero.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Doubles = npt.NDArray[np.float64]
Score = Callable[[Tensor], Tensor]
Method = Literal["integrated_gradients", "gradient_x_input", "occlusion"]

POSITIONS = 4096
"""Units of all rows that are computed at once, to bound the memory; at least one row is computed."""
PANELS, POINTS = 4, 8
"""Parts of the path of integrated gradients at first, and points of the quadrature in each."""
MOST_POSITIONS = 1 << 17
"""Units of all points together, above which no part of the path is divided further."""
THINNEST = 2.0**-24
"""Length of a part of the path that is not divided further, because float32 has no more digits."""
TOLERANCE = 0.01
"""Share of the change of the score that the attributions may miss."""
SMALLEST_CHANGE = 0.01
"""Changes of the score below this count as this size, because float32 has no more digits."""


@dataclass(frozen=True)
class Attribution:
    """The attributions of a text.

    Attributes:
        values: attribution of each group of units, float64 (groups,), in the unit of the score.
        score: the score of the text.
        baseline: the score of the baseline.
        points: points on the path of integrated gradients, 0 for other methods.
    """

    values: Doubles
    score: float
    baseline: float
    points: int = 0

    @property
    def missing(self) -> float:
        """The change of the score from the baseline that the attributions do not add up to.

        It tends to 0 with more points of integrated gradients (completeness, Sundararajan et al. 2017).
        The other methods do not add up to the change.
        """
        return self.score - self.baseline - float(self.values.sum())

    @property
    def unattributed(self) -> str:
        """A note if integrated gradients miss more than `TOLERANCE`, otherwise ""."""
        change = self.score - self.baseline
        if not self.points or abs(self.missing) <= _allowed(change):
            return ""
        return f"; not attributed: {self.missing:.2g} of a change of the score of {change:.2g}"


def attribute(
    method: Method, score: Score, vectors: Tensor, groups: Tensor | None = None
) -> Attribution:
    """Return the attributions of a text.

    Args:
        method: "integrated_gradients" (Sundararajan et al. 2017): the gradient, averaged over the
            straight path from the baseline to the text, times the input; "gradient_x_input": the
            gradient at the text times the input; "occlusion" (Zeiler and Fergus 2014): how much the
            score falls if a unit's vector is zero.
        score: the score.
        vectors: the input vectors of the text, (units, dim), floating point.
        groups: the group of each unit, int64 (units,), counted from 0, such as the word of each token.
            A group has one attribution; its units are occluded together. None means that each unit is
            a group.
    """
    if method == "occlusion":
        return occlusion(score, vectors, groups)
    if method == "gradient_x_input":
        return gradient_x_input(score, vectors, groups)
    return integrated_gradients(score, vectors, groups)


def integrated_gradients(
    score: Score, vectors: Tensor, groups: Tensor | None = None
) -> Attribution:
    """Return the attributions by adaptive Gauss-Legendre quadrature.

    On each part of the path, the attributions must add up to the change of the score between its ends,
    which is known. Parts with the largest errors are halved until the errors of all parts together are
    within `TOLERANCE` of the whole change. So points are placed where the score bends, such as near the
    baseline, where a layer norm changes abruptly.

    Args:
        score: the score.
        vectors: as in `attribute`.
        groups: as in `attribute`.
    """
    edges = np.linspace(0, 1, PANELS + 1)
    at = _along(score, vectors, edges)
    sums = _integrals(score, vectors, edges[:-1], edges[1:], groups)  # (parts, groups)
    allowed = _allowed(float(at[-1] - at[0]))
    points = PANELS * POINTS
    while True:
        errors = np.abs(np.diff(at) - sums.sum(1))
        left = max(0, MOST_POSITIONS // max(1, len(vectors)) - points) // (2 * POINTS)
        halved = np.zeros(len(errors), np.bool_)
        halved[np.argsort(-errors, kind="stable")[:left]] = True
        halved &= (errors > allowed / len(errors)) & (np.diff(edges) > THINNEST)
        if errors.sum() <= allowed or not halved.any():
            return Attribution(sums.sum(0), float(at[-1]), float(at[0]), points)
        where = np.flatnonzero(halved) + 1
        middles = (edges[where - 1] + edges[where]) / 2
        edges = np.insert(edges, where, middles)
        at = np.insert(at, where, _along(score, vectors, middles))
        is_new = np.repeat(halved, 1 + halved)
        sums = np.repeat(sums, 1 + halved, 0)
        sums[is_new] = _integrals(score, vectors, edges[:-1][is_new], edges[1:][is_new], groups)
        points += int(is_new.sum()) * POINTS


def _integrals(
    score: Score, vectors: Tensor, starts: Doubles, ends: Doubles, groups: Tensor | None
) -> Doubles:
    """Return the attributions of parts of the path, float64 (parts, groups)."""
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)  # on [-1, 1]
    widths = (ends - starts) / 2
    shares = ((starts + ends) / 2)[:, None] + widths[:, None] * nodes
    at, of = shares.ravel(), (widths[:, None] * weights).ravel()
    part_of = np.repeat(np.arange(len(starts)), POINTS)
    total = np.zeros((len(starts), len(vectors)))
    for part in _pieces(len(at), len(vectors)):
        points = vectors.new_tensor(at[part])[:, None, None] * vectors
        slopes = torch.einsum("bud,ud->bu", _gradients(score, points).double(), vectors.double())
        np.add.at(total, part_of[part], of[part, None] * slopes.cpu().numpy())
    by_unit = torch.from_numpy(total.T.copy()).to(vectors.device)
    return np.ascontiguousarray(_by_group(by_unit, groups).T.cpu().numpy())


def _along(score: Score, vectors: Tensor, shares: Doubles) -> Doubles:
    """Return the score at some shares of the path, float64 (shares,)."""
    found = [
        scores_of(score, vectors.new_tensor(shares[part])[:, None, None] * vectors).cpu().numpy()
        for part in _pieces(len(shares), len(vectors))
    ]
    return np.concatenate(found)


def gradient_x_input(score: Score, vectors: Tensor, groups: Tensor | None = None) -> Attribution:
    """Return the gradient at the text times the input, summed over dimensions."""
    gradient = _gradients(score, vectors[None])[0]
    values = _by_group((gradient.double() * vectors.double()).sum(1), groups)
    return _attribution(score, vectors, values)


def occlusion(score: Score, vectors: Tensor, groups: Tensor | None = None) -> Attribution:
    """Return how much the score falls if the vectors of each group are replaced by zeros."""
    groups = _groups(vectors, groups)
    numbers = torch.arange(_count(groups), device=vectors.device)
    whole = scores_of(score, vectors[None])
    left = [whole[:0]]
    for part in _pieces(len(numbers), len(vectors)):
        deleted = groups[None] == numbers[part, None]  # (batch, units)
        left.append(scores_of(score, vectors.masked_fill(deleted[..., None], 0)))
    return _attribution(score, vectors, whole - torch.cat(left))


@dataclass(frozen=True)
class Deletion:
    """What is left of a score without some units of a text, whose vectors are replaced by zeros.

    Attributes:
        count: number of groups that are deleted.
        named: the score without the groups of the highest attributions.
        random: the mean score without as many units at random.
    """

    count: int
    named: float
    random: float


def delete(
    score: Score,
    vectors: Tensor,
    values: Doubles,
    groups: Tensor | None = None,
    share: float = 0.2,
    draws: int = 20,
) -> Deletion:
    """Compare the deletion of the groups with the highest attributions with deletion at random.

    Args:
        score: the score.
        vectors: the input vectors of the text, (units, dim).
        values: attribution of each group, (groups,), at least one.
        groups: as in `attribute`.
        share: share of the groups to delete; at least one is deleted.
        draws: number of random choices, which depend on the number of groups only.
    """
    groups = _groups(vectors, groups)
    count = max(1, round(share * len(values)))
    draw = np.random.default_rng(len(values))
    deleted = np.zeros((1 + draws, len(values)), np.bool_)
    deleted[0, np.argsort(-values, kind="stable")[:count]] = True
    for row in deleted[1:]:
        row[draw.choice(len(values), count, replace=False)] = True
    of_units = torch.from_numpy(deleted).to(vectors.device)[:, groups]
    left = torch.cat(
        [
            scores_of(score, vectors.masked_fill(of_units[part, :, None], 0))
            for part in _pieces(1 + draws, len(vectors))
        ]
    )
    return Deletion(count, float(left[0]), float(left[1:].mean()))


def scores_of(score: Score, vectors: Tensor) -> Tensor:
    """Return the scores of texts (batch, units, dim), float64 (batch,), without gradients."""
    with torch.no_grad():
        return score(vectors).double()


def _attribution(score: Score, vectors: Tensor, values: Tensor) -> Attribution:
    ends = [scores_of(score, one[None]).item() for one in (vectors, torch.zeros_like(vectors))]
    return Attribution(values.cpu().numpy(), ends[0], ends[1])


def _allowed(change: float) -> float:
    """Return how much of a change of the score the attributions may miss."""
    return TOLERANCE * max(abs(change), SMALLEST_CHANGE)


def _gradients(score: Score, vectors: Tensor) -> Tensor:
    """Return the gradient of each row's score, (batch, units, dim)."""
    with torch.enable_grad():
        points = vectors.detach().clone().requires_grad_()
        (gradients,) = torch.autograd.grad(score(points).sum(), points)
    return gradients


def _groups(vectors: Tensor, groups: Tensor | None) -> Tensor:
    return torch.arange(len(vectors), device=vectors.device) if groups is None else groups


def _count(groups: Tensor) -> int:
    return int(groups.max()) + 1 if len(groups) else 0


def _by_group(values: Tensor, groups: Tensor | None) -> Tensor:
    """Sum the values of the units of each group, (units, ...) -> (groups, ...)."""
    if groups is None:
        return values
    return values.new_zeros(_count(groups), *values.shape[1:]).index_add(0, groups, values)


def _pieces(rows: int, units: int) -> list[slice]:
    step = max(1, POSITIONS // max(1, units))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

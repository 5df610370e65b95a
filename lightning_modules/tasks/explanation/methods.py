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
STEPS = 32
"""Points on the path of integrated gradients at first."""
FURTHER = ((128, 1), (128, 8), (512, 8), (512, 1))
"""Numbers of points, and powers as in `integrated_gradients`, that are tried until the attributions add
up. A layer norm changes abruptly at the baseline, where its input is zero; powers above 1 resolve it."""
TOLERANCE = 0.01
"""Share of the change of the score that the attributions may miss before more points are taken."""
SMALLEST_CHANGE = 0.01
"""Changes of the score below this count as this size, because float32 has no more digits."""


@dataclass(frozen=True)
class Attribution:
    """The attributions of a text.

    Attributes:
        values: attribution of each group of units, float64 (groups,), in the unit of the score.
        score: the score of the text.
        baseline: the score of the baseline.
        steps: points on the path of integrated gradients, 0 for other methods.
    """

    values: Doubles
    score: float
    baseline: float
    steps: int = 0

    @property
    def missing(self) -> float:
        """The change of the score from the baseline that the attributions do not add up to.

        It tends to 0 with more steps of integrated gradients (completeness, Sundararajan et al. 2017).
        The other methods do not add up to the change.
        """
        return self.score - self.baseline - float(self.values.sum())


def attribute(
    method: Method, score: Score, vectors: Tensor, groups: Tensor | None = None
) -> Attribution:
    """Return the attributions of a text.

    Args:
        method: "integrated_gradients" (Sundararajan et al. 2017): the gradient, averaged over the path
            from the baseline to the text, times the input, with
            `STEPS` points or more, until the attributions add up; "gradient_x_input": the gradient at the text times the input;
            "occlusion" (Zeiler and Fergus 2014): how much the score falls if a unit's vector is zero.
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
    found = integrated_gradients(score, vectors, groups=groups)
    for steps, power in FURTHER:
        if _is_complete(found):
            break
        other = integrated_gradients(score, vectors, steps, groups, power)
        found = min(found, other, key=lambda one: abs(one.missing))
    return found


def integrated_gradients(
    score: Score,
    vectors: Tensor,
    steps: int = STEPS,
    groups: Tensor | None = None,
    power: int = 1,
) -> Attribution:
    """Return the attributions by Gauss-Legendre quadrature.

    Args:
        score: the score.
        vectors: as in `attribute`.
        steps: number of points on the path.
        groups: as in `attribute`.
        power: the integral over the share a of the path is computed over a^(1 / power), so that the points
            are close to each other near the baseline.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    roots = (nodes + 1) / 2
    weights = weights * power * roots ** (power - 1)
    shares = vectors.new_tensor(roots**power)
    total = torch.zeros(vectors.shape, dtype=torch.float64, device=vectors.device)
    for part in _pieces(steps, len(vectors)):
        gradients = _gradients(score, shares[part, None, None] * vectors)
        of_part = torch.from_numpy(weights[part] / 2).to(vectors.device)
        total += torch.einsum("b,bud->ud", of_part, gradients.double())
    values = _by_group((total * vectors.double()).sum(1), groups)
    return _attribution(score, vectors, values, steps)


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


def _attribution(score: Score, vectors: Tensor, values: Tensor, steps: int = 0) -> Attribution:
    ends = [scores_of(score, one[None]).item() for one in (vectors, torch.zeros_like(vectors))]
    return Attribution(values.cpu().numpy(), ends[0], ends[1], steps)


def _is_complete(found: Attribution) -> bool:
    change = abs(found.score - found.baseline)
    return abs(found.missing) <= TOLERANCE * max(change, SMALLEST_CHANGE)


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
    """Sum the values of the units of each group."""
    if groups is None:
        return values
    return values.new_zeros(_count(groups)).index_add(0, groups, values)


def _pieces(rows: int, units: int) -> list[slice]:
    step = max(1, POSITIONS // max(1, units))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

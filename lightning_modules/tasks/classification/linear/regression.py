"""Linear heads on pooled vectors: logistic regression, ridge regression, discriminant analysis.

Legend of shapes: n is the number of texts, depth the number of layers, width the size of a pooled vector,
k the number of outputs: one for each label, or 1 for a number. f is the number of features of a text.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.classification.examples import Problem, Truth
from lightning_modules.tasks.threads import threads_for

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Weights = Literal["none", "balanced"]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the penalty of logistic regression (scikit-learn's C) that are tried."""
PENALTIES = tuple(10.0**power for power in range(-1, 6))
"""Strengths of the penalty of ridge regression that are tried."""
TRIED_SHARE, TRIED = 0.2, 10_000
"""Share of the training texts that strengths are compared on, and the most texts used for it."""
STEPS = 200
"""Iterations of logistic regression at most."""
MANY = 3_000_000
"""Texts times labels above which logistic regression would take too long."""
DISCRIMINANT = "linear discriminant analysis"
"""Name of the method, see `Linear`."""
SHRINKAGE = (1e-3, 1e-2, 1e-1, 0.5)
"""Shares of the covariance of linear discriminant analysis that are replaced by a multiple of the identity."""


@dataclass(frozen=True)
class Linear:
    """A linear map from features to one output for each label.

    Attributes:
        weight: float64 (k, f).
        bias: float64 (k,).
        strength: the chosen C of logistic regression, penalty of ridge regression, or shrinkage.
        method: ``logistic regression``, ``ridge regression`` or ``linear discriminant analysis``.
        mix: the learned weights of the layers, which sum to 1; None if they were not learned.
    """

    weight: Doubles
    bias: Doubles
    strength: float
    method: str
    mix: Doubles | None = None

    def outputs(self, features: Floats) -> Doubles:
        """Return (n, k) outputs; each row depends on its features alone, to the bit."""
        return np.stack([self.weight @ row.astype(np.float64) + self.bias for row in features])


def probabilities(outputs: Doubles, problem: Problem) -> Doubles:
    """Return the probability of each label (n, k) from outputs; for a number, the outputs."""
    if problem.target == "number":
        return outputs
    if problem.target == "several":
        with np.errstate(over="ignore"):
            found: Doubles = 1 / (1 + np.exp(-outputs))
        return found
    # In place, because 10,000 labels take 80 kB for each text.
    shares: Doubles = outputs - outputs.max(1, keepdims=True)
    np.exp(shares, out=shares)
    shares /= shares.sum(1, keepdims=True)
    return shares


def fit_linear(
    features: Floats, truth: Truth, problem: Problem, weights: Weights, seed: int
) -> Linear:
    """Fit a linear head on standardised features; the map that is returned takes them as they are.

    The strength of the penalty is the one that is best on a seeded part of the texts after training on
    the others; the head is then trained on all of them.

    Args:
        features: float32 (n, f).
        truth: the labels, as `Problem.truth` returns them, all of them known.
        problem: what is predicted.
        weights: "balanced" weighs each label's texts by the inverse of their number.
        seed: seed of that part.
    """
    mean = features.mean(0, dtype=np.float64)
    scale = features.std(0, dtype=np.float64)
    scale[scale < 1e-8] = 1.0
    x = ((features - mean) / scale).astype(np.float32)
    k = len(problem.labels)
    are_many = len(truth) * k > MANY
    with threads_for(x.size, max(1, k), blas=True):
        if problem.target == "number":
            found = _ridge(x, truth)
        elif problem.target == "several":
            fit_flags = _discriminants if are_many else _several
            found = fit_flags(x, truth[:, :k], weights, seed)
        else:
            fit = _discriminant if are_many else _logistic
            found = fit(x, truth, k, weights, seed)
    weight = found.weight / scale
    return replace(found, weight=weight, bias=found.bias - weight @ mean)


def _logistic(x: Floats, y: npt.NDArray[np.int64], k: int, weights: Weights, seed: int) -> Linear:
    """Return logistic regression by scikit-learn; labels without a text never are the largest output."""
    strength = best_strength(x, y, weights, seed)
    model = fit_logistic(x, y, strength, weights)
    rows = [model.intercept_, model.coef_]
    if len(model.classes_) == 2:
        # One output, the difference of both.
        rows = [
            np.concatenate([-rows[0] / 2, rows[0] / 2]),
            np.concatenate([-rows[1] / 2, rows[1] / 2]),
        ]
    bias, weight = np.full(k, -1e4), np.zeros((k, x.shape[1]))
    bias[model.classes_], weight[model.classes_] = rows
    return Linear(weight, bias, strength, "logistic regression")


def _several(x: Floats, flags: npt.NDArray[np.bool_], weights: Weights, seed: int) -> Linear:
    """Return one logistic regression for each label; all have the strength that is best over all."""
    n, k = flags.shape
    learned = [label for label in range(k) if 0 < flags[:, label].sum() < n]
    bias = np.log((flags.sum(0) + 0.5) / (n - flags.sum(0) + 0.5))
    weight = np.zeros((k, x.shape[1]))
    # A label of many texts tells most about the strength.
    common = sorted(
        learned, key=lambda label: (-min(flags[:, label].sum(), n - flags[:, label].sum()), label)
    )
    votes = [
        best_strength(x, flags[:, label].astype(np.int64), weights, seed) for label in common[:5]
    ]
    strength = float(np.median(votes)) if votes else 1.0
    strength = min(STRENGTHS, key=lambda one: abs(np.log(one / strength)))
    for label in learned:
        model = fit_logistic(x, flags[:, label].astype(np.int64), strength, weights)
        weight[label], bias[label] = model.coef_[0], model.intercept_[0]
    return Linear(weight, bias, strength, "logistic regression")


def best_strength(
    x: Any,
    y: npt.NDArray[np.int64],
    weights: Weights,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
) -> float:
    """Return the C of logistic regression with the lowest cross-entropy on a seeded part of the texts.

    Args:
        x: features, an array or a sparse matrix.
        y: labels, (n,).
        weights: as in `fit_linear`.
        seed: seed of the part.
        strengths: the values that are tried.
    """
    tested, fitted = _parts(x.shape[0], seed)
    # A label that is only in the tested part has no probability.
    tested = tested[np.isin(y[tested], y[fitted])]
    if not len(tested) or len({*y[fitted].tolist()}) < 2:
        return strengths[len(strengths) // 2]
    costs = {}
    for strength in strengths:
        model = fit_logistic(x[fitted], y[fitted], strength, weights)
        with np.errstate(divide="ignore"):  # a probability of 0 has an infinite cost
            found = model.predict_log_proba(x[tested])
        columns = np.searchsorted(model.classes_, y[tested])
        costs[strength] = -float(found[np.arange(len(tested)), columns].mean())
    return min(strengths, key=lambda one: (costs[one], one))


def fit_logistic(x: Any, y: npt.NDArray[np.int64], strength: float, weights: Weights) -> Any:
    """Return scikit-learn's logistic regression with C = ``strength``, trained."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=strength, max_iter=STEPS, class_weight=None if weights == "none" else weights
    )
    with warnings.catch_warnings():
        # The weights after `STEPS` iterations serve as well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def _ridge(x: Floats, y: Truth) -> Linear:
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=PENALTIES).fit(x.astype(np.float64), y)
    return Linear(
        model.coef_[None], np.array([model.intercept_]), float(model.alpha_), "ridge regression"
    )


def _discriminant(
    x: Floats, y: npt.NDArray[np.int64], k: int, weights: Weights, seed: int
) -> Linear:
    """Return linear discriminant analysis, which has a closed form, for many labels.

    The covariance is that of the texts around the mean of their label, shrunk towards a multiple of the
    identity by the share that is best on a seeded part of the texts.

    Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section 4.3.
    """

    def fitted(rows: npt.NDArray[np.int64], shrinkage: float) -> Linear:
        data, labels = x[rows].astype(np.float64), y[rows]
        counts = np.bincount(labels, minlength=k)
        means = np.zeros((k, data.shape[1]))
        np.add.at(means, labels, data)
        means /= np.maximum(counts, 1)[:, None]
        apart = data - means[labels]
        weight = _discriminant_weights(apart, means, shrinkage)
        shares = counts / len(data) if weights == "none" else (counts > 0) / (counts > 0).sum()
        bias = np.log(np.maximum(shares, 1e-300)) - (weight * means).sum(1) / 2
        bias[counts == 0] = -1e4
        return Linear(weight, bias, shrinkage, DISCRIMINANT)

    def wrong(found: Linear, tested: npt.NDArray[np.int64]) -> int:
        outputs = x[tested].astype(np.float64) @ found.weight.T + found.bias
        return int((outputs.argmax(1) != y[tested]).sum())

    return _best_shrunk(len(y), seed, fitted, wrong)


def _discriminants(x: Floats, flags: npt.NDArray[np.bool_], weights: Weights, seed: int) -> Linear:
    """Return linear discriminant analysis of each label, the texts with it against those without it.

    All labels share the covariance of all texts, so that one equation is solved for all of them. This is
    close to the covariance around both means if a label is rare, as most of so many labels are.
    """
    from scipy.sparse import csr_array

    def fitted(rows: npt.NDArray[np.int64], shrinkage: float) -> Linear:
        data, has = x[rows].astype(np.float64), csr_array(flags[rows].astype(np.float64))
        counts = np.asarray(has.sum(0))
        without = len(data) - counts
        sums = has.T @ data
        means = sums / np.maximum(counts, 1)[:, None]
        others = (data.sum(0) - sums) / np.maximum(without, 1)[:, None]
        weight = _discriminant_weights(data - data.mean(0), means - others, shrinkage)
        learned = (counts > 0) & (without > 0)
        weight[~learned] = 0
        bias = np.log((counts + 0.5) / (without + 0.5))
        if weights == "balanced":
            bias[learned] = 0
        bias -= (weight * (means + others)).sum(1) / 2
        return Linear(weight, bias, shrinkage, DISCRIMINANT)

    def cross_entropy(found: Linear, tested: npt.NDArray[np.int64]) -> float:
        part = tested[: max(1, MANY // flags.shape[1])]
        outputs = found.outputs(x[part])
        return float(np.logaddexp(0, np.where(flags[part], -outputs, outputs)).mean())

    return _best_shrunk(len(x), seed, fitted, cross_entropy)


def _best_shrunk(
    n: int,
    seed: int,
    fitted: Callable[[npt.NDArray[np.int64], float], Linear],
    cost: Callable[[Linear, npt.NDArray[np.int64]], float],
) -> Linear:
    """Return the discriminant of all texts with the shrinkage that is best on a seeded part of them.

    Args:
        n: number of texts.
        seed: seed of the part.
        fitted: returns the discriminant of the texts with these indices, for a shrinkage.
        cost: how badly a discriminant predicts the texts with these indices.
    """
    tested, rest = _parts(n, seed)
    best = SHRINKAGE[-1]
    if len(rest) > 1:
        best = min(SHRINKAGE, key=lambda one: (cost(fitted(rest, one), tested), -one))
    return fitted(np.arange(n), best)


def _discriminant_weights(apart: Doubles, means: Doubles, shrinkage: float) -> Doubles:
    """Return the (k, f) weights of a discriminant.

    Args:
        apart: the texts less the mean of their label, or of all texts, (n, f).
        means: for each label its mean, or its mean less that of the other texts, (k, f).
        shrinkage: one of `SHRINKAGE`.
    """
    covariance = apart.T @ apart / len(apart)
    level = np.trace(covariance) / len(covariance) or 1.0
    covariance *= 1 - shrinkage
    covariance[np.diag_indices_from(covariance)] += shrinkage * level
    weight: Doubles = np.linalg.solve(covariance, means.T).T.astype(np.float64)
    return weight


def _parts(n: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the texts on which strengths are compared, and those that are fitted for it."""
    order = np.random.default_rng(seed).permutation(n)[:TRIED]
    part = max(1, int(len(order) * TRIED_SHARE))
    return order[:part], order[part:]


def decide(found: Doubles, problem: Problem) -> Truth:
    """Return predictions in the form of `Problem.truth` from probabilities (n, k)."""
    if problem.target == "number":
        numbers: Truth = found[:, 0]
        return numbers
    if problem.target == "several":
        flags = np.zeros((len(found), len(problem.labels) + 1), np.bool_)
        flags[:, :-1] = found >= 0.5
        return flags
    best: Truth = found.argmax(1)
    return best


def prior_of(truth: Truth, problem: Problem) -> Doubles:
    """Return the prediction for a text without tokens, (k,): shares of the labels, or the mean number."""
    if problem.target == "number":
        return np.array([truth.mean()])
    if problem.target == "several":
        shares: Doubles = truth[:, : len(problem.labels)].mean(0)
        return shares
    return np.bincount(truth, minlength=len(problem.labels)) / len(truth)


def layer_features(layers: Floats, chosen: Sequence[int]) -> Floats:
    """Return (n, len(chosen) * width) features: the chosen layers in a row."""
    found: Floats = layers[:, [*chosen]].reshape(len(layers), -1)
    return found

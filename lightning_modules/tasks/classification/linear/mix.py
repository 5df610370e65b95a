"""A linear head on the sum of the layers with learned weights.

Legend of shapes as in `lightning_modules.tasks.classification.linear.regression`.
"""

from dataclasses import replace

import numpy as np

from lightning_modules.tasks.classification.examples import Problem, Truth
from lightning_modules.tasks.classification.linear.regression import (
    DISCRIMINANT,
    STEPS,
    Doubles,
    Floats,
    Linear,
    Weights,
    fit_linear,
)
from lightning_modules.tasks.threads import threads_for


def fit_mix(layers: Floats, truth: Truth, problem: Problem, weights: Weights, seed: int) -> Linear:
    """Fit a linear head and the weights of the layers at once.

    The features are the sum of the standardised layers, weighted by the softmax of learned numbers. The
    head for equal weights, and the strength of its penalty, is where the optimisation begins.

    Args:
        layers: float32 (n, depth, width).
        truth, problem, weights, seed: as in `fit_linear`.

    Returns:
        A map from all layers in a row, f = depth * width.
    """
    depth = layers.shape[1]
    mean, scale = layers.mean(0, dtype=np.float64), layers.std(0, dtype=np.float64)
    scale[scale < 1e-8] = 1.0
    # So that the sum with equal weights is standardised too.
    level = ((layers - mean) / scale).mean(1).std(0)
    scale *= np.where(level < 1e-8, 1.0, level)
    x = ((layers - mean) / scale).astype(np.float32)
    begin = fit_linear(x.mean(1), truth, problem, weights, seed)
    shares, mixed = np.full(depth, 1 / depth), begin
    if begin.method != DISCRIMINANT:
        shares, mixed = _learn_mix(x, truth, problem, weights, begin)
    # (k, depth, width)
    weight = shares[:, None] * mixed.weight[:, None, :] / scale
    bias = mixed.bias - (weight * mean).sum((1, 2))
    return replace(begin, weight=weight.reshape(len(weight), -1), bias=bias, mix=shares)


def _learn_mix(
    x: Floats, truth: Truth, problem: Problem, weights: Weights, begin: Linear
) -> tuple[Doubles, Linear]:
    """Return the weights of the layers, and the head on their sum, by L-BFGS from ``begin``."""
    import torch
    from scipy.optimize import minimize

    n, depth, width = x.shape
    k = len(begin.bias)
    data = torch.from_numpy(x)
    costs = torch.from_numpy(_costs(truth, problem, weights))
    target = torch.from_numpy(
        truth[:, :k].astype(np.float64) if problem.target == "several" else truth
    )
    penalty = begin.strength if problem.target == "number" else 1 / begin.strength

    def parts(flat: torch.Tensor) -> list[torch.Tensor]:
        mix, weight, bias = flat.split([depth, k * width, k])
        return [mix.softmax(0), weight.reshape(k, width), bias]

    def loss(flat: Doubles) -> tuple[float, Doubles]:
        values = torch.from_numpy(flat).requires_grad_()
        shares, weight, bias = parts(values)
        mixed = torch.einsum("d,ndw->nw", shares.float(), data)
        outputs = (mixed @ weight.float().T).double() + bias
        if problem.target == "number":
            each = (outputs[:, 0] - target).square() / 2
        elif problem.target == "several":
            each = torch.nn.functional.binary_cross_entropy_with_logits(
                outputs, target, reduction="none"
            )
        else:
            each = torch.nn.functional.cross_entropy(outputs, target, reduction="none")
        total = (each * costs).sum() + penalty * weight.square().sum() / 2
        (gradient,) = torch.autograd.grad(total / n, values)
        return float(total.detach()) / n, gradient.numpy()

    flat = np.concatenate([np.zeros(depth), begin.weight.ravel(), begin.bias])
    with threads_for(data.numel(), k, blas=True):
        best = minimize(loss, flat, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    shares, weight, bias = (part.numpy() for part in parts(torch.from_numpy(best.x)))
    return shares, replace(begin, weight=weight, bias=bias)


def _costs(truth: Truth, problem: Problem, weights: Weights) -> Doubles:
    """Return the weight of each text, (n,), or for several labels of each text and label, (n, k)."""
    if problem.target == "number" or weights == "none":
        return np.ones((len(truth), 1) if problem.target == "several" else len(truth))
    if problem.target == "single":
        counts = np.bincount(truth, minlength=len(problem.labels))
        return np.asarray((len(truth) / (np.maximum(counts, 1) * (counts > 0).sum()))[truth])
    flags = truth[:, : len(problem.labels)]
    positive = flags.sum(0)
    found: Doubles = np.where(
        flags,
        len(flags) / (2 * np.maximum(positive, 1)),
        len(flags) / (2 * np.maximum(len(flags) - positive, 1)),
    )
    return found

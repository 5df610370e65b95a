"""The linear classifier of a probe."""

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_modules.tasks.threads import threads_for
from preprocess.errors import UserError

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

ITERATIONS = 300
"""Maximum number of iterations of L-BFGS."""

TOLERANCE = 1e-3
"""Largest element of the gradient at which training stops."""


class ProbeError(UserError):
    """Data that cannot be probed, or a library that is not installed."""


class Fitted(NamedTuple):
    """What a linear classifier predicts.

    Attributes:
        predicted: predicted labels of the dev rows, int64, shape (rows,).
        iterations: iterations that it was trained for.
        converged: False if training stopped at `ITERATIONS`.
    """

    predicted: Labels
    iterations: int
    converged: bool


def fit_linear(train: Floats, labels: Labels, dev: Floats) -> Fitted:
    """Train multinomial logistic regression with an L2 penalty (C = 1), and predict.

    Features are standardised by the mean and standard deviation of the training rows. The loss is
    convex, so the result does not depend on a seed.

    Args:
        train: features of the training rows, shape (rows, dim).
        labels: their labels, int64, shape (rows,). If all are equal, this label is predicted.
        dev: features of the dev rows, shape (rows, dim).

    Raises:
        ProbeError: scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ProbeError(
            "a probe needs scikit-learn, which is not installed; pip install 'biloom[tasks]'"
        ) from error
    if (labels == labels[0]).all():
        return Fitted(np.full(len(dev), labels[0]), 0, True)
    mean = train.mean(0, dtype=np.float64).astype(np.float32)
    scale = np.maximum(train.std(0, dtype=np.float64), 1e-8).astype(np.float32)
    model = LogisticRegression(max_iter=ITERATIONS, tol=TOLERANCE)
    with warnings.catch_warnings(), threads_for(train.size, int(labels.max()) + 1, blas=True):
        # Told by `converged`.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((train - mean) / scale, labels)
    iterations = int(model.n_iter_.max())
    predicted = np.asarray(model.predict((dev - mean) / scale), np.int64)
    return Fitted(predicted, iterations, iterations < ITERATIONS)

"""Projection of vectors to two dimensions, by principal components or t-SNE."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError

Floats = npt.NDArray[np.float32]


class ProjectionError(UserError):
    """Vectors that cannot be projected, or a library that is not installed."""


class Projection(NamedTuple):
    """Points in two dimensions.

    Attributes:
        points: float64, shape (n, 2).
        shares: share of the variance on each axis, for principal components; empty for t-SNE.
    """

    points: npt.NDArray[np.float64]
    shares: tuple[float, ...]


def principal_components(vectors: Floats) -> Projection:
    """Project vectors to the two directions of the largest variance.

    The sign of an axis is chosen so that the largest component of its direction is positive.

    Args:
        vectors: shape (n, dim).

    Raises:
        ProjectionError: fewer than two vectors.
    """
    centred = _centred(vectors)
    _, scales, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    points = np.zeros((len(vectors), 2))
    points[:, : len(axes)] = centred @ (axes * signs[:, None]).T
    total = float((scales**2).sum()) or 1.0
    return Projection(points, tuple(float(one**2) / total for one in scales[:2]))


def t_sne(vectors: Floats, perplexity: float, seed: int) -> Projection:
    """Project vectors with t-SNE (van der Maaten and Hinton 2008), started from principal components.

    Args:
        vectors: shape (n, dim).
        perplexity: about the number of near points that each point considers; at most a third of the
            points.
        seed: seed of the random numbers.

    Raises:
        ProjectionError: openTSNE is not installed, or there are fewer than five vectors.
    """
    try:
        from openTSNE import TSNE
    except ImportError as error:
        raise ProjectionError(
            "method=tsne needs openTSNE, which is not installed; pip install 'biloom[maps]', or use "
            "method=pca"
        ) from error
    if len(vectors) < 5:
        raise ProjectionError(
            f"method=tsne needs at least 5 points, and there are {len(vectors)}; use method=pca"
        )
    model = TSNE(
        perplexity=min(perplexity, (len(vectors) - 1) / 3),
        metric="cosine",
        initialization="pca",
        neighbors="exact",
        # With several threads, sums differ in their last digits, and the points with them.
        n_jobs=1,
        random_state=seed,
    )
    return Projection(np.asarray(model.fit(_centred(vectors)), np.float64), ())


def _centred(vectors: Floats) -> npt.NDArray[np.float64]:
    if len(vectors) < 2:
        raise ProjectionError(
            f"a map needs at least two points, and there is {'one' if len(vectors) else 'none'}; choose "
            "a word that occurs more often, or a larger cache"
        )
    rows = vectors.astype(np.float64)
    return np.asarray(rows - rows.mean(0), np.float64)

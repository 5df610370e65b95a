"""Vectors of texts in the form of an answer: one vector per text, or one per unit."""

import numpy as np
import torch
from torch.nn import functional as F

from lightning_modules.serving.source import Floats


def sentence_vector(vectors: Floats, normalize: bool) -> Floats:
    """Return the vector of a text, (layers * dim,) float32: its layers in a row.

    Args:
        vectors: (layers, 1, dim).
        normalize: whether to scale the vector to length 1.
    """
    flat = torch.from_numpy(np.ascontiguousarray(vectors[:, 0], np.float32).reshape(-1))
    return F.normalize(flat, dim=0).numpy() if normalize else flat.numpy()


def unit_vectors(vectors: Floats) -> Floats:
    """Return the vectors of a text's units, (units, layers * dim) float32, the layers in a row.

    Args:
        vectors: (layers, units, dim).
    """
    layers, units, dim = vectors.shape
    rows = vectors.transpose(1, 0, 2).reshape(units, layers * dim)
    return np.ascontiguousarray(rows, np.float32)

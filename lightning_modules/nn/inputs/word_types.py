"""Ids of a window -> its different words, in buckets of length, as the character CNN reads them."""

import numpy as np
import numpy.typing as npt
import torch

from lightning_modules.nn.window import Types
from preprocess.tokenizers.spellings import PAD, Spellings

LENGTHS = (6, 8, 10, 12, 16, 24)
"""Characters of the words of a bucket, at most, its marks included; the last takes all others.

Few buckets are few matmuls; narrow ones have little padding. With as many buckets as lengths nothing
was gained on two cores.
"""


def types_of_window(ids: npt.NDArray[np.int64], spellings: Spellings) -> Types:
    """Every different id of (directions, time, rows) once, shortest first, and where each stands."""
    types, places = np.unique(ids, return_inverse=True)
    characters = spellings.of_ids(types)  # (types, max_characters)
    lengths = (characters != PAD).sum(1)  # (types,)
    order = np.argsort(lengths, kind="stable")
    place_of = np.empty(len(types), np.int64)
    place_of[order] = np.arange(len(types))
    ends = np.searchsorted(lengths[order], LENGTHS, side="right")
    parts = (part for part in np.split(order, ends) if len(part))
    buckets = (
        characters[part, : lengths[part].max()].astype(np.int64) for part in parts
    )  # each (types of it, its longest)
    return Types(
        tuple(map(torch.from_numpy, buckets)),
        torch.from_numpy(place_of[places].reshape(ids.shape)),
    )

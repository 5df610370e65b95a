"""The distinct words of a window in buckets of similar length, as the character CNN reads them."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from lightning_modules.nn.window import Types
from preprocess.tokenizers.spellings import Spellings

LENGTHS = (6, 8, 10, 12, 16, 24)
"""Maximum word length of each bucket, in characters with marks; a last bucket takes longer words.

More buckets need less padding but more matmuls. A bucket per length was not faster on two cores.
"""


def word_encoder(
    spelling: Callable[[int], str], vocabulary: int, max_characters: int, with_ids: bool = False
) -> Callable[[npt.NDArray[np.int64]], Types]:
    """Return a function from the ids of a window to its types, for a character CNN.

    Args:
        spelling: spelling of an id.
        vocabulary: number of ids.
        max_characters: longest spelling, in bytes with marks.
        with_ids: as of `types_of_window`.
    """
    spellings = Spellings(spelling, vocabulary, max_characters)
    return partial(types_of_window, spellings=spellings, with_ids=with_ids)


def types_of_window(
    ids: npt.NDArray[np.int64], spellings: Spellings, with_ids: bool = False
) -> Types:
    """Return the types of a window: each distinct id once, shortest spelling first.

    Args:
        ids: (directions, time, rows).
        spellings: spellings of the vocabulary.
        with_ids: whether the result has `Types.ids`, which only a teacher reads: each tensor of a window
            is a copy to the device in each step.
    """
    types, places = np.unique(ids, return_inverse=True)
    characters = spellings.of_ids(types)  # (types, max_characters)
    lengths = (characters != spellings.speller.pad).sum(1)  # (types,)
    order = np.argsort(lengths, kind="stable")
    rank = np.empty(len(types), np.int64)
    rank[order] = np.arange(len(types))
    ends = np.searchsorted(lengths[order], LENGTHS, side="right")
    parts = (part for part in np.split(order, ends) if len(part))
    # Each (types of the bucket, longest of them).
    buckets = (characters[part, : lengths[part].max()].astype(np.int64) for part in parts)
    return Types(
        tuple(map(torch.from_numpy, buckets)),
        torch.from_numpy(rank[places].reshape(ids.shape)),
        torch.from_numpy(types[order]) if with_ids else None,
    )

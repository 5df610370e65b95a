"""What is worked out of a window's ids on the CPU, so that the device never has to be waited for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lightning_modules.nn.heads.routes import route
from lightning_modules.nn.window import Types, Window
from preprocess.tokenizers.base import UNKNOWN

Int64Ids = npt.NDArray[np.int64]


def resets(ids: Int64Ids, boundary: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which inputs stand before a document in the direction they are read in.

    Args:
        ids: (directions, time, rows), [0] forward, [1] backward, of the shape returned.
        boundary: the ids before and after a document.
    """
    found: npt.NDArray[np.bool_] = ids == np.array(boundary)[: len(ids), None, None]
    return found


class WindowMaker:
    """Int64Ids of a stretch of text -> what the network reads.

    Args:
        ranks: int64 (ids that can be predicted,), rank of each by count; targets beyond become the
            unknown id.
        cutoffs: of the adaptive softmax, to whose tails the targets are dealt.
        encode: what the input encoder reads instead of ids; none: ids.
        boundary: between documents, where ``reset_state`` asks to forget the one before; none: never.
    """

    def __init__(
        self,
        ranks: np.ndarray[Any, np.dtype[np.int64]],
        cutoffs: tuple[int, ...],
        encode: Callable[[Int64Ids], Types] | None = None,
        boundary: tuple[int, int] | None = None,
    ) -> None:
        self._ranks, self._cutoffs = ranks, cutoffs
        self._encode, self._boundary = encode, boundary

    def __call__(self, ids: Int64Ids, targets: Int64Ids) -> Window:
        """Int64Ids and targets (directions, time, rows) int64 -> a window on the CPU."""
        targets = np.where(targets >= len(self._ranks), UNKNOWN, targets)
        return Window(
            self._encode(ids) if self._encode else torch.from_numpy(ids),
            torch.from_numpy(targets),
            route(targets.reshape(-1), self._ranks, self._cutoffs),
            torch.from_numpy(resets(ids, self._boundary)) if self._boundary else None,
        )

"""What is worked out of a window's ids on the CPU, so that the device never has to be waited for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lightning_modules.nn.heads.routes import route
from lightning_modules.nn.window import Types, Window
from preprocess.shards.stream import Ids, resets
from preprocess.tokenizers.base import UNKNOWN


class WindowMaker:
    """Ids of a stretch of text -> what the network reads.

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
        encode: Callable[[Ids], Types] | None = None,
        boundary: tuple[int, int] | None = None,
    ) -> None:
        self._ranks, self._cutoffs = ranks, cutoffs
        self._encode, self._boundary = encode, boundary

    def __call__(self, ids: Ids, targets: Ids) -> Window:
        """Ids and targets (directions, time, rows) int64 -> a window on the CPU."""
        targets = np.where(targets >= len(self._ranks), UNKNOWN, targets)
        return Window(
            self._encode(ids) if self._encode else torch.from_numpy(ids),
            torch.from_numpy(targets),
            route(targets.reshape(-1), self._ranks, self._cutoffs),
            torch.from_numpy(resets(ids, self._boundary)) if self._boundary else None,
        )

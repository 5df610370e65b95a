"""Windows from token ids. All that depends on their values is computed on the CPU.

Nothing on the device then has a shape that depends on ids, so training never waits for the device.
"""

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
    """Return a mask of the inputs that precede a document in their direction, shape of ids.

    Args:
        ids: (directions, time, rows).
        boundary: the ids that mark the begin and the end of a document.
    """
    mask: npt.NDArray[np.bool_] = ids == np.array(boundary)[: len(ids), None, None]
    return mask


class WindowMaker:
    """Builds windows from token ids.

    Args:
        ranks: frequency rank of each id that can be predicted, int64; targets from ``len(ranks)``
            on are replaced by the unknown id.
        cutoffs: cutoffs of the adaptive softmax, for the routes of the targets.
        encode: turns ids into the input of the encoder; None means that it reads ids.
        boundary: ids that mark the begin and the end of a document, to reset the state there; None
            means that the state is never reset.
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
        """Return a window on the CPU; ids and targets are int64 (directions, time, rows)."""
        targets = np.where(targets >= len(self._ranks), UNKNOWN, targets)
        return Window(
            self._encode(ids) if self._encode else torch.from_numpy(ids),
            torch.from_numpy(targets),
            route(targets.reshape(-1), self._ranks, self._cutoffs),
            torch.from_numpy(resets(ids, self._boundary)) if self._boundary else None,
        )

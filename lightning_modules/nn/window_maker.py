"""Windows from token ids.

Every tensor whose shape depends on the values of ids is computed here, on the CPU, so training never
waits for the device.
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


def document_resets(ids: Int64Ids, boundary: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return True where a document begins: an input is the mark that its direction reads before it.

    The forward direction reads the begin mark first, the backward direction the end mark.

    Args:
        ids: (directions, time, rows).
        boundary: the ids that mark the begin and the end of a document.

    Returns:
        bool (directions, time, rows), as `Window.resets`.
    """
    mask: npt.NDArray[np.bool_] = ids == np.array(boundary)[: len(ids), None, None]
    return mask


class WindowMaker:
    """Builds windows from token ids.

    Args:
        ranks: frequency rank of each id that can be predicted, int64. Targets that cannot be
            predicted, ``len(ranks)`` and above, are replaced by the unknown id.
        cutoffs: cutoffs of the adaptive softmax, for the routes of the targets.
        encode: converts ids, int64 (directions, time, rows), to the `Types` that a character CNN
            reads; None means that the input encoder reads ids.
    """

    def __init__(
        self,
        ranks: np.ndarray[Any, np.dtype[np.int64]],
        cutoffs: tuple[int, ...],
        encode: Callable[[Int64Ids], Types] | None = None,
    ) -> None:
        self._ranks, self._cutoffs, self._encode = ranks, cutoffs, encode

    def __call__(
        self,
        ids: Int64Ids,
        targets: Int64Ids,
        resets: npt.NDArray[np.bool_] | None = None,
    ) -> Window:
        """Return a window on the CPU.

        Args:
            ids: int64 (directions, time, rows).
            targets: int64 (directions, time, rows).
            resets: as `Window.resets`.
        """
        targets = np.where(targets >= len(self._ranks), UNKNOWN, targets)
        return Window(
            self._encode(ids) if self._encode else torch.from_numpy(ids),
            torch.from_numpy(targets),
            route(targets.reshape(-1), self._ranks, self._cutoffs),
            None if resets is None else torch.from_numpy(resets),
        )

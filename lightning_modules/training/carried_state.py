"""The recurrent state of the rows of a rank, which is carried from window to window."""

import torch
from torch import Tensor

from lightning_modules.training.ranks.distribution import Share, gather_rows


class CarriedState:
    """The recurrent state of the rows of a rank.

    Args:
        state: state of all rows in global order, (layers, directions, rows, state_width).
        share: rows of the rank.
        device: the device to keep the state on.

    Attributes:
        passes: state of the rows of each pass, (layers, directions, rows of the pass, state_width).
    """

    def __init__(self, state: Tensor, share: Share, device: torch.device) -> None:
        rows = [state[:, :, part.start : part.stop] for part in share.ranges]
        # Copies, because the state of a checkpoint is mapped from its file.
        self.passes = [
            part.to(device, copy=True, memory_format=torch.contiguous_format) for part in rows
        ]
        self.keep()

    def keep(self) -> None:
        """Remember the state, for `undo_if`."""
        self._kept = list(self.passes)

    def undo_if(self, is_skipped: Tensor) -> None:
        """Return to the state at the last `keep` if a condition holds, bool ()."""
        pairs = zip(self._kept, self.passes, strict=True)
        self.passes = [torch.where(is_skipped, kept, now) for kept, now in pairs]

    def of_all_rows(self) -> Tensor:
        """Return the state of the rows of all ranks in global order, on the CPU. Collective."""
        return gather_rows(torch.cat(self.passes, 2))

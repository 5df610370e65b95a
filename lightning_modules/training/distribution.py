"""Which rows a process takes, and what processes of one training tell each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from preprocess.errors import UserError


@dataclass(frozen=True)
class Share:
    """A process's share of the rows of every batch: ``rank`` of ``world``, in ``passes``."""

    rows: int
    rank: int = 0
    world: int = 1
    passes: int = 1

    def __post_init__(self) -> None:
        if self.rows % (self.world * self.passes):
            parts = self.world * self.passes
            down, up = self.rows // parts * parts, -(-self.rows // parts) * parts
            near = f"{down} or {up}" if down else f"{up}"
            raise UserError(
                f"train.rows = {self.rows} cannot be dealt evenly to {self.world} device(s) in "
                f"{self.passes} pass(es) each; set train.rows to {near}, or change train.devices, "
                "train.num_nodes or train.row_passes"
            )

    @property
    def of_pass(self) -> int:
        """Rows of one pass."""
        return self.rows // (self.world * self.passes)

    @property
    def of_rank(self) -> range:
        """The rows of this process."""
        size = self.of_pass * self.passes
        return range(self.rank * size, (self.rank + 1) * size)

    @property
    def ranges(self) -> tuple[range, ...]:
        """The rows of each pass."""
        first = self.of_rank.start
        return tuple(
            range(first + n * self.of_pass, first + (n + 1) * self.of_pass)
            for n in range(self.passes)
        )


def gather_rows(state: Tensor) -> Tensor:
    """Every process's (layers, directions, rows of it, width) as one tensor in global row order.

    To be called by all processes at once; each gets it, on the CPU.
    """
    if not dist.is_initialized():
        return state.cpu()
    parts = [torch.empty_like(state) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, state.contiguous())
    return torch.cat(parts, 2).cpu()


def mean_over_ranks(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes, which call this at once."""
    return sum_over_ranks(values) / (dist.get_world_size() if dist.is_initialized() else 1)


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, which call this at once."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


class Agreement:
    """Numbers that all processes must see alike at a step, such as "a signal came": the largest wins.

    Over a group on the CPU, so that no GPU is waited for.
    """

    def __init__(self) -> None:
        self._group: dist.ProcessGroup | None = None
        if dist.is_initialized():
            # A group has threads of its own, which wake a hundred times a second.
            on_cpu = dist.get_backend() != "nccl"
            self._group = dist.group.WORLD if on_cpu else dist.new_group(backend="gloo")

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each number over all processes, which call this at once."""
        if self._group is None:
            return list(numbers)
        told = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(told, dist.ReduceOp.MAX, self._group)
        return [int(number) for number in told]


LOST = ("gloo/", "nccl error", "connection closed by peer", "connection reset by peer")
"""What torch's errors say where another process is gone."""


class LostProcess(UserError):  # noqa: N818
    """Another process of this training ended, so that this one cannot go on."""


@contextmanager
def other_processes_told(world: int) -> Iterator[None]:
    """Tell in one sentence that another process went, where torch tells of sockets.

    Raises:
        LostProcess: a collective operation failed.
    """
    try:
        yield
    except RuntimeError as error:
        # gloo's errors have no type of their own in every version of torch.
        told = str(error).lower()
        lost = isinstance(error, dist.DistError) or any(words in told for words in LOST)
        if world == 1 or not lost:
            raise
        raise LostProcess(
            f"another process of this training ended ({str(error).splitlines()[0]}; its own message, "
            "if it left one, stands above); mend that, and the same command goes on from the last "
            "checkpoint"
        ) from error

"""The division of a batch over ranks, and collective operations of the ranks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from preprocess.errors import JobError, UserError


@dataclass(frozen=True)
class Share:
    """The rows of every batch that a rank trains on.

    Attributes:
        rows: rows of the whole batch.
        rank: index of the rank.
        world: number of ranks.
        passes: forward and backward passes that the rank divides its rows into.

    Raises:
        UserError: if the rows cannot be divided evenly.
    """

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
                f"train.rows = {self.rows} cannot be divided evenly over {self.world} device(s) with "
                f"{self.passes} pass(es) each; set train.rows to {near}, or change train.devices, "
                "train.num_nodes or train.row_passes"
            )

    @property
    def of_pass(self) -> int:
        """Number of rows of one pass."""
        return self.rows // (self.world * self.passes)

    @property
    def of_rank(self) -> range:
        """Rows of the rank."""
        size = self.of_pass * self.passes
        return range(self.rank * size, (self.rank + 1) * size)

    @property
    def ranges(self) -> tuple[range, ...]:
        """Rows of each pass of the rank."""
        first = self.of_rank.start
        return tuple(
            range(first + n * self.of_pass, first + (n + 1) * self.of_pass)
            for n in range(self.passes)
        )


def gather_rows(state: Tensor) -> Tensor:
    """Gather the states of all ranks in global row order, on the CPU. Collective.

    Args:
        state: state of the rank's rows, (layers, directions, rows, width).

    Returns:
        (layers, directions, rows of the whole batch, width), on every rank.
    """
    if not dist.is_initialized():
        return state.cpu()
    parts = [torch.empty_like(state) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, state.contiguous())
    return torch.cat(parts, 2).cpu()


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of a tensor over all ranks. Collective."""
    return sum_over_ranks(values) / (dist.get_world_size() if dist.is_initialized() else 1)


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks. Collective."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


AGREE_SECONDS = 0.2
"""About how often the ranks agree. A signal that another rank received waits at most so long."""
AGREE_STEPS = 100
"""Most steps between two agreements, in case later steps take much longer."""


class Agreement:
    """Agreement of all ranks on numbers that may differ, such as whether a signal has arrived.

    The ranks wait for each other each time, so they agree about every `AGREE_SECONDS` and not at each
    step. They also agree on the step at which they do so next. It uses a process group on the CPU, so
    that no rank waits for its GPU. Creating it is collective.
    """

    def __init__(self) -> None:
        self._group: dist.ProcessGroup | None = None
        self._step = self._next = 0
        self._every = 1
        self._agreed = time.monotonic()
        if dist.is_initialized():
            on_cpu = dist.get_backend() == "gloo"
            self._group = dist.group.WORLD if on_cpu else dist.new_group(backend="gloo")

    def is_due(self, step: int) -> bool:
        """Return True if the ranks agree at a step: at each one if there is one rank only."""
        return self._group is None or step >= self._next

    def largest(self, step: int, *numbers: int) -> list[int]:
        """Return the maximum of each number over all ranks. Collective.

        Args:
            step: number of the step, equal on all ranks.
            numbers: numbers of this rank.
        """
        if self._group is None:
            return list(numbers)
        now = time.monotonic()
        microseconds = int((now - self._agreed) * 1e6)
        maximum = torch.tensor([microseconds, *numbers], dtype=torch.int64)
        dist.all_reduce(maximum, dist.ReduceOp.MAX, self._group)
        microseconds, *agreed = (int(number) for number in maximum)
        if steps := step - self._step:
            # The first steps take longer than the later ones, so the interval grows step by step.
            fitting = int(AGREE_SECONDS * 1e6 * steps / max(microseconds, 1))
            self._every = max(1, min(fitting, 2 * self._every, AGREE_STEPS))
        self._step, self._next, self._agreed = step, step + self._every, now
        return agreed


LOST = ("gloo/", "nccl error", "connection closed by peer", "connection reset by peer")
"""Parts of the messages, in lower case, that torch raises after another process has ended."""


class LostProcess(JobError):  # noqa: N818
    """Raised if another process of the training has ended, so that this one cannot continue."""


@contextmanager
def lost_process_reported(world: int) -> Iterator[None]:
    """Turn the error of a collective operation into `LostProcess` if another process has ended.

    Args:
        world: number of ranks.

    Raises:
        LostProcess: if another process has ended. Other errors pass unchanged.
    """
    try:
        yield
    except RuntimeError as error:
        # Not every version of torch has an exception type for errors of gloo.
        message = str(error).lower()
        lost = isinstance(error, dist.DistError) or any(words in message for words in LOST)
        if world == 1 or not lost:
            raise
        raise LostProcess(
            f"another process of this training ended ({str(error).splitlines()[0]}); its own error "
            "message, if any, is above. Fix that cause; the same command then resumes from the last "
            "checkpoint"
        ) from error

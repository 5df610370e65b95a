"""Gradients averaged over the processes of one machine through memory that they share.

Over gloo's sockets the same sum takes several times as long, and on a CPU that time is taken from the
matmuls, whose cores have to do it. DDP copies every gradient into a bucket of its own first; here it
goes where the others read it, at once when it is made, while it is still in the processor's cache.
"""

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

REGIONS = 2
"""A process may be a sum ahead of another, not more: it waits for all before each."""


class SharedSum:
    """The mean of float32 gradients over all processes, which have the same weights.

    To be made by all processes at once. Sums are made in the order of ranks, so that all processes
    have the same bits, and the same again after a restart.

    Args:
        weights: float32 on the CPU; each of them has a gradient in every backward pass.
    """

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self._places: dict[Tensor, slice] = {}  # of a weight's gradient among all
        size = 0
        for weight in weights:
            self._places[weight] = slice(size, size + weight.numel())
            size += weight.numel()
            weight.register_post_accumulate_grad_hook(self._hand_in)
        self._regions = self._share(size)
        self._awaited = 0  # gradients of a last backward pass
        self._sums = 0

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In the block is the last backward pass of a step; after it, gradients are means over all.

        Raises:
            RuntimeError: another process is gone.
        """
        self._awaited = len(self._places)
        yield
        assert not self._awaited, "a weight without a gradient would get that of an earlier step"
        self._wait()
        first, second, *others = self._regions[self._sums % REGIONS]
        with torch.no_grad():
            for weight, place in self._places.items():
                total = _flat(weight)
                torch.add(first[place], second[place], out=total)
                for other in others:
                    total += other[place]
        self._sums += 1

    @torch.no_grad()
    def _hand_in(self, weight: Tensor) -> None:
        """Called when a weight's gradient of a backward pass is complete."""
        if self._awaited:
            self._awaited -= 1
            own = self._regions[self._sums % REGIONS][self._rank]
            place = self._places[weight]
            torch.mul(_flat(weight), 1 / self._world, out=own[place])

    def _wait(self) -> None:
        dist.all_reduce(torch.zeros(1))

    def _share(self, size: int) -> Tensor:
        """Memory of all processes, float32 (regions, world, size)."""
        path: list[str] = [""]
        if self._rank == 0:
            handle, path[0] = tempfile.mkstemp(prefix="biloom-sum-", dir=_folder())
            os.truncate(handle, REGIONS * self._world * size * 4)
            os.close(handle)
        dist.broadcast_object_list(path)
        with open(path[0], "r+b") as file:
            shared = mmap.mmap(file.fileno(), 0)
        self._wait()
        if self._rank == 0:
            Path(path[0]).unlink()
        return torch.frombuffer(shared, dtype=torch.float32).view(REGIONS, self._world, size)


def _flat(weight: Tensor) -> Tensor:
    """Its gradient, (n,), in place."""
    assert weight.grad is not None
    return weight.grad.view(-1)


def _folder() -> str | None:
    """Where files are memory, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

"""Gradients summed over the processes of one machine through memory that they share.

Over gloo's sockets the same sum takes several times as long, and on a CPU that time is taken from the
matmuls, whose cores have to do it.
"""

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

REGIONS = 2
"""A process may be a sum ahead of another, not more: it waits for all before each."""


class SharedSum:
    """The mean of float32 tensors over all processes.

    To be made by all processes at once. Sums are made in the order of ranks, so that all processes
    have the same bits, and the same again after a restart.

    Args:
        group: a group of all processes over which they wait for one another.
    """

    def __init__(self, group: Any = None) -> None:
        self._group, self._rank, self._world = (
            group,
            dist.get_rank(group),
            dist.get_world_size(group),
        )
        self._sums = 0
        self._bytes = 0
        self._regions: list[np.ndarray[Any, np.dtype[np.float32]]] = []

    @torch.no_grad()
    def mean_(self, values: Tensor) -> Tensor:
        """Replace ``values`` (n,), float32 on the CPU, by their mean over all processes.

        Raises:
            RuntimeError: another process is gone.
        """
        if values.nbytes > self._bytes:
            self._share(values.nbytes)
        region = self._regions[self._sums % REGIONS][:, : len(values)]  # (world, n)
        self._sums += 1
        own = values.numpy()
        np.multiply(own, np.float32(1 / self._world), out=region[self._rank])
        self._wait()
        np.add(region[0], region[1], out=own)
        for other in region[2:]:
            own += other
        return values

    def _wait(self) -> None:
        dist.all_reduce(torch.zeros(1), group=self._group)

    def _share(self, size: int) -> None:
        """Map memory for tensors of so many bytes, which all processes ask for at once."""
        self._wait()
        path: list[str] = [""]
        if self._rank == 0:
            handle, path[0] = tempfile.mkstemp(prefix="biloom-sum-", dir=_folder())
            os.truncate(handle, REGIONS * self._world * size)
            os.close(handle)
        dist.broadcast_object_list(path, 0, self._group)
        with open(path[0], "r+b") as file:
            shared = mmap.mmap(file.fileno(), 0)
        self._wait()
        if self._rank == 0:
            Path(path[0]).unlink()
        whole = np.frombuffer(shared, np.float32).reshape(REGIONS, self._world, size // 4)
        self._bytes, self._regions = size, list(whole)


def shared_sum(
    state: SharedSum,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """DDP's communication hook: replace a bucket of gradients by its mean."""
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(state.mean_(bucket.buffer()))
    return done


def _folder() -> str | None:
    """Where files are memory, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

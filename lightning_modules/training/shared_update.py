"""The update for several processes on the CPU of one machine, with the weights in shared memory.

DDP copies every gradient into a bucket, sums the buckets through sockets, and repeats the same update
in each process. On a CPU this time is lost for training. Here each process writes a gradient to shared
memory as soon as it is computed, while it is in the processor's cache. Each process then sums the
gradients of its part of the weights and updates that part (as Rajbhandari et al. 2020, section 5.1,
partition the optimiser state). One copy of the weights exists, so it also fits better into a shared
cache.
"""

import mmap
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.update import NORM_BLOCK, Update, block_norms
from preprocess.files.temporary import temporary_root

LINE = 16
"""float32 numbers per cache line. Weights are aligned to it, so that no line has two writers."""


class SharedUpdate(Update):
    """The update by all processes together, with the same bits in all processes and after a restart.

    Creating it is collective, and the weights must be equal in all processes. It moves the weights to
    shared memory. Their ``grad`` is None after the last backward pass of a step.

    Args:
        train: settings of the training.
        weights: float32 weights on the CPU. Each must get a gradient in every backward pass.
    """

    def __init__(self, train: TrainConfig, weights: Sequence[nn.Parameter]) -> None:
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self._slices: dict[Tensor, slice] = {}  # of each weight in the shared memory
        size = 0
        for weight in weights:
            self._slices[weight] = slice(size, size + weight.numel())
            size += -(-weight.numel() // LINE) * LINE
        # Parts consist of whole blocks, so that norms do not depend on the number of processes.
        starts = [n for s in self._slices.values() for n in range(s.start, s.stop, NORM_BLOCK)]
        bounds = [_nearest([*starts, size], size * n / self._world) for n in range(self._world + 1)]
        self._part = slice(*bounds[self._rank : self._rank + 2])
        self._blocks, self._first_block = len(starts), bisect_left(starts, self._part.start)
        shared = _shared_memory((1 + self._world) * size, self._rank).view(-1, size)
        self._values, self._gradients_of = shared[0], shared[1:]  # (size,), (world, size)
        self._awaited = 0  # gradients still to come in the last backward pass of a step
        super().__init__(train, self._move(weights))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Return the context for the last backward pass of a step. Collective.

        In it, each gradient is written to shared memory as soon as it is complete.

        Raises:
            RuntimeError: if another process has ended.
        """
        self._awaited = len(self._slices)
        yield
        assert not self._awaited, "a weight without a gradient would get that of an earlier step"
        dist.barrier()

    def norm(self) -> float:
        """Sum the gradients of this process's part; return the norm of all gradients. Collective."""
        total, *others = self._gradients_of[:, self._part]
        for other in others:
            total += other
        norms = torch.zeros(self._blocks)
        if len(total):
            part = block_norms(self._gradients())
            norms[self._first_block :][: len(part)] = part
        dist.all_reduce(norms)
        return float(torch.linalg.vector_norm(norms))

    def step(self, rate: float, excess: float) -> None:
        """Update this process's part of the weights, and wait for the other processes. Collective."""
        super().step(rate, excess)
        dist.barrier()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of one optimiser of all weights. Collective.

        On ranks other than 0 it has no tensors except step counts, to save memory.
        """
        state_of = self._optimizer.state
        whole: dict[int, dict[str, Tensor]] = {index: {} for index in range(len(self._slices))}
        first = state_of.get(self._weights[0], {})
        for name in sorted(first):
            if first[name].dim() == 0:  # the number of steps
                tensors = [first[name].clone() for _ in whole]
            else:
                tensors = self._gathered([state_of[weight][name] for weight in self._weights])
            for index, tensor in enumerate(tensors):
                whole[index][name] = tensor
        state = self._optimizer.state_dict()
        groups = [{**group, "params": list(whole)} for group in state["param_groups"]]
        return {"state": whole if first else {}, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore this process's part of a state, which may come from any number of processes."""
        parts: dict[int, dict[str, Tensor]] = {}
        if state["state"]:
            for number, (index, _, inside) in enumerate(self._of_part()):
                saved = state["state"][index]
                parts[number] = {
                    name: tensor if tensor.dim() == 0 else tensor.reshape(-1)[inside]
                    for name, tensor in saved.items()
                }
        groups = [{**g, "params": list(range(len(self._weights)))} for g in state["param_groups"]]
        super().load_state_dict({"state": parts, "param_groups": groups})

    def _move(self, weights: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        """Move the weights to shared memory; return this process's parts of them as parameters."""
        parts = []
        for index, shared, inside in self._of_part():
            self._values[shared] = weights[index].detach().reshape(-1)[inside]
            part = nn.Parameter(self._values[shared])
            part.grad = self._gradients_of[0, shared]
            parts.append(part)
        dist.barrier()
        for weight, shared in self._slices.items():
            weight.data = self._values[shared].view(weight.shape)
            assert isinstance(weight, nn.Parameter)
            weight.register_post_accumulate_grad_hook(self._hand_in)
        return parts

    def _of_part(self) -> Iterator[tuple[int, slice, slice]]:
        """Yield (index, slice of the shared memory, slice of the weight) of weights in this part."""
        if self._part.start == self._part.stop:  # an optimiser needs at least one weight
            yield 0, slice(0, 0), slice(0, 0)
        for index, shared in enumerate(self._slices.values()):
            start, stop = max(shared.start, self._part.start), min(shared.stop, self._part.stop)
            if start < stop:
                yield index, slice(start, stop), slice(start - shared.start, stop - shared.start)

    @torch.no_grad()
    def _hand_in(self, weight: Tensor) -> None:
        """Write a complete gradient to shared memory, in the last backward pass of a step."""
        if self._awaited:
            self._awaited -= 1
            assert weight.grad is not None
            shared = self._gradients_of[self._rank, self._slices[weight]]
            torch.mul(weight.grad.view(-1), 1 / self._world, out=shared)
            weight.grad = None  # The next gradient reuses its memory, which is in the cache.

    def _gathered(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Gather the tensors of all parts on rank 0, shaped as the weights.

        The memory of the gradients serves as a buffer.
        """
        scratch = self._gradients_of[0]
        for part, (_, shared, _) in zip(parts, self._of_part(), strict=True):
            scratch[shared] = part
        dist.barrier()
        gathered = []
        if self._rank == 0:
            gathered = [scratch[shared].view(w.shape).clone() for w, shared in self._slices.items()]
        dist.barrier()
        return gathered


def _nearest(numbers: Sequence[int], number: float) -> int:
    return min(numbers, key=lambda candidate: abs(candidate - number))


def _shared_memory(size: int, rank: int) -> Tensor:
    """Allocate zeros, float32 (size,), shared by all processes and freed with the last of them."""
    path = [""]
    anonymous = hasattr(os, "memfd_create")
    if rank == 0:
        # Not /dev/shm, which has 64 MB in Docker; writing beyond it kills the process.
        if anonymous:
            handle = os.memfd_create("biloom")
            path[0] = f"/proc/{os.getpid()}/fd/{handle}"
        else:
            handle, path[0] = tempfile.mkstemp(prefix="biloom-", dir=temporary_root())
        os.truncate(handle, size * 4)
    dist.broadcast_object_list(path)
    with open(path[0], "r+b") as file:
        shared = mmap.mmap(file.fileno(), 0)
    dist.barrier()
    if rank == 0:
        os.close(handle)
        if not anonymous:
            Path(path[0]).unlink()
    return torch.frombuffer(shared, dtype=torch.float32)

"""Weights that the processes of one machine share, each of which updates its part of them.

On a CPU, whatever processes do for one another they take from their matmuls. Through gloo's sockets a
sum of gradients takes several times as long; DDP copies every gradient into a bucket of its own first,
and then each process makes the same update. Here a gradient goes where the others read it, at once when
it is made, while it is still in the processor's cache; each process sums, measures and applies the
gradients of its part (as Rajbhandari et al. 2020, section 5.1, divide the optimiser); and one copy of
the weights is all that the processor's shared cache has to hold.
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

LINE = 16
"""float32 numbers of a cache line, which no two processes write."""


class SharedUpdate(Update):
    """An update by all processes together, with the same bits in all and after a restart.

    To be made by all processes at once, with equal weights. From then on the weights lie in shared
    memory, and their gradients are gone when a step's last backward pass is over.

    Args:
        train: names the optimiser.
        weights: float32 on the CPU; each of them has a gradient in every backward pass.
    """

    def __init__(self, train: TrainConfig, weights: Sequence[nn.Parameter]) -> None:
        self._rank, self._world = dist.get_rank(), dist.get_world_size()
        self._places: dict[Tensor, slice] = {}  # of a weight among all
        size = 0
        for weight in weights:
            self._places[weight] = slice(size, size + weight.numel())
            size += -(-weight.numel() // LINE) * LINE
        # Of blocks: their norms are the same however many processes there are.
        starts = [n for p in self._places.values() for n in range(p.start, p.stop, NORM_BLOCK)]
        bounds = [_nearest([*starts, size], size * n / self._world) for n in range(self._world + 1)]
        self._part = slice(*bounds[self._rank : self._rank + 2])
        self._blocks, self._first_block = len(starts), bisect_left(starts, self._part.start)
        shared = _shared_memory((1 + self._world) * size, self._rank).view(-1, size)
        self._values, self._handed_in = shared[0], shared[1:]  # (size,), (world, size)
        self._awaited = 0  # gradients of a last backward pass
        super().__init__(train, self._move(weights))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In the block is the last backward pass of a step; after it, gradients are means over all.

        Raises:
            RuntimeError: another process is gone.
        """
        self._awaited = len(self._places)
        yield
        assert not self._awaited, "a weight without a gradient would get that of an earlier step"
        dist.barrier()

    def norm(self) -> float:
        """Of all weights' mean gradients; sums those of this process's part first."""
        total, *others = self._handed_in[:, self._part]
        for other in others:
            total += other
        norms = torch.zeros(self._blocks)
        if len(total):
            own = block_norms(self._gradients())
            norms[self._first_block :][: len(own)] = own
        dist.all_reduce(norms)
        return float(torch.linalg.vector_norm(norms))

    def step(self, rate: float, excess: float) -> None:
        """Update this process's part of the weights, and wait for the others'."""
        super().step(rate, excess)
        dist.barrier()

    def state_dict(self) -> dict[str, Any]:
        """In the first process as that of one optimiser of all weights, put together from all parts.

        In the others without the tensors: all of them whole in each would not fit where one model does.
        """
        own = self._optimizer.state
        whole: dict[int, dict[str, Tensor]] = {index: {} for index in range(len(self._places))}
        first = own.get(self._weights[0], {})
        for name in sorted(first):
            if first[name].dim() == 0:  # the number of steps
                whole_of = [first[name].clone() for _ in whole]
            else:
                whole_of = self._gathered([own[weight][name] for weight in self._weights])
            for index, tensor in enumerate(whole_of):
                whole[index][name] = tensor
        state = self._optimizer.state_dict()
        groups = [{**group, "params": list(whole)} for group in state["param_groups"]]
        return {"state": whole if first else {}, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take this process's part of what `state_dict` gave to one process or to several."""
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
        """Put weights into shared memory; what lies in this process's part, as weights of their own."""
        parts = []
        for index, place, inside in self._of_part():
            self._values[place] = weights[index].detach().reshape(-1)[inside]
            part = nn.Parameter(self._values[place])
            part.grad = self._handed_in[0, place]
            parts.append(part)
        dist.barrier()
        for weight, place in self._places.items():
            weight.data = self._values[place].view(weight.shape)
            assert isinstance(weight, nn.Parameter)
            weight.register_post_accumulate_grad_hook(self._hand_in)
        return parts

    def _of_part(self) -> Iterator[tuple[int, slice, slice]]:
        """Weights in this process's part: number, place among all, place in the weight; at least one."""
        if self._part.start == self._part.stop:  # an optimiser wants to have a weight
            yield 0, slice(0, 0), slice(0, 0)
        for index, place in enumerate(self._places.values()):
            start, stop = max(place.start, self._part.start), min(place.stop, self._part.stop)
            if start < stop:
                yield index, slice(start, stop), slice(start - place.start, stop - place.start)

    @torch.no_grad()
    def _hand_in(self, weight: Tensor) -> None:
        """Called when a weight's gradient of a backward pass is complete."""
        if self._awaited:
            self._awaited -= 1
            assert weight.grad is not None
            place = self._handed_in[self._rank, self._places[weight]]
            torch.mul(weight.grad.view(-1), 1 / self._world, out=place)
            weight.grad = None  # the next gradient has its memory, which is in the cache

    def _gathered(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """In the first process what all have of each weight's numbers, by the gradients' memory."""
        scratch = self._handed_in[0]
        for part, (_, place, _) in zip(parts, self._of_part(), strict=True):
            scratch[place] = part
        dist.barrier()
        found = []
        if self._rank == 0:
            found = [scratch[place].view(w.shape).clone() for w, place in self._places.items()]
        dist.barrier()
        return found


def _nearest(numbers: Sequence[int], number: float) -> int:
    return min(numbers, key=lambda one: abs(one - number))


def _shared_memory(size: int, rank: int) -> Tensor:
    """Memory of all processes, float32 (size,), zeros; gone when they are."""
    path = [""]
    anonymous = hasattr(os, "memfd_create")
    if rank == 0:
        if anonymous:  # Docker gives /dev/shm 64 MB, and who writes beyond them is killed.
            handle = os.memfd_create("biloom")
            path[0] = f"/proc/{os.getpid()}/fd/{handle}"
        else:
            handle, path[0] = tempfile.mkstemp(prefix="biloom-")
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

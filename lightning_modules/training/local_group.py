"""Collective operations of processes of one machine, without threads.

gloo's threads wake a hundred times a second whether there is anything to do or not, and three of them
take part in the sum of one number; on a CPU that is time of the very core that trains.
"""

import socket
from collections.abc import Callable
from datetime import timedelta
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BACKEND = "biloom_local"
PLACE = "biloom-local-port"
LOCALHOST = "127.0.0.1"


class _Done(dist.Work):
    """Every operation is over when its function returns."""

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        return True


class LocalGroup(dist.ProcessGroup):
    """A process group for `torch.distributed`, over sockets of this machine by way of rank 0.

    For tensors on the CPU. What is reduced is so in the order of ranks, the same bits in all processes.

    Args:
        store: where rank 0 tells the others its port.
        timeout: how long a process waits for another that lives, but says nothing.
    """

    def __init__(
        self, store: dist.distributed_c10d.Store, rank: int, size: int, timeout: timedelta
    ) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]
        seconds = timeout.total_seconds()
        if rank == 0:
            self._sockets = _accepted(store, size, seconds)
        else:
            self._sockets = [_connected(store, rank, seconds)]

    def getBackendName(self) -> str:  # noqa: N802
        """As torch asks for it."""
        return BACKEND

    def allgather(  # type: ignore[override]
        self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None
    ) -> dist.Work:
        """Put every process's tensor into its place of ``outputs[0]``."""
        found = inputs[0].new_empty(self.size(), *inputs[0].shape)
        self._ask(inputs[0], lambda parts: parts, found)
        for place, part in zip(outputs[0], found, strict=True):
            place.copy_(part)
        return _Done()

    def allreduce(self, tensors: list[Tensor], opts: Any) -> dist.Work:  # type: ignore[override]
        """Add the tensors of all processes, or take the largest of each number."""
        largest = opts.reduceOp == dist.ReduceOp.MAX
        assert largest or opts.reduceOp == dist.ReduceOp.SUM, "others are not made"
        combine = torch.maximum if largest else torch.add
        self._ask(tensors[0], lambda parts: reduce(combine, parts), tensors[0])
        return _Done()

    def barrier(self, opts: Any = None) -> dist.Work:
        """Wait for all processes."""
        nothing = torch.zeros(1, dtype=torch.uint8)
        self._ask(nothing, lambda parts: parts[0], nothing)
        return _Done()

    def broadcast(self, tensors: list[Tensor], opts: Any) -> dist.Work:  # type: ignore[override]
        """Give one process's tensor to all."""
        self._ask(tensors[0], lambda parts: parts[opts.rootRank], tensors[0])
        return _Done()

    def shutdown(self) -> None:
        """Close the sockets."""
        for one in self._sockets:
            one.close()

    def _ask(self, own: Tensor, answer: Callable[[Tensor], Tensor], place: Tensor) -> None:
        """Put what rank 0 makes of all processes' tensors, (world, *shape), into ``place``."""
        own, found = own.detach().contiguous(), place.new_empty(place.shape)
        try:
            if self.rank() == 0:
                parts = own.new_empty(self.size(), *own.shape)
                parts[0] = own
                for part, one in zip(parts[1:], self._sockets, strict=True):
                    _receive(one, part)
                found = answer(parts)
                for one in self._sockets:
                    one.sendall(_bytes(found))
            else:
                self._sockets[0].sendall(_bytes(own))
                _receive(self._sockets[0], found)
        except OSError as error:
            raise dist.DistNetworkError(
                f"no answer from a process of this machine: {error}"
            ) from error
        place.detach().copy_(found)


def _accepted(store: dist.distributed_c10d.Store, size: int, seconds: float) -> list[socket.socket]:
    """Connections of the others, in the order of their ranks."""
    found: dict[int, socket.socket] = {}
    with socket.create_server((LOCALHOST, 0), backlog=size) as server:
        server.settimeout(seconds)
        store.set(PLACE, str(server.getsockname()[1]))
        while len(found) < size - 1:
            one = _ready(server.accept()[0], seconds)
            rank = torch.zeros(1, dtype=torch.int32)
            _receive(one, rank)
            found[int(rank)] = one
    return [found[rank] for rank in range(1, size)]


def _connected(store: dist.distributed_c10d.Store, rank: int, seconds: float) -> socket.socket:
    one = _ready(socket.create_connection((LOCALHOST, int(store.get(PLACE)))), seconds)
    one.sendall(_bytes(torch.tensor([rank], dtype=torch.int32)))
    return one


def _ready(one: socket.socket, seconds: float) -> socket.socket:
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.settimeout(seconds)
    return one


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def _receive(one: socket.socket, place: Tensor) -> None:
    """Fill a contiguous tensor."""
    left = _bytes(place)
    while left:
        got = one.recv_into(left)
        if not got:
            raise ConnectionResetError("it closed its connection")
        left = left[got:]


dist.Backend.register_backend(BACKEND, LocalGroup, devices=["cpu"])

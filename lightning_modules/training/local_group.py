"""A `torch.distributed` backend for the processes of one machine, without threads.

The threads of gloo wake a hundred times a second even if there is nothing to do, and three of them
take part in the sum of one number. On a CPU they take time from the cores that train.
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
PORT_KEY = "biloom-local-port"
LOCALHOST = "127.0.0.1"


class _Done(dist.Work):
    """The handle of an operation that has already finished; all operations here are synchronous."""

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        return True


class LocalGroup(dist.ProcessGroup):
    """A process group over local sockets, in which every rank talks to rank 0.

    It has the collective operations that biloom uses, for tensors on the CPU. Reductions run in the
    order of ranks, so all ranks get the same bits.

    Args:
        store: store through which rank 0 publishes its port.
        rank: index of this process.
        size: number of processes.
        timeout: longest time to wait for the data of another process.

    Raises:
        DistNetworkError: from any operation, if another process has ended or the timeout has passed.
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
        """Return the name of the backend, as torch requires."""
        return BACKEND

    def allgather(  # type: ignore[override]
        self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None
    ) -> dist.Work:
        """Copy the tensor of each rank to its entry of ``outputs[0]``."""
        gathered = inputs[0].new_empty(self.size(), *inputs[0].shape)
        self._exchange(inputs[0], lambda parts: parts, gathered)
        for output, part in zip(outputs[0], gathered, strict=True):
            output.copy_(part)
        return _Done()

    def allreduce(self, tensors: list[Tensor], opts: Any) -> dist.Work:  # type: ignore[override]
        """Replace a tensor by its sum or its maximum over all ranks, per ``opts.reduceOp``."""
        maximum = opts.reduceOp == dist.ReduceOp.MAX
        assert maximum or opts.reduceOp == dist.ReduceOp.SUM, "only SUM and MAX are implemented"
        combine = torch.maximum if maximum else torch.add
        self._exchange(tensors[0], lambda parts: reduce(combine, parts), tensors[0])
        return _Done()

    def barrier(self, opts: Any = None) -> dist.Work:
        """Wait for all ranks."""
        nothing = torch.zeros(1, dtype=torch.uint8)
        self._exchange(nothing, lambda parts: parts[0], nothing)
        return _Done()

    def broadcast(self, tensors: list[Tensor], opts: Any) -> dist.Work:  # type: ignore[override]
        """Replace a tensor by that of the rank ``opts.rootRank``."""
        self._exchange(tensors[0], lambda parts: parts[opts.rootRank], tensors[0])
        return _Done()

    def shutdown(self) -> None:
        """Close the sockets."""
        for connection in self._sockets:
            connection.close()

    def _exchange(
        self, tensor: Tensor, combine: Callable[[Tensor], Tensor], output: Tensor
    ) -> None:
        """Send all ranks' tensors to rank 0 and copy what it makes of them to all ranks.

        Args:
            tensor: tensor of this rank.
            combine: called on rank 0 with the tensors of all ranks, (ranks, *shape).
            output: receives the result of ``combine``.
        """
        tensor, result = tensor.detach().contiguous(), output.new_empty(output.shape)
        try:
            if self.rank() == 0:
                parts = tensor.new_empty(self.size(), *tensor.shape)
                parts[0] = tensor
                for part, connection in zip(parts[1:], self._sockets, strict=True):
                    _receive(connection, part)
                result = combine(parts)
                for connection in self._sockets:
                    connection.sendall(_bytes(result))
            else:
                self._sockets[0].sendall(_bytes(tensor))
                _receive(self._sockets[0], result)
        except OSError as error:
            raise dist.DistNetworkError(
                f"no answer from a process on this machine: {error}"
            ) from error
        output.detach().copy_(result)


def _accepted(store: dist.distributed_c10d.Store, size: int, seconds: float) -> list[socket.socket]:
    """Accept the connections of all other ranks; return them in the order of ranks."""
    connections: dict[int, socket.socket] = {}
    with socket.create_server((LOCALHOST, 0), backlog=size) as server:
        server.settimeout(seconds)
        store.set(PORT_KEY, str(server.getsockname()[1]))
        while len(connections) < size - 1:
            connection = _configured(server.accept()[0], seconds)
            rank = torch.zeros(1, dtype=torch.int32)
            _receive(connection, rank)
            connections[int(rank)] = connection
    return [connections[rank] for rank in range(1, size)]


def _connected(store: dist.distributed_c10d.Store, rank: int, seconds: float) -> socket.socket:
    port = int(store.get(PORT_KEY))
    connection = _configured(socket.create_connection((LOCALHOST, port)), seconds)
    connection.sendall(_bytes(torch.tensor([rank], dtype=torch.int32)))
    return connection


def _configured(connection: socket.socket, seconds: float) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(seconds)
    return connection


def _bytes(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def _receive(connection: socket.socket, tensor: Tensor) -> None:
    """Fill a contiguous tensor with received bytes."""
    left = _bytes(tensor)
    while left:
        received = connection.recv_into(left)
        if not received:
            raise ConnectionResetError("it closed its connection")
        left = left[received:]


dist.Backend.register_backend(BACKEND, LocalGroup, devices=["cpu"])

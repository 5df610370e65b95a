"""Counts what a training step asks of a GPU: operations, memory traffic, copies and reads by the host.

`StepCounter` is a dispatch mode over fake tensors, see `fake_gpu`. It counts

- operations. An operation of torch, as a dispatch mode sees it below autograd and autocast, is one launch
  if it writes memory of the device. Views and allocations do not. A compiled function and a fused kernel (a
  custom operation in the namespace `biloom`) are one each. Some operations of torch launch several kernels.
- bytes, by the rules of `step_traffic`.
- copies from the host to the device. They are no operations, but their bytes on the device count.
- reads by the host that wait for the device: operations that return a value (`item`, `float`, `if`), and
  copies to the host, unless they are non-blocking.
- replays of CUDA graphs. A replay runs the captured function again, so its operations and bytes count. They
  must be those of the capture, without a copy or a read.
"""

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from types import FrameType
from typing import Any, NamedTuple

import torch
from fake_gpu import DEVICE
from step_traffic import COMPILED, flops_of, is_on_device, name_of, traffic_of, traffic_of_compiled
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PARTS = (
    *("CNN forward", "CNN backward", "LSTM forward", "LSTM backward", "cells"),
    *("head forward", "head backward", "optimiser", "glue"),
)
"""Parts of a step. The optimiser includes the norm of the gradient and clipping; glue is all the rest, such
as copies, the mean of the losses, and sums of gradients that autograd adds."""
READ = 2
"""The value of each number that the host reads. As the norm of a gradient, it leads to clipping."""

NO_LAUNCH = {
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_"),
    *("_unsafe_view", "unsafe_split", "unsafe_chunk", "detach_", "set_", "record_stream"),
}
"""Operations that neither read nor write memory, besides views."""
NOT_A_GPU = torch.device("meta")
ENGINE = torch.autograd.graph._engine_run_backward.__code__
AREAS = {
    "lightning_modules/nn/inputs/": "CNN",
    "lightning_modules/nn/recurrent/": "LSTM",
    "lightning_modules/nn/heads/": "head",
    "torch/optim/": "optimiser",
    "lightning_modules/training/optimizers.py": "optimiser",
    "lightning_modules/training/": "glue",
    "pytorch_lightning/": "glue",
}
"""The part of the step that the files below a path compute."""


class Device(NamedTuple):
    """What a GPU reaches on paper.

    Attributes:
        bandwidth: bytes per second.
        flops: FLOP/s of matrix products, by the bytes of a number: 2 and 4.
    """

    bandwidth: float
    flops: dict[int, float]


H100 = Device(2.7e12, {2: 800e12, 4: 60e12})
"""An H100 SXM: 2.7 of its 3.35 TB/s; dense products in bf16, and in float32 without TF32."""


@dataclass
class Tally:
    """Sums over operations.

    Attributes:
        operations: number of operations.
        captured: how many of them are launched by CUDA graphs.
        loads: bytes read.
        stores: bytes written.
        flops: FLOPs of matrix products.
        seconds: time on paper. An operation takes as long as its bytes or its FLOPs, whichever is longer.
    """

    operations: int = 0
    loads: int = 0
    stores: int = 0
    flops: int = 0
    seconds: float = 0.0
    captured: int = 0

    def add(self, other: "Tally") -> None:
        """Add the sums of another tally."""
        self.operations += other.operations
        self.loads += other.loads
        self.stores += other.stores
        self.flops += other.flops
        self.seconds += other.seconds
        self.captured += other.captured

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return self.loads + self.stores


@dataclass
class Count:
    """The count of a step.

    Attributes:
        tallies: by part and name of the operation.
        copies: copies from the host to the device.
        reads: reads by the host that wait for the device.
        graphs: replays of CUDA graphs.
    """

    tallies: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    copies: int = 0
    reads: int = 0
    graphs: int = 0

    def of(self, part: str | None = None) -> Tally:
        """Return the sums of a part, or of all parts."""
        total = Tally()
        for (name, _), tally in self.tallies.items():
            if part in (None, name):
                total.add(tally)
        return total


class StepCounter(TorchDispatchMode):
    """Counts the operations in its block, if it is switched on.

    Args:
        device: the GPU whose times are counted.

    Attributes:
        count: the count so far.
        is_on: whether it counts.
    """

    def __init__(self, device: Device = H100) -> None:
        super().__init__()
        self.count, self.is_on, self._device = Count(), False, device
        self._areas: dict[int, str] = {}  # of autograd's nodes, by their sequence numbers
        self._captured: list[tuple[Any, ...]] | None = None  # operations of the graph so far

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, frame = kwargs or {}, sys._getframe(1)
        if func.namespace == "prim":
            # The engine would ask for the stream of the GPU, which torch's builds for CPUs do not have.
            is_engine = func is torch.ops.prim.device.default and _is_engine(frame)
            return NOT_A_GPU if is_engine else func(*args, **kwargs)
        if kwargs.get("device") == NOT_A_GPU:  # a gradient's formula has used the answer
            kwargs = {**kwargs, "device": DEVICE}
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count.reads += self.is_on and is_on_device(args[0])
            kind = float if args[0].is_floating_point() else int
            return bool(READ) if args[0].dtype == torch.bool else kind(READ)
        result = func(*args, **kwargs)
        if self._captured is not None:
            self._captured.append((func, *map(_shape, tree_leaves((args, kwargs, result)))))
        if self.is_on:
            self._add(func, args, kwargs, result, frame)
        return result

    def compiled(self, function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        """Return a function that stands for the compiled form of one that writes into its arguments."""
        assert function in COMPILED, f"{function}: tell its arguments in COMPILED"

        def call(*args: Any) -> None:
            if self.is_on:
                tally = Tally(1, *traffic_of_compiled(function, args))
                part = self._part(sys._getframe(1), is_fused=True)
                self._record(part, f"compiled {function.__name__}", tally)

        return call

    def captured(
        self, function: Callable[[], tuple[Any, ...]]
    ) -> tuple[tuple[Any, ...], Callable[[], None]]:
        """Return the results of a function, and what stands for the replay of its CUDA graph."""

        def run() -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
            self._captured, before = [], (self.count.copies, self.count.reads)
            try:
                results = function()
                assert before == (self.count.copies, self.count.reads), (
                    "a captured function copies from the host, or reads on it"
                )
                return results, self._captured
            finally:
                self._captured = None

        def replay() -> None:
            assert run()[1] == operations, "a graph has other operations than when it was captured"
            self.count.graphs += self.is_on

        results, operations = run()
        return results, replay

    def _add(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        frame: FrameType,
    ) -> None:
        if func is torch.ops.aten.index_add.default and _is_engine(frame):
            # The gradient of index_select adds in place, but not to a subclass of Tensor.
            func = torch.ops.aten.index_add_.default
        name = name_of(func)
        if name == "_to_copy" and [*kwargs] == ["device"] and args[0].device == result.device:
            return  # the engine compares the device of a scalar with its own answer
        part = self._part(frame, is_fused=func.namespace == "biloom")
        if func.is_view or name in NO_LAUNCH:
            return
        traffic = traffic_of(func, args, kwargs, result)
        if name in ("_to_copy", "copy_") and self._is_copy(args, kwargs, result):
            self._record(part, "copy", Tally(0, *traffic))
        elif traffic.stores:
            self._record(part, name, Tally(1, *traffic, flops_of(func, args, kwargs, result)), args)

    def _is_copy(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> bool:
        """Count a copy between host and device, and return whether it is one."""
        source = args[1] if len(args) > 1 else args[0]
        if source.device == result.device:
            return False
        waits = not (kwargs.get("non_blocking") or args[2:3] == (True,))
        self.count.copies += is_on_device(result)
        self.count.reads += is_on_device(source) and waits
        return True

    def _record(self, part: str, name: str, tally: Tally, args: tuple[Any, ...] = ()) -> None:
        tally.seconds = tally.bytes / self._device.bandwidth
        tally.captured = tally.operations if self._captured is not None else 0
        if tally.flops:
            leaves = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            widths = [leaf.itemsize for leaf in leaves if leaf.is_floating_point()]
            tally.seconds = max(tally.seconds, tally.flops / self._device.flops[min(widths)])
        self.count.tallies[part, name].add(tally)

    def _part(self, frame: FrameType | None, is_fused: bool) -> str:
        """Return the part of the step that an operation belongs to.

        Of the functions that called it, the innermost one of training decides, and if there is none, the
        outermost one of the network. An operation of autograd belongs where its forward operation does.
        """
        area, is_cell = "", is_fused
        while frame is not None and not _is_engine(frame):
            path = frame.f_code.co_filename
            found = area_of(path)
            is_cell |= found == "LSTM" and path.endswith("_cell.py")
            if found in ("optimiser", "glue"):
                area = area or found
                break
            area = found or area
            frame = frame.f_back
        is_backward = frame is not None and _is_engine(frame)
        if not is_backward:
            # The node of an operation is made just before it.
            self._areas.setdefault(torch.autograd._get_sequence_nr() - 1, area)
        elif not area and (node := torch._C._current_autograd_node()):
            area = self._areas.get(node._sequence_nr(), "")
        if area == "LSTM" and is_cell:
            return "cells"
        if area in ("CNN", "LSTM", "head"):
            return f"{area} {'backward' if is_backward else 'forward'}"
        return area or "glue"


def _shape(leaf: Any) -> Any:
    """Return an argument or a result of an operation, without the values of a tensor."""
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


@lru_cache(None)
def area_of(path: str) -> str:
    """Return the part of the step that a source file computes; "" if that depends on its caller."""
    return next((area for prefix, area in AREAS.items() if prefix in path), "")


def _is_engine(frame: FrameType | None) -> bool:
    """Return whether a dispatch comes from the autograd engine itself, or is a frame of it."""
    # torch wraps a dispatch mode's method.
    while frame is not None and frame.f_code.co_filename.endswith(("_compile.py", "eval_frame.py")):
        frame = frame.f_back
    return frame is not None and frame.f_code is ENGINE

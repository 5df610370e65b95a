"""CUDA graphs of the passes of recurrent layers: the host launches all operations of a pass together.

At 20 tokens per row, the forward pass of a layer has some 90 operations, and the backward pass as many.
Each launch takes time of the host, also if the operation is small. A graph is launched once, and reads
and writes the memory that it was captured with. So a layer's arguments are copied to fixed tensors,
except its weights, which stay where they are. Its results are valid until the next replay.

`torch.cuda.make_graphed_callables` is not used, for three reasons. It fails if another thread allocates
memory of the device during a capture. It fails under autocast with a cache. The gradients that it
returns become those of the weights, and the next replay overwrites them, so that accumulated gradients
are wrong. Here, only the two passes of an autograd function are captured, without autograd.
"""

import warnings
import weakref
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Pass = Callable[[], tuple[Any, ...]]
Capture = Callable[[Pass], tuple[tuple[Any, ...], Callable[[], object]]]
"""Captures a function of fixed tensors; returns its results, and a function that computes them again."""

WARM_UPS = 3
"""Runs before a capture, in which kernels are compiled and libraries allocate their memory."""


def are_supported(device: torch.device) -> bool:
    """Return True if a device replays graphs."""
    return device.type == "cuda" and torch.version.hip is None


def capture_on_gpu(function: Pass) -> tuple[tuple[Any, ...], Callable[[], object]]:
    """Capture a function of fixed tensors of the current GPU.

    Returns:
        Its results, which are in memory of the graph and have no values yet, and the replay.
    """
    current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
    stream.wait_stream(current)
    graph = torch.cuda.CUDAGraph()
    # If a capture fails, torch.cuda.graph itself leaves its stream the current one.
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            function()
        # Other threads, which write checkpoints or read data, may use the device meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            results = function()
    current.wait_stream(stream)
    return results, graph.replay


class Recording:
    """Takes the place of autograd's context in the passes of a function that is captured.

    Attributes:
        needs_input_grad: whether each argument needs a gradient.
        saved_tensors: what the forward pass has saved.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Tensor | None, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for the backward pass."""
        self.saved_tensors = tensors


def is_kept(context: Any) -> bool:
    """Return True if a backward pass must not overwrite what is saved, because another one may follow.

    Args:
        context: of the backward pass of an autograd function, or a `Recording`; None in `_Replay`.
    """
    # Outside of a backward pass of autograd, torch's answer is always yes.
    return not isinstance(context, Recording) and (
        torch._C._autograd._get_current_graph_task_keep_graph()
    )


class Graphs:
    """Graphs of the recurrent layers of a network, for windows of one size.

    A layer is captured when it first gets a window of this size, with resets and without. It runs eagerly

    - for windows of another size, and if its weights have been moved,
    - while the backward pass of an earlier window is still to come,
    - after a capture has failed. One warning says why.

    A copy, also a pickled one, has no graphs yet.

    Args:
        time: tokens per row.
        rows: number of rows.
        capture: captures a function.
    """

    def __init__(self, time: int, rows: int, capture: Capture) -> None:
        self._arguments = time, rows, capture
        self._captured: dict[Hashable, _Captured] = {}
        self._has_failed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return Graphs, self._arguments

    def of(self, function: type[torch.autograd.Function]) -> Callable[..., Any]:
        """Return a function that takes the place of ``function.apply``.

        Args:
            function: an autograd function whose first argument is x, (directions, time, rows, width).
                Neither pass may read values on the host, draw random numbers or change an argument.
        """
        return partial(self._apply, function)

    def _apply(self, function: type[torch.autograd.Function], *arguments: Any) -> Any:
        time, rows, capture = self._arguments
        if self._has_failed or arguments[0].shape[1:3] != (time, rows):
            return function.apply(*arguments)
        needs = tuple(isinstance(given, Tensor) and given.requires_grad for given in arguments)
        names = tuple(id(given) if _is_weight(given) else given is None for given in arguments)
        key = function, needs, names
        if key not in self._captured:
            try:
                self._captured[key] = _Captured(function, arguments, needs, capture)
            except Exception as error:  # compilers raise many types of exceptions
                self._has_failed = True
                self._captured.clear()  # frees their memory
                warnings.warn(
                    f"the recurrent layers cannot be captured in CUDA graphs ({type(error).__name__}: "
                    f"{str(error).strip()[:300]}), so the host launches each operation, which may be slower; "
                    "train.cuda_graphs=off avoids the attempt",
                    stacklevel=2,
                )
                return function.apply(*arguments)
        captured = self._captured[key]
        if not captured.is_free or not captured.fits(arguments):
            return function.apply(*arguments)
        return _Replay.apply(captured, *arguments)


class _Window:
    """A window between its forward and its backward pass."""

    is_done = False


class _Captured:
    """The passes of a function as two graphs, each with memory of its own.

    Args:
        function: the autograd function.
        arguments: arguments to capture it with.
        needs: whether each argument needs a gradient.
        capture: captures a pass.

    Attributes:
        outputs: results of the last forward pass.
    """

    def __init__(
        self,
        function: type[torch.autograd.Function],
        arguments: tuple[Any, ...],
        needs: tuple[bool, ...],
        capture: Capture,
    ) -> None:
        recording = Recording(needs)
        self._window: weakref.ref[_Window] | None = None
        with torch.no_grad():
            self._inputs = tuple(_fixed(given) for given in arguments)
            self.outputs, self._forward = capture(
                lambda: function.forward(recording, *self._inputs)
            )
            self._d_outputs = tuple(torch.zeros_like(output) for output in self.outputs)
            self._gradients, self._backward = capture(
                lambda: function.backward(recording, *self._d_outputs)
            )

    @property
    def is_free(self) -> bool:
        """Whether no backward pass still needs the values of the last forward pass."""
        window = self._window() if self._window else None
        return window is None or window.is_done

    def fits(self, arguments: tuple[Any, ...]) -> bool:
        """Return True if the graphs compute the function of these arguments."""
        return all(map(_fits, arguments, self._inputs))

    def forward(self, arguments: tuple[Any, ...]) -> _Window:
        """Compute the outputs."""
        for fixed, given in zip(self._inputs, arguments, strict=True):
            if isinstance(given, Tensor) and not _is_weight(given):
                fixed.copy_(given)
        self._forward()
        window = _Window()
        self._window = weakref.ref(window)
        return window

    def backward(
        self,
        window: _Window,
        weights: tuple[nn.Parameter | None, ...],
        d_outputs: tuple[Tensor | None, ...],
    ) -> tuple[Tensor | None, ...]:
        """Return the gradient of each argument.

        Args:
            window: from `forward`.
            weights: arguments that are weights; None for others.
            d_outputs: gradient of each output; None means zeros.
        """
        for weight, gradient in zip(weights, self._gradients, strict=True):
            if weight is not None and _is_at(weight.grad, gradient):
                # Autograd has made the gradient of an earlier window the weight's, without a copy.
                weight.grad = gradient.clone()
        for fixed, given in zip(self._d_outputs, d_outputs, strict=True):
            fixed.zero_() if given is None else fixed.copy_(given)
        self._backward()
        if is_kept(None):
            self._forward()  # The backward pass has overwritten values that another one needs.
        else:
            window.is_done = True
        d_x, *others = self._gradients
        # The gradient of what is computed from a weight may become the weight's too. That of x is read
        # before the next replay.
        copies = [
            None if gradient is None else gradient.clone() if weight is None else gradient.detach()
            for weight, gradient in zip(weights[1:], others, strict=True)
        ]
        return d_x.detach(), *copies


class _Replay(torch.autograd.Function):
    """The function that has been captured, with its gradient."""

    @staticmethod
    def forward(ctx: Any, captured: _Captured, *arguments: Any) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.captured, ctx.window = captured, captured.forward(arguments)
        ctx.weights = tuple(given if _is_weight(given) else None for given in arguments)
        return tuple(output.detach() for output in captured.outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *ctx.captured.backward(ctx.window, ctx.weights, d_outputs)


def _is_weight(given: Any) -> bool:
    """Return whether an argument keeps its memory from window to window."""
    return isinstance(given, nn.Parameter)


def _fixed(given: Any) -> Any:
    """Return an argument at the place where a graph reads it."""
    if not isinstance(given, Tensor):
        return given
    return given.detach() if _is_weight(given) else torch.empty_like(given).copy_(given)


def _fits(given: Any, fixed: Any) -> bool:
    """Return whether an argument can take the place of the one that a graph was captured with."""
    if not isinstance(given, Tensor) or not isinstance(fixed, Tensor):
        return bool(given == fixed)
    alike = (given.shape, given.dtype, given.device) == (fixed.shape, fixed.dtype, fixed.device)
    return alike and (not _is_weight(given) or _is_at(given, fixed))


def _is_at(tensor: Tensor | None, other: Tensor | None) -> bool:
    """Return whether two tensors of the same size have the same memory."""
    return (
        tensor is not None
        and other is not None
        and tensor.untyped_storage() is other.untyped_storage()
        and tensor.storage_offset() == other.storage_offset()
    )

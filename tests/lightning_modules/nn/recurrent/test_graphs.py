"""Layers in CUDA graphs equal eager layers. A stand-in for a graph runs the captured function again."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_modules.config import ModelConfig
from lightning_modules.nn.recurrent import graphs, gru, sru
from lightning_modules.nn.recurrent.hgrn2 import layer as hgrn2
from lightning_modules.nn.recurrent.lstm_recurrence import Recurrence
from lightning_modules.nn.recurrent.stack import Recurrent

TIME, ROWS, WIDTH = 3, 4, 5
LSTM: dict[str, Any] = {"kind": "lstm", "hidden": 6, "projection": WIDTH, "forget_bias": 1.0}
GRU: dict[str, Any] = {"kind": "gru", "hidden": WIDTH}
HGRN2: dict[str, Any] = {"kind": "hgrn2", "hidden": 6, "projection": WIDTH, "expansion": 2}
SRU: dict[str, Any] = {"kind": "sru", "hidden": WIDTH}
FUNCTIONS = {
    "lstm": Recurrence,
    "gru": gru._Recurrence,
    "hgrn2": hgrn2._Recurrence,
    "sru": sru._Recurrence,
}
CPU = torch.device("cpu")


def stack(settings: dict[str, Any], **more: Any) -> Recurrent:
    torch.manual_seed(1)
    made = Recurrent(ModelConfig.model_validate({"recurrent": settings | more}).recurrent, 2)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1)
    return made


def window(number: int, time: int = TIME) -> tuple[Tensor, Tensor]:
    """Return an input, and where states are reset."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(2, time, ROWS, WIDTH, generator=generator)
    return x, torch.rand(2, time, ROWS, generator=generator) < 0.3


def loss_of(run: Any) -> Tensor:
    """Return a number that depends on all outputs, but not on the state, as in training."""
    weights = torch.linspace(-1, 2, run.outputs[-1].numel()).view_as(run.outputs[-1])
    total: Tensor = sum(((output * weights).sum() for output in run.outputs), torch.zeros(()))
    return total


def windows_of(
    recurrent: Recurrent, resets: tuple[bool, ...], accumulate: bool, wrap: Any = None
) -> list[Tensor]:
    """Return outputs, states and gradients of windows in a row, with an optimiser step after each."""
    state, results = recurrent.zero_state(ROWS), []
    optimizer = torch.optim.SGD(recurrent.parameters(), lr=0.1)
    for number, has_resets in enumerate(resets):
        x, places = window(number)
        x.requires_grad_()
        torch.manual_seed(number)
        run = (wrap or recurrent)(x, state, places if has_resets else None)
        state = run.state.detach()
        results += [*(output.detach().clone() for output in run.outputs), state]
        loss_of(run).backward()
        assert x.grad is not None
        results.append(x.grad.clone())  # valid until the next replay
        results += [w.grad.clone() for w in recurrent.parameters() if w.grad is not None]
        if not accumulate:
            optimizer.step()
            optimizer.zero_grad()
    return results


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


@contextmanager
def precision(narrow: bool) -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16, enabled=narrow, cache_enabled=True):
        yield


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        LSTM,
        LSTM | {"forget_bias": 0.0, "cell_clip": 0.5, "projection_clip": 0.2, "residual": False},
        LSTM | {"weight_drop": 0.5, "dropout": 0.3},
        GRU,
        GRU | {"weight_drop": 0.5, "dropout": 0.3},
        HGRN2 | {"dropout": 0.3},
        SRU | {"dropout": 0.3},
    ],
)
def test_windows_equal_eager_ones(
    settings: dict[str, Any], narrow: bool, accumulate: bool, captures: Any
) -> None:
    resets = (False, False, True, False, True, True)
    ours, theirs = stack(settings), stack(settings)
    ours.use_graphs(TIME, ROWS)
    with precision(narrow):
        expected = windows_of(theirs, resets, accumulate)
        assert_equal(windows_of(ours, resets, accumulate), expected)

    layers, passes, kinds = 2, 2, 2  # with and without resets
    assert captures.count == layers * passes * kinds
    assert captures.replays == layers * passes * len(resets)


@pytest.mark.parametrize("as_view", [False, True])
def test_the_hooks_of_distributed_training_get_each_gradient(
    as_view: bool, captures: Any, tmp_path: Path
) -> None:
    ours, theirs = stack(LSTM), stack(LSTM)
    ours.use_graphs(TIME, ROWS)
    dist.init_process_group(
        "gloo", store=dist.FileStore(f"{tmp_path}/store", 1), rank=0, world_size=1
    )
    try:
        wrapped = DistributedDataParallel(ours, gradient_as_bucket_view=as_view)
        seen: list[int] = []

        def hook(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
            seen.append(bucket.buffer().numel())
            future: torch.futures.Future[Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        wrapped.register_comm_hook(None, hook)
        results = windows_of(ours, (False, False, True), False, wrapped)
    finally:
        dist.destroy_process_group()
    assert_equal(results, windows_of(theirs, (False, False, True), False))
    assert sum(seen) == 3 * sum(weight.numel() for weight in ours.parameters())
    assert captures.replays


def test_a_window_of_another_size_and_inference_are_not_captured(captures: Any) -> None:
    recurrent = stack(LSTM)
    recurrent.use_graphs(TIME, ROWS)
    loss_of(recurrent(window(1, TIME - 1)[0], recurrent.zero_state(ROWS))).backward()
    with torch.no_grad():
        recurrent(window(1)[0], recurrent.zero_state(ROWS))
    assert captures.count == 0

    recurrent.drop_graphs()
    loss_of(recurrent(window(1)[0], recurrent.zero_state(ROWS))).backward()
    assert captures.count == 0


def test_a_window_before_the_gradient_of_the_last_one_is_eager(captures: Any) -> None:
    ours, theirs = stack(LSTM, dropout=0), stack(LSTM, dropout=0)
    ours.use_graphs(TIME, ROWS)
    for recurrent in (theirs, ours):
        runs = [recurrent(window(number)[0], recurrent.zero_state(ROWS)) for number in range(2)]
        for run in runs:
            loss_of(run).backward()
    assert_equal([w.grad for w in ours.parameters()], [w.grad for w in theirs.parameters()])  # type: ignore[misc]
    assert captures.replays == 4

    # The memory is free again after both, also if a gradient is never computed.
    run = ours(window(3)[0], ours.zero_state(ROWS))
    assert captures.replays == 6
    del run
    ours(window(4)[0], ours.zero_state(ROWS))
    assert captures.replays == 8


def test_a_gradient_may_be_computed_twice(captures: Any) -> None:
    gradients = []
    for use in (False, True):
        recurrent = stack(LSTM, dropout=0)
        if use:
            recurrent.use_graphs(TIME, ROWS)
        x = window(1)[0].requires_grad_()
        loss = loss_of(recurrent(x, recurrent.zero_state(ROWS)))
        for keep in (True, False):
            gradients.append(
                torch.autograd.grad(loss, [x, *recurrent.parameters()], retain_graph=keep)
            )
            gradients[-1] = tuple(gradient.clone() for gradient in gradients[-1])
    for others in gradients[1:]:
        assert_equal(list(others), list(gradients[0]))
    assert captures.replays


def test_weights_that_have_been_moved_are_read_at_their_place(captures: Any) -> None:
    ours, theirs = stack(LSTM, dropout=0), stack(LSTM, dropout=0)
    ours.use_graphs(TIME, ROWS)
    loss_of(ours(window(0)[0], ours.zero_state(ROWS))).backward()
    for recurrent in (ours, theirs):
        recurrent.zero_grad()
        for weight in recurrent.parameters():
            weight.data = weight.data * 2
        loss_of(recurrent(window(1)[0], recurrent.zero_state(ROWS))).backward()
    assert_equal([w.grad for w in ours.parameters()], [w.grad for w in theirs.parameters()])  # type: ignore[misc]


def test_a_capture_that_fails_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(function: graphs.Pass) -> Any:
        attempts.append(function)
        raise RuntimeError("operation not permitted when stream is capturing")

    attempts: list[Any] = []
    monkeypatch.setattr(graphs, "are_supported", lambda device: True)
    monkeypatch.setattr(graphs, "capture_on_gpu", fail)
    ours, theirs = stack(LSTM), stack(LSTM)
    ours.use_graphs(TIME, ROWS)
    message = (
        r"cannot be captured in CUDA graphs \(RuntimeError: operation not permitted .*slower; "
        r"train\.cuda_graphs=off avoids the attempt"
    )
    with pytest.warns(UserWarning, match=message) as told:
        ours_results = windows_of(ours, (False, True), False)
    assert_equal(ours_results, windows_of(theirs, (False, True), False))
    assert len(told) == len(attempts) == 1


def test_a_copy_has_no_graphs_yet(captures: Any) -> None:
    recurrent = stack(LSTM)
    recurrent.use_graphs(TIME, ROWS)
    windows_of(recurrent, (False,), False)
    made: Any = recurrent.layers[0].graphs
    [copied, _] = [layer.graphs for layer in deepcopy(recurrent).layers]
    assert made._captured
    assert not copied._captured

    made = graphs.Graphs(TIME, ROWS, len)  # type: ignore[arg-type]
    assert vars(pickle.loads(pickle.dumps(made))) == vars(made)


def test_graphs_are_for_gpus_of_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    recurrent = stack(LSTM)
    recurrent.use_graphs(TIME, ROWS)
    assert [layer.graphs for layer in recurrent.layers] == [None, None]
    assert not graphs.are_supported(CPU)
    assert graphs.are_supported(torch.device("cuda"))
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert not graphs.are_supported(torch.device("cuda"))


class Operations(TorchDispatchMode):
    """Lists each operation, with shapes and dtypes of its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        self.found.append((func, *(_shape(leaf) for leaf in leaves)))
        return result


def _shape(leaf: Any) -> Any:
    is_tensor = isinstance(leaf, Tensor)
    return (leaf.shape, leaf.stride(), leaf.dtype) if is_tensor else leaf


HOST = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "is_nonzero", "equal")
RANDOM = ("bernoulli", "rand", "normal", "uniform", "dropout")


@pytest.mark.parametrize("has_resets", [False, True])
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    "settings", [LSTM | {"cell_clip": 0.5, "projection_clip": 0.2}, GRU, HGRN2, SRU]
)
def test_what_is_captured_has_the_same_operations_for_each_window_and_reads_nothing_on_the_host(
    settings: dict[str, Any], narrow: bool, has_resets: bool
) -> None:
    """A graph repeats the same launches, so they must not depend on values."""
    layer = stack(settings).layers[1]
    function = FUNCTIONS[settings["kind"]]
    given: list[tuple[Any, ...]] = []

    def keep(self: Any, chosen: Any, *arguments: Any) -> Any:
        given.append(arguments)
        return chosen.apply(*arguments)

    layer.graphs = graphs.Graphs(TIME, ROWS, graphs.capture_on_gpu)  # type: ignore[assignment]
    with mock.patch.object(graphs.Graphs, "_apply", keep), precision(narrow):
        for number in range(2):
            x, resets = window(number)
            state = torch.randn(2, ROWS, layer.state_width)  # type: ignore[arg-type]
            layer(x.requires_grad_(), state, resets if has_resets else None)

    found = []
    for number, arguments in enumerate(given):
        needs = tuple(isinstance(each, Tensor) and each.requires_grad for each in arguments)
        recording = graphs.Recording(needs)
        operations = Operations()
        with torch.no_grad():
            with operations:
                outputs = function.forward(recording, *arguments)
            d_outputs = [torch.full_like(output, number) for output in outputs]
            with operations:
                function.backward(recording, *d_outputs)
        found.append(operations.found)
    first, second = found
    assert first == second
    assert len(first) > 4 * TIME
    names = {operation[0]._schema.name.removeprefix("aten::") for operation in first}
    assert not {name for name in names if name.startswith(HOST + RANDOM)}


def test_a_gpu_captures_after_runs_on_the_same_stream() -> None:
    """What the real capture asks of torch, in order."""
    calls: list[str] = []
    cuda = mock.MagicMock()
    cuda.current_stream.return_value.wait_stream.side_effect = lambda _: calls.append("join")
    cuda.Stream.return_value.wait_stream.side_effect = lambda _: calls.append("fork")
    cuda.graph.return_value.__enter__.side_effect = lambda *_: calls.append("capture")
    cuda.graph.return_value.__exit__.side_effect = lambda *_: calls.append("end") or False
    with mock.patch.object(torch, "cuda", cuda):
        results, replay = graphs.capture_on_gpu(lambda: calls.append("run") or ("results",))  # type: ignore[func-returns-value]
    assert calls == ["fork", *["run"] * graphs.WARM_UPS, "capture", "run", "end", "join"]
    assert results == ("results",)
    assert replay is cuda.CUDAGraph.return_value.replay
    [options] = [call.kwargs for call in cuda.graph.call_args_list]
    assert options == {"stream": cuda.Stream.return_value, "capture_error_mode": "thread_local"}

"""Compiled cells: the same results as the eager ones, and messages if there is no compiler."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.nn.recurrent import cell, gru_cell, lstm_cell, sru_cell
from lightning_modules.nn.recurrent.stack import Recurrent
from lightning_modules.recurrent_config import (
    GRUConfig,
    HGRN2Config,
    LSTMConfig,
    RecurrentConfig,
    SRUConfig,
)

CPU = torch.device("cpu")
CELLS = [lstm_cell, gru_cell]


def compile_lstm(mode: cell.Mode, device: torch.device = CPU) -> tuple[cell.Cell, str]:
    return cell.compile_cell(mode, lstm_cell, device, 4, 8, 3.0)


def test_mode_off_uses_the_eager_cell() -> None:
    ops, sentence = compile_lstm("off")

    assert ops is lstm_cell.EAGER
    assert sentence == "The LSTM cell is not compiled (train.compile is off)."
    assert "The GRU cell" in cell.compile_cell("off", gru_cell, CPU, 4, 8, math.inf)[1]


def test_auto_without_a_compiler_uses_the_eager_cell_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cell.shutil, "which", lambda name: None)

    ops, sentence = compile_lstm("auto")

    assert ops is lstm_cell.EAGER
    assert sentence == (
        "The LSTM cell is not compiled, so training is slower: "
        "no C++ compiler (g++, clang++ or the value of $CXX) is on the PATH."
    )


def test_the_compiler_in_cxx_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "mine++")
    monkeypatch.setattr(cell.shutil, "which", lambda name: name if name == "mine++" else None)
    monkeypatch.setattr(cell, "_compiled", lambda *args, **fused: lstm_cell.EAGER)

    assert "is compiled" in compile_lstm("auto")[1]


def test_a_cell_without_a_kernel_for_gpus_says_so() -> None:
    gpu = torch.device("cuda")

    ops, sentence = cell.compile_cell("auto", sru_cell, gpu, 4, 8, math.inf)
    assert ops is sru_cell.EAGER
    assert sentence == (
        "The SRU cell is not compiled, so training is slower: it has no fused kernel for a GPU."
    )
    with pytest.raises(ValueError, match="SRU cell cannot be compiled: it has no fused kernel"):
        cell.compile_cell("on", sru_cell, gpu, 4, 8, math.inf)


def test_on_without_a_compiler_raises_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cell, "triton_problem", lambda: "triton is not installed")

    with pytest.raises(ValueError, match=r"compile is on.*triton is not installed.*auto or off"):
        compile_lstm("on", torch.device("cuda"))


@pytest.mark.parametrize(
    ("capability", "how"),
    [
        ((9, 0), "is compiled"),
        (
            (7, 5),
            "is compiled by torch.compile, because the GPU's compute capability 7.5 is below 8.0",
        ),
    ],
)
def test_a_gpu_without_the_capability_of_the_kernels_uses_torch_compile_and_says_why(
    capability: tuple[int, int], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[bool] = []
    monkeypatch.setattr(cell, "triton_problem", lambda: "")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(
        cell, "_compiled", lambda *args, fused: compiled.append(fused) or lstm_cell.EAGER
    )

    _, sentence = compile_lstm("on", torch.device("cuda"))

    assert compiled == [capability == (9, 0)]
    assert sentence.startswith(f"The LSTM cell {how} (")


@pytest.mark.parametrize(
    ("fused", "hip", "narrow"),
    [(True, None, torch.bfloat16), (False, None, torch.float16), (False, "6.4", torch.bfloat16)],
)
def test_a_cell_for_a_gpu_is_checked_in_the_types_of_auto(
    fused: bool, hip: str | None, narrow: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[torch.dtype] = []
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch, "compile", lambda step: step)
    monkeypatch.setattr(lstm_cell, "fused", lambda: lstm_cell.EAGER)
    monkeypatch.setattr(cell, "check_cell", lambda *arguments: checked.append(arguments[-1]))

    cell._compiled(lstm_cell, torch.device("cuda"), 4, 8, 1.0, fused)

    assert checked == [torch.float32, narrow]


def test_if_the_compiler_fails_auto_uses_the_eager_cell_and_on_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> cell.Cell:
        raise RuntimeError("no omp.h")

    monkeypatch.setattr(cell, "_missing_compiler", lambda device: None)
    monkeypatch.setattr(lstm_cell, "build", fail)

    ops, sentence = compile_lstm("auto")
    assert ops is lstm_cell.EAGER
    assert "the compiler failed: RuntimeError: no omp.h" in sentence
    with pytest.raises(ValueError, match=r"no omp\.h"):
        compile_lstm("on")


def test_a_cell_with_wrong_results_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> None:
        lstm_cell.forward(*arguments)
        arguments[4].add_(1.0)

    monkeypatch.setattr(cell, "_missing_compiler", lambda device: None)
    monkeypatch.setattr(lstm_cell, "build", lambda: cell.Cell(wrong, lstm_cell.backward))

    ops, sentence = compile_lstm("auto")
    assert ops is lstm_cell.EAGER
    assert "AssertionError" in sentence


def drawn(arguments: list[Any], rows: int, dtype: torch.dtype) -> list[Any]:
    """Replace each tensor by random numbers with another number of rows and a real run's strides."""
    made = []
    for argument in arguments:
        if isinstance(argument, Tensor) and argument.dim() == 3:
            directions, _, width = argument.shape
            stride = 7 if argument.stride(0) > argument.stride(1) * argument.shape[1] else 1
            made.append(torch.randn(directions, stride, rows, width, dtype=dtype)[:, 0])
        elif isinstance(argument, Tensor):
            made.append(torch.randn(argument.shape, dtype=dtype))
        else:
            made.append(argument)
    return made


def assert_same_cell(
    ops: cell.Cell, cell_module: cell.CellModule, hidden: int, rows: int, resets: bool
) -> None:
    for dtype in (torch.float32, torch.float64):
        samples = cell_module.sample_arguments(1, 4, hidden, 0.5, CPU)
        for ours, theirs, sample in zip(ops, cell_module.EAGER, samples, strict=True):
            arguments = drawn(sample, rows, dtype)
            if resets:
                arguments[-1] = (torch.rand(2, rows, 1) < 0.5).to(dtype)
            expected = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
            theirs(*expected)
            ours(*arguments)
            torch.testing.assert_close(arguments, expected)


@pytest.mark.slow
@pytest.mark.parametrize("cell_module", CELLS)
def test_the_cpp_cell_equals_the_eager_one_for_any_size(cell_module: cell.CellModule) -> None:
    ops, sentence = cell.compile_cell("auto", cell_module, CPU, 4, 24, 0.5)
    if "no C++ compiler" in sentence:
        pytest.skip(sentence)
    assert ops is not cell_module.EAGER, sentence

    for rows, hidden in ((4, 24), (1, 24), (7, 16), (3, 5), (2, 67)):
        for resets in (False, True):
            assert_same_cell(ops, cell_module, hidden, rows, resets)
        cell.check_cell(ops, cell_module, rows, hidden, 0.5, CPU, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("joined", [False, True])
def test_the_tanh_of_the_cpp_cell_is_exact_to_three_units_and_keeps_nan(joined: bool) -> None:
    ops, sentence = cell.compile_cell("auto", lstm_cell, CPU, 4, 24, math.inf)
    if "no C++ compiler" in sentence:
        pytest.skip(sentence)
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 3e38, -3e38, 1e-45, 0.3, -0.3])
    x = torch.cat([special, torch.linspace(-12, 12, 100_001), torch.logspace(-20, 0, 10_001)])
    before, size = x.view(1, 1, -1), len(x)
    gates = torch.zeros(1, 1, 4 * size)
    gates[..., :size] = -200  # the input gate is 0, the forget and output gates are 1
    gates[..., size : 2 * size] = gates[..., 3 * size :] = 100
    recurrent, bias = None if joined else torch.zeros_like(gates), torch.zeros(1, 4 * size)
    after, squashed = torch.empty_like(before), torch.empty_like(before)
    ops.forward(gates, recurrent, bias, before, after, squashed, math.inf, None)
    expected = x.double().tanh().float()
    torch.testing.assert_close(squashed.flatten(), expected, rtol=2e-7, atol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "hidden"), [(4, 24), (1, 8), (3, 5)])
def test_the_cpp_scan_equals_the_eager_one(rows: int, hidden: int) -> None:
    ops, sentence = cell.compile_cell("auto", sru_cell, CPU, 4, 24, math.inf)
    if "no C++ compiler" in sentence:
        pytest.skip(sentence)
    assert ops is not sru_cell.EAGER, sentence

    for dtype in (torch.float32, torch.bfloat16):
        cell.check_cell(ops, sru_cell, rows, hidden, math.inf, CPU, dtype)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler
@pytest.mark.parametrize(
    ("cell_module", "config"),
    [(lstm_cell, LSTMConfig(hidden=24, projection=8)), (gru_cell, GRUConfig(hidden=24))],
)
def test_torch_compile_compiles_the_eager_cell_once_to_a_single_graph(
    cell_module: cell.CellModule, config: LSTMConfig | GRUConfig
) -> None:
    """A test on the CPU of the code that other devices run."""
    if (reason := cell._missing_compiler(CPU)) is not None:
        pytest.skip(reason)
    clip = 3.0 if isinstance(config, LSTMConfig) else math.inf
    torch.manual_seed(1)
    stack, eager = Recurrent(config, 2).eval(), Recurrent(config, 2).eval()
    eager.load_state_dict(stack.state_dict())
    ops = cell.Cell(*(torch.compile(step, fullgraph=True) for step in cell_module.EAGER))
    with torch.no_grad():
        cell.check_cell(ops, cell_module, 4, 24, clip, CPU)
    for layer in stack.layers:
        layer.ops = ops

    for reset in (False, True):  # `check_cell` compiles for steps without a reset
        for rows, time in ((4, 5), (7, 2), (3, 9)):
            x = torch.randn(2, time, rows, stack.width, requires_grad=True)
            resets = torch.rand(2, time, rows) < 0.3 if reset else None
            with torch._dynamo.config.patch(error_on_recompile=not reset):
                pairs = []
                for module in (stack, eager):
                    run = module(x, module.zero_state(rows), resets)
                    total = run.raw.square().sum() + run.state.sum()
                    leaves = [x, *module.parameters()]
                    pairs.append([*run.outputs, *torch.autograd.grad(total, leaves)])
                torch.testing.assert_close(*pairs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        LSTMConfig(hidden=24, projection=8),
        GRUConfig(hidden=24),
        HGRN2Config(hidden=24, expansion=8),
        SRUConfig(hidden=21),
    ],
)
def test_a_stack_with_a_compiled_cell_has_the_same_outputs_and_gradients(
    config: RecurrentConfig,
) -> None:
    stack = Recurrent(config, 2).eval()
    x = torch.randn(2, 5, 3, stack.width)
    resets = torch.rand(2, 5, 3) < 0.3

    def run(autocast: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            result = stack(x, stack.zero_state(3), resets)
        total = result.raw.square().sum() + result.state.sum()
        return [*result.outputs, *torch.autograd.grad(total, list(stack.parameters()))]

    eager = [run(autocast) for autocast in (False, True)]
    sentence = stack.compile_cell("auto", rows=3)
    if "no C++ compiler" in sentence:
        pytest.skip(sentence)
    assert "is compiled" in sentence
    for expected, autocast in zip(eager, (False, True), strict=True):
        for a, b in zip(run(autocast), expected, strict=True):
            tolerance = 0.1 if autocast else 1e-5  # rounding to bf16 may differ
            largest = max(1.0, b.abs().max().item())
            torch.testing.assert_close(a, b, atol=tolerance * largest, rtol=tolerance)

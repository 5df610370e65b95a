"""Compiling the cell: what is said where it cannot be, and that the numbers stay the same."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.config import GRUConfig, LSTMConfig
from lightning_modules.nn.recurrent import cell, gru_cell, lstm_cell
from lightning_modules.nn.recurrent.stack import Recurrent

CPU = torch.device("cpu")
RECIPES = [lstm_cell, gru_cell]


def compile_lstm(mode: cell.Mode, device: torch.device = CPU) -> tuple[cell.Cell, str]:
    return cell.compile_cell(mode, lstm_cell, device, 4, 8, 3.0)


def test_off_says_so() -> None:
    ops, sentence = compile_lstm("off")

    assert ops is lstm_cell.EAGER
    assert sentence == "The LSTM cell is not compiled (train.compile is off)."
    assert "The GRU cell" in cell.compile_cell("off", gru_cell, CPU, 4, 8, math.inf)[1]


def test_auto_without_a_compiler_goes_on_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell.shutil, "which", lambda name: None)

    ops, sentence = compile_lstm("auto")

    assert ops is lstm_cell.EAGER
    assert sentence == (
        "The LSTM cell is not compiled, training is slower: "
        "no C++ compiler (g++, clang++ or the one $CXX names) is on the PATH."
    )


def test_the_compiler_of_cxx_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "mine++")
    monkeypatch.setattr(cell.shutil, "which", lambda name: name if name == "mine++" else None)
    monkeypatch.setattr(cell, "_compiled", lambda *args: lstm_cell.EAGER)

    assert "is compiled" in compile_lstm("auto")[1]


def test_on_without_a_compiler_is_an_error_that_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cell.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r"compile is on.*triton is not installed.*auto or off"):
        compile_lstm("on", torch.device("cuda"))


def test_a_compiler_that_fails_is_told_and_auto_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> cell.Cell:
        raise RuntimeError("no omp.h")

    monkeypatch.setattr(cell, "_missing_compiler", lambda device: None)
    monkeypatch.setattr(lstm_cell, "build", fail)

    ops, sentence = compile_lstm("auto")
    assert ops is lstm_cell.EAGER
    assert "the compiler failed: RuntimeError: no omp.h" in sentence
    with pytest.raises(ValueError, match=r"no omp\.h"):
        compile_lstm("on")


def test_a_cell_with_other_numbers_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> None:
        lstm_cell.forward(*arguments)
        arguments[4].add_(1.0)

    monkeypatch.setattr(cell, "_missing_compiler", lambda device: None)
    monkeypatch.setattr(lstm_cell, "build", lambda: cell.Cell(wrong, lstm_cell.backward))

    ops, sentence = compile_lstm("auto")
    assert ops is lstm_cell.EAGER
    assert "AssertionError" in sentence


def drawn(arguments: list[Any], rows: int, dtype: torch.dtype) -> list[Any]:
    """Random numbers in the place of each tensor, of other rows, with a real run's strides."""
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


def assert_same_cell(ops: cell.Cell, recipe: cell.Recipe, hidden: int, rows: int) -> None:
    for dtype in (torch.float32, torch.float64):
        samples = recipe.arguments(1, 4, hidden, 0.5, CPU)
        for ours, theirs, sample in zip(ops, recipe.EAGER, samples, strict=True):
            arguments = drawn(sample, rows, dtype)
            expected = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
            theirs(*expected)
            ours(*arguments)
            torch.testing.assert_close(arguments, expected)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_cell_in_cpp_is_the_eager_one_whatever_the_size(recipe: cell.Recipe) -> None:
    ops, sentence = cell.compile_cell("auto", recipe, CPU, 4, 24, 0.5)
    if "no C++ compiler" in sentence:
        pytest.skip(sentence)
    assert ops is not recipe.EAGER, sentence

    for rows, hidden in ((4, 24), (1, 24), (7, 16), (3, 5), (2, 67)):
        assert_same_cell(ops, recipe, hidden, rows)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.parametrize(
    ("recipe", "config"),
    [(lstm_cell, LSTMConfig(hidden=24, projection=8)), (gru_cell, GRUConfig(hidden=24))],
)
def test_the_eager_cell_compiles_whole_and_once(
    recipe: cell.Recipe, config: LSTMConfig | GRUConfig
) -> None:
    """What other devices than the CPU run, as far as it can be seen on one."""
    if (reason := cell._missing_compiler(CPU)) is not None:
        pytest.skip(reason)
    clip = 3.0 if isinstance(config, LSTMConfig) else math.inf
    torch.manual_seed(1)
    stack, eager = Recurrent(config, 2).eval(), Recurrent(config, 2).eval()
    eager.load_state_dict(stack.state_dict())
    ops = cell.Cell(*(torch.compile(step, fullgraph=True) for step in recipe.EAGER))
    with torch.no_grad():
        cell.try_cell(ops, recipe, 4, 24, clip, CPU)
    for layer in stack.layers:
        layer.ops = ops

    with torch._dynamo.config.patch(error_on_recompile=True):
        for rows, time in ((4, 5), (7, 2), (3, 9)):
            x = torch.randn(2, time, rows, stack.width, requires_grad=True)
            for resets in (None, torch.rand(2, time, rows) < 0.3):
                pairs = []
                for module in (stack, eager):
                    run = module(x, module.zero_state(rows), resets)
                    total = run.raw.square().sum() + run.state.sum()
                    leaves = [x, *module.parameters()]
                    pairs.append([*run.outputs, *torch.autograd.grad(total, leaves)])
                torch.testing.assert_close(*pairs)


@pytest.mark.slow
@pytest.mark.parametrize("config", [LSTMConfig(hidden=24, projection=8), GRUConfig(hidden=24)])
def test_a_stack_with_a_compiled_cell_has_the_same_outputs_and_gradients(
    config: LSTMConfig | GRUConfig,
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
            tolerance = 0.1 if autocast else 1e-5  # a value may be rounded to bf16 the other way
            torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)

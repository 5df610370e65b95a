"""Compiling the cell: what is said where it cannot be, and that the numbers stay the same."""

from itertools import product

import pytest
import torch

from lightning_modules.config import LSTMConfig
from lightning_modules.nn import cell
from lightning_modules.nn.recurrent import BiLSTM

CPU = torch.device("cpu")


def test_off_says_so() -> None:
    ops, sentence = cell.compile_cell("off", CPU, 8, None, 4)

    assert ops is cell.EAGER
    assert sentence == "The LSTM cell is not compiled (train.compile is off)."


def test_auto_without_a_compiler_goes_on_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell.shutil, "which", lambda name: None)

    ops, sentence = cell.compile_cell("auto", CPU, 8, None, 4)

    assert ops is cell.EAGER
    assert sentence == (
        "The LSTM cell is not compiled, training is slower: "
        "no C++ compiler (g++, clang++ or the one $CXX names) is on the PATH."
    )


def test_the_compiler_of_cxx_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "mine++")
    monkeypatch.setattr(cell.shutil, "which", lambda name: name if name == "mine++" else None)
    monkeypatch.setattr(cell, "_compiled", lambda *args: cell.EAGER)

    assert "is compiled" in cell.compile_cell("auto", CPU, 8, None, 4)[1]


def test_on_without_a_compiler_is_an_error_that_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cell.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r"compile is on.*triton is not installed.*auto or off"):
        cell.compile_cell("on", torch.device("cuda"), 8, None, 4)


def test_a_compiler_that_fails_is_told_and_auto_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> cell.Cell:
        raise RuntimeError("no omp.h")

    monkeypatch.setattr(cell, "_missing_compiler", lambda device: None)
    monkeypatch.setattr(cell, "_compiled", fail)

    ops, sentence = cell.compile_cell("auto", CPU, 8, None, 4)
    assert ops is cell.EAGER
    assert "torch.compile failed: RuntimeError: no omp.h" in sentence
    with pytest.raises(ValueError, match=r"no omp\.h"):
        cell.compile_cell("on", CPU, 8, None, 4)


@pytest.mark.slow
def test_the_compiled_cell_is_the_eager_one_and_no_number_of_rows_compiles_again() -> None:
    ops, sentence = cell.compile_cell("auto", CPU, 24, 0.5, 4)
    if "no C++ compiler" in sentence:
        pytest.skip(sentence)
    assert ops is not cell.EAGER, sentence
    for without_graph, rows in product((torch.no_grad, torch.inference_mode), (4, 1, 7)):
        # inference mode compiles once more: its tensors are of another kind
        first = without_graph is torch.inference_mode and rows == 4
        with torch._dynamo.config.patch(error_on_recompile=not first), without_graph():
            gates, *rest = (torch.randn(2 * rows, width) for width in (96, 24, 24, 24, 24))
            pairs = [
                (ops.forward(gates, rest[0], 0.5), cell.cell_forward(gates, rest[0], 0.5)),
                (ops.backward(gates, *rest, 0.5), cell.cell_backward(gates, *rest, 0.5)),
            ]
        for compiled, eager in pairs:
            torch.testing.assert_close(compiled, eager)


@pytest.mark.slow
def test_a_stack_with_a_compiled_cell_has_the_same_outputs_and_gradients() -> None:
    config = LSTMConfig(hidden=24, projection=8, dropout=0.0)
    lstm = BiLSTM(config, 8)
    x = torch.randn(2, 5, 3, 8)

    def run() -> list[torch.Tensor]:
        outputs, after = lstm(x, lstm.zero_state(3))
        total = outputs[-1].square().sum() + after.cell.sum()
        return [*outputs, *torch.autograd.grad(total, list(lstm.parameters()))]

    eager = run()
    sentence = lstm.compile_cell("auto", rows=3)
    if "no C++ compiler" in sentence:
        pytest.skip(sentence)
    assert "is compiled" in sentence
    with torch._dynamo.config.patch(error_on_recompile=True):
        for a, b in zip(run(), eager, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

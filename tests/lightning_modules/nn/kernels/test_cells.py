"""The fused cells in Triton's interpreter, on the CPU, against the eager cells in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.nn.kernels.traffic import TRAFFIC
from lightning_modules.nn.recurrent import gru_cell, lstm_cell
from lightning_modules.nn.recurrent.cell import check_cell
from lightning_modules.nn.recurrent.stack import Recurrent
from lightning_modules.recurrent_config import GRUConfig, LSTMConfig

pytest.importorskip("triton", reason="Triton is not installed")

INTERPRETED = ("cells_triton",)
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
# Relative; the interpreter truncates to bfloat16, where a GPU rounds.
TOLERANCES = {BF16: 2**-7, FP16: 2**-11, FP32: 2e-6}
SIZES = [(1, 1, 5), (2, 9, 130)]  # directions, rows, hidden


@pytest.fixture
def numbers() -> Callable[..., Tensor]:
    """Return a function that draws numbers of all magnitudes from 1e-6 to 10."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        sign = torch.randint(2, shape, generator=generator) * 2 - 1
        return sign * 10 ** (7 * torch.rand(shape, generator=generator) - 6)

    return draw


def resets(directions: int, rows: int, dtype: torch.dtype) -> Tensor:
    return (torch.arange(directions * rows).view(directions, rows, 1) % 3 > 0).to(dtype)


def double(arguments: list[Any]) -> list[Any]:
    return [a.double() if isinstance(a, Tensor) else a for a in arguments]


def assert_rounded(ours: Tensor, exact: Tensor) -> None:
    """Assert that our numbers are the exact ones, rounded to the dtype of ours.

    The absolute tolerance is for sums of numbers near 10 in float32.
    """
    torch.testing.assert_close(ours.double(), exact, rtol=TOLERANCES[ours.dtype], atol=2e-5)


def lstm_arguments(
    draw: Callable[..., Tensor], size: tuple[int, int, int], dtype: torch.dtype, reset: bool
) -> list[Any]:
    """Return the arguments of a step amid others, in the memory layout of a layer."""
    directions, rows, hidden = size
    cells = draw(4, *size)
    squashed = torch.zeros(directions, 3, rows, hidden, dtype=dtype)
    return [
        draw(directions, 3, rows, 4 * hidden).to(dtype)[:, 1],
        draw(directions, rows, 4 * hidden).to(dtype),
        draw(directions, 4 * hidden), cells[1], cells[2], squashed[:, 1], 0.5,
        resets(directions, rows, dtype) if reset else None,
    ]  # fmt: skip


def gru_arguments(
    draw: Callable[..., Tensor], size: tuple[int, int, int], dtype: torch.dtype, reset: bool
) -> list[Any]:
    directions, rows, hidden = size
    y = draw(4, *size)
    inner, operand = torch.zeros(2, directions, 3, rows, hidden, dtype=dtype).unbind()
    return [
        draw(directions, 3, rows, 3 * hidden).to(dtype)[:, 1],
        draw(directions, rows, 3 * hidden).to(dtype),
        draw(directions, 3 * hidden), draw(directions, hidden), y[1], y[2], inner[:, 1],
        None if dtype == FP32 else operand[:, 1],
        resets(directions, rows, dtype) if reset else None,
    ]  # fmt: skip


def lstm_values(stored: Tensor) -> Tensor:
    """Return the values of the gates in float64, given what `forward` stores."""
    values = stored.double()
    if stored.dtype != FP32:
        i, f, g, o = values.chunk(4, -1)
        values = torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], -1)
    return values


def gru_values(stored: Tensor) -> Tensor:
    values = stored.double()
    if stored.dtype != FP32:
        r, z, n = values.chunk(3, -1)
        values = torch.cat([r.sigmoid(), z.sigmoid(), n.tanh()], -1)
    return values


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize(("reset", "clip"), [(False, torch.inf), (True, 0.5)])
@pytest.mark.parametrize("dtype", [BF16, FP16, FP32])
@pytest.mark.parametrize("size", SIZES)
def test_the_lstm_kernels_equal_the_eager_cell_in_float64(
    size: tuple[int, int, int],
    dtype: torch.dtype,
    reset: bool,
    clip: float,
    numbers: Callable[..., Tensor],
) -> None:
    ops = lstm_cell.fused()
    arguments = lstm_arguments(numbers, size, dtype, reset)
    arguments[6] = clip
    gates, _, bias, before, after, squashed, _, keep = arguments
    outside = gates._base.clone()
    expected = double(arguments)
    sums = expected[0] + expected[1] * (1 if keep is None else keep) + bias.double().unsqueeze(1)
    lstm_cell.forward(*expected)

    ops.forward(*arguments)

    assert_rounded(gates, expected[0] if dtype == FP32 else sums)
    assert_rounded(after, expected[4])
    assert_rounded(squashed, expected[5])
    assert torch.equal(gates._base[:, ::2], outside[:, ::2])
    assert not squashed._base[:, ::2].any()

    d_squashed, d_cell = numbers(*size).to(dtype), numbers(*size)
    arguments = [gates, before, after, d_squashed, d_cell, clip, keep]
    expected = [lstm_values(gates), *double(arguments[1:])]
    lstm_cell.backward(*expected)
    ops.backward(*arguments)
    assert_rounded(gates, expected[0])
    assert_rounded(d_cell, expected[4])


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("dtype", [BF16, FP16, FP32])
@pytest.mark.parametrize("size", SIZES)
def test_the_gru_kernels_equal_the_eager_cell_in_float64(
    size: tuple[int, int, int], dtype: torch.dtype, reset: bool, numbers: Callable[..., Tensor]
) -> None:
    ops = gru_cell.fused()
    arguments = gru_arguments(numbers, size, dtype, reset)
    gates, _, _, _, before, after, inner, operand, keep = arguments
    outside = gates._base.clone()
    expected = double(arguments)
    gru_cell.forward(*expected)

    ops.forward(*arguments)

    assert_rounded(after, expected[5])
    assert_rounded(inner, expected[6])
    if dtype == FP32:
        assert_rounded(gates, expected[0])
    else:
        assert_rounded(operand, expected[5])
        torch.testing.assert_close(gru_values(gates), expected[0], rtol=0.2, atol=2**-8)
    assert torch.equal(gates._base[:, ::2], outside[:, ::2])

    directions, rows, hidden = size
    d_hidden, d_output = numbers(*size), numbers(directions, 3, rows, hidden)[:, 1]
    d_recurrent = torch.zeros(directions, 3, rows, 3 * hidden, dtype=dtype)[:, 1]
    parts = (None, None) if dtype == FP32 else (d_output, numbers(*size).to(dtype))
    arguments = [gates, inner, before, d_hidden, d_recurrent, *parts, keep]
    expected = [gru_values(gates), *double(arguments[1:])]
    gru_cell.backward(*expected)
    ops.backward(*arguments)
    for ours, exact in zip(arguments[:5], expected[:5], strict=True):
        assert_rounded(ours, exact)
    assert not d_recurrent._base[:, ::2].any()


@pytest.mark.usefixtures("interpreter")
def test_the_nonlinearities_are_exact_for_small_and_large_numbers() -> None:
    magnitudes = torch.logspace(-30, 2, 500)
    x = torch.cat([magnitudes, -magnitudes, torch.linspace(-1, 1, 24)]).view(1, 1, -1)
    gates, zeros = x.repeat(1, 1, 4), torch.zeros_like(x)
    ops = lstm_cell.fused()

    ops.forward(
        gates, torch.zeros_like(gates), zeros[0].repeat(1, 4), zeros, zeros.clone(), zeros.clone(),
        torch.inf, None,
    )  # fmt: skip

    expected = lstm_values(x.double().repeat(1, 1, 4))
    assert expected.dtype == torch.float64
    torch.testing.assert_close(gates.double(), expected, rtol=5e-7, atol=1e-38)


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_not_finite_where_the_eager_cell_keeps_it(number: float) -> None:
    for dtype in (BF16, FP16, FP32):
        draw = torch.Generator().manual_seed(1)
        arguments = lstm_arguments(
            lambda *shape, g=draw: torch.randn(shape, generator=g), (1, 12, 16), dtype, True
        )
        for part in range(4):
            arguments[0][0, part, part * 16 + 1] = number  # a sum of one gate
        arguments[3][0, 4, 1] = number  # c of a row without, and of one with a reset
        arguments[3][0, 6, 1] = number
        d_squashed, d_cell = torch.ones(1, 12, 16, dtype=dtype), torch.ones(1, 12, 16)
        d_squashed[0, 7, 1], d_cell[0, 8, 1] = number, number
        runs = []
        for ops in (lstm_cell.fused(), lstm_cell.EAGER):
            copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
            ops.forward(*copies)
            gates, _, _, before, after, squashed, clip, keep = copies
            values = [after.clone(), squashed.clone()]
            d_before = d_cell.clone()
            ops.backward(gates, before, after, d_squashed, d_before, clip, keep)
            runs.append([*values, gates, d_before])
        for ours, theirs in zip(*runs, strict=True):
            assert torch.equal(ours.isnan(), theirs.isnan())
            assert torch.equal(ours.isinf(), theirs.isinf())


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("kind", ["lstm", "lstm without projection", "gru"])
def test_a_layer_with_fused_cells_equals_one_with_eager_cells(kind: str) -> None:
    torch.manual_seed(1)
    clips = {"hidden": 24, "layers": 1, "cell_clip": 0.6, "projection_clip": 0.2}
    config = GRUConfig(hidden=24, layers=1)
    if kind != "gru":
        projection = None if "without" in kind else 6
        config = LSTMConfig.model_validate(clips | {"projection": projection})
    stack, module = Recurrent(config, 2).eval(), gru_cell if kind == "gru" else lstm_cell
    x = torch.randn(2, 3, 2, stack.width)
    some = torch.rand(2, 3, 2) < 0.4
    tap = torch.zeros(2, 3, 2, stack.width, requires_grad=True)
    for dtype in (None, BF16, FP16):
        scale = 4096 if dtype == FP16 else 1  # as that of the gradients in a training
        runs = []
        for ops in (module.fused(), module.EAGER):
            stack.layers[0].ops = ops
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                run = stack(x, torch.ones_like(stack.zero_state(2)), some, taps=[tap])
                with torch.inference_mode():
                    bare = stack(x, torch.ones_like(stack.zero_state(2)), some)
            total = (run.raw.square().sum() + run.state.sum()) * scale
            torch.testing.assert_close(bare.raw, run.raw.detach())
            leaves = [tap, *stack.parameters()]
            runs.append([run.raw, run.state, *torch.autograd.grad(total, leaves)])
        for ours, theirs in zip(*runs, strict=True):
            error = (ours - theirs).norm() / theirs.norm()
            assert error < {None: 1e-6, BF16: 0.02, FP16: 2e-3}[dtype]


@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("module", [lstm_cell, gru_cell])
def test_the_check_at_the_start_of_a_training_accepts_the_kernels(module: Any) -> None:
    ops = module.fused()
    for dtype in (FP32, BF16, FP16):
        check_cell(ops, module, 4, 24, 0.5, torch.device("cpu"), dtype)

    def lost(*arguments: Any) -> None:
        ops.forward(*arguments)
        arguments[0].zero_()

    with pytest.raises(AssertionError):
        check_cell(ops._replace(forward=lost), module, 4, 24, 0.5, torch.device("cpu"), BF16)


@pytest.mark.parametrize(("size", "reset"), [((2, 7, 40), False), ((1, 9, 130), True)])
@pytest.mark.usefixtures("interpreter")
def test_the_declared_traffic_is_that_of_the_loads_and_stores(
    size: tuple[int, int, int],
    reset: bool,
    numbers: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from triton.runtime.interpreter import InterpreterBuilder as Builder

    moved = {"load": 0, "store": 0}
    for kind in moved:
        original = getattr(Builder, f"create_masked_{kind}")

        def count(
            self: Any, ptrs: Any, *rest: Any, kind: str = kind, original: Any = original
        ) -> Any:
            mask = rest[0] if kind == "load" else rest[1]
            moved[kind] += int(mask.data.sum()) * (ptrs.get_element_ty().primitive_bitwidth // 8)
            return original(self, ptrs, *rest)

        monkeypatch.setattr(Builder, f"create_masked_{kind}", count)
    for dtype in (BF16, FP32):
        of_lstm, of_gru = (f(numbers, size, dtype, reset) for f in (lstm_arguments, gru_arguments))
        gates, _, _, before, after, squashed, clip, keep = of_lstm
        calls: dict[str, list[Any]] = {
            "lstm_forward": of_lstm,
            "lstm_backward": [gates, before, after, squashed, before.clone(), clip, keep],
            "gru_forward": of_gru,
            "gru_backward": [
                of_gru[0], of_gru[6], before, before.clone(), of_gru[1], before, of_gru[6], keep
            ],
        }  # fmt: skip
        for name, arguments in calls.items():
            moved.update(load=0, store=0)
            getattr(torch.ops.biloom, name)(*arguments)
            assert tuple(moved.values()) == tuple(TRAFFIC[f"biloom::{name}"](*arguments)), name

"""The rules of the counter, with bytes computed by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fake_gpu import DEVICE, fake_gpu
from step_counter import PARTS, Count, StepCounter
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.nn.kernels.traffic import TRAFFIC, Traffic, register
from lightning_modules.nn.recurrent import lstm_cell

aten = torch.ops.aten


def on_gpu(*shape: int, dtype: torch.dtype = torch.float32, **options: Any) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=DEVICE, **options)


def ints(*shape: int) -> Tensor:
    return on_gpu(*shape, dtype=torch.int64)


def bf16(*shape: int) -> Tensor:
    return on_gpu(*shape, dtype=torch.bfloat16)


def counted(function: Callable[..., object], *makers: Callable[[], Tensor]) -> Count:
    """Return the count of a function; its arguments are made before."""
    counter = StepCounter()
    with fake_gpu(counter.compiled, counter.captured), counter:
        arguments = [make() for make in makers]
        counter.is_on = True
        function(*arguments)
    return counter.count


def of(shape: tuple[int, ...], make: Callable[..., Tensor] = on_gpu) -> Callable[[], Tensor]:
    return lambda: make(*shape)


X = of((4, 5))  # 80 bytes
ROW = of((5,))  # 20 bytes

CASES: dict[str, tuple[Callable[..., object], list[Callable[[], Tensor]], int, int, int]] = {
    # (function, arguments, operations, bytes read, bytes written)
    "mm": (torch.mm, [of((2, 3)), of((3, 4))], 1, 4 * (6 + 12), 4 * 8),
    "mm in bf16": (torch.mm, [of((2, 3), bf16), of((3, 4), bf16)], 1, 2 * (6 + 12), 2 * 8),
    "bmm out": (
        lambda a, b, out: torch.bmm(a, b, out=out),
        [of((2, 2, 3)), of((2, 3, 4)), of((2, 2, 4))],
        *(1, 4 * (12 + 24), 4 * 16),
    ),
    "addmm_": (lambda x, a, b: x.addmm_(a, b), [X, of((4, 2)), of((2, 5))], 1, 80 + 32 + 40, 80),
    "addmm_ with beta 0": (
        lambda x, a, b: x.addmm_(a, b, beta=0),
        [X, of((4, 2)), of((2, 5))],
        *(1, 32 + 40, 80),
    ),
    "in place": (lambda x, y: x.add_(y), [X, X], 1, 160, 80),
    "operand given twice": (lambda x: x * x, [X], 1, 80, 80),
    "broadcast": (lambda x, row: x + row, [X, ROW], 1, 80 + 20, 80),
    "expanded": (lambda row: row.expand(4, 5).clone(), [ROW], 1, 20, 80),
    "unfolded": (lambda x: x.unfold(1, 3, 1).clone(), [X], 1, 80, 4 * 3 * 3 * 4),
    "part of a tensor": (lambda x: x[1:, :2].clone(), [X], 1, 24, 24),
    "views": (lambda x: x.view(2, 10).t()[1:].unsqueeze(0).detach(), [X], 0, 0, 0),
    "allocations": (lambda x: (torch.empty_like(x), x.new_empty(3)), [X], 0, 0, 0),
    "zeros": (lambda x: x.new_zeros(3), [X], 1, 0, 12),
    "nothing": (lambda x: x[:0] * 2, [X], 0, 0, 0),
    "on the host": (lambda: torch.ones(3) * 2, [], 0, 0, 0),
    "cat": (lambda x, y: torch.cat([x, y]), [X, X], 1, 160, 160),
    "copy_": (lambda x, y: x.copy_(y), [X, of((4, 5), bf16)], 1, 40, 80),
    "to another dtype": (lambda x: x.bfloat16(), [X], 1, 80, 40),
    "fill_": (lambda x: x.zero_(), [X], 1, 0, 80),
    "random": (lambda x: x.bernoulli_(0.5), [X], 1, 0, 80),
    "dropout": (lambda x: F.dropout(x, 0.5), [X], 1, 80, 80 + 20),
    "softmax over itself": (lambda x: torch.softmax(x, 1, out=x), [X], 1, 80, 80),
    "index_select": (lambda x, at: x.index_select(0, at), [X, of((3,), ints)], 1, 24 + 60, 60),
    "embedding": (lambda x, at: F.embedding(at, x), [X, of((10,), ints)], 1, 80 + 80, 200),
    "gather": (lambda x, at: x.gather(1, at), [X, of((4, 1), ints)], 1, 32 + 16, 16),
    "index": (lambda x, at: x[at], [X, of((2,), ints)], 1, 16 + 40, 40),
    "scatter_add_": (
        lambda x, at, y: x.scatter_add_(1, at, y),
        [X, of((4, 2), ints), of((4, 2))],
        *(1, 64 + 32 + 32, 32),
    ),
    "scatter_": (
        lambda x, at, y: x.scatter_(1, at, y),
        [X, of((4, 2), ints), of((4, 2))],
        *(1, 64 + 32, 32),
    ),
    "index_add_": (
        lambda x, at, y: x.index_add_(0, at, y),
        [X, of((2,), ints), of((2, 5))],
        *(1, 16 + 40 + 40, 40),
    ),
    "foreach": (lambda x, y: torch._foreach_mul_([x, y], 2.0), [X, ROW], 1, 100, 100),
}


@pytest.mark.parametrize("case", CASES)
def test_operations_and_bytes(case: str) -> None:
    function, makers, operations, loads, stores = CASES[case]
    count = counted(function, *makers)
    total = count.of()
    assert (total.operations, total.loads, total.stores) == (operations, loads, stores)
    assert (count.copies, count.reads) == (0, 0)


def test_products_have_flops_and_take_the_longer_of_their_bytes_and_flops() -> None:
    few = counted(torch.mm, of((2, 3)), of((3, 4))).of()
    assert few.flops == 2 * 2 * 3 * 4
    assert few.seconds == few.bytes / 2.7e12
    sums = counted(lambda x, a, b: x.baddbmm_(a, b), of((2, 2, 4)), of((2, 2, 3)), of((2, 3, 4)))
    assert sums.of().flops == 2 * few.flops
    wide = counted(
        lambda a, b: torch.bmm(a, b, out_dtype=torch.float32),
        *(of((2, 2, 3), bf16), of((2, 3, 4), bf16)),
    ).of()
    assert (wide.flops, wide.loads, wide.stores) == (2 * few.flops, 2 * (12 + 24), 4 * 16)
    size = (8192, 8192)
    many = counted(lambda a, b, out: torch.mm(a, b, out=out), *[of(size, bf16)] * 3).of()
    assert many.seconds == many.flops / 800e12 == 2 * 8192**3 / 800e12


@pytest.mark.parametrize(
    ("function", "makers", "moved", "copies", "reads"),
    [
        (lambda: torch.ones(3).to(DEVICE), [], 12, 1, 0),
        (lambda x: x.copy_(torch.ones(4, 5)), [X], 80, 1, 0),
        (lambda x: x.cpu(), [X], 80, 0, 1),
        (lambda x: x.to("cpu", non_blocking=True), [X], 80, 0, 0),
        (lambda x: x.item(), [of(())], 0, 0, 1),
        (lambda x: float(x) > 1, [of(())], 0, 0, 1),
        (lambda x: bool(x), [of(())], 0, 0, 1),
        (lambda x: float(x.to("cpu", non_blocking=True)), [of(())], 4, 0, 0),
    ],
)
def test_copies_and_reads(
    function: Callable[..., object],
    makers: list[Callable[[], Tensor]],
    moved: int,
    copies: int,
    reads: int,
) -> None:
    count = counted(function, *makers)
    total = count.of()
    assert (total.operations, total.bytes) == (0, moved)
    assert (count.copies, count.reads) == (copies, reads)


def test_the_backward_pass_counts() -> None:
    def step(x: Tensor, w: Tensor) -> None:
        w.requires_grad_()
        x.index_select(0, torch.zeros(2, dtype=torch.int64, device=DEVICE)).mul(w).sum().backward()
        assert w.grad is not None
        assert w.grad.device == DEVICE

    names = {name for _, name in counted(step, X, of((2, 5))).tallies}
    # The gradient of the sum is a view; that of w is a product, and the only one.
    assert names == {"zeros", "index_select", "mul", "sum", "ones_like"}


def test_the_gradient_of_index_select_is_added_in_place() -> None:
    def step(x: Tensor, at: Tensor) -> None:
        x.requires_grad_()
        x.index_select(0, at).sum().backward()
        assert x.grad is not None
        assert x.grad.device == DEVICE

    tallies = counted(step, X, of((2,), ints)).tallies
    assert (tallies["glue", "index_add_"].loads, tallies["glue", "index_add_"].stores) == (
        # the indices, the expanded gradient and two rows
        *(16 + 4 + 40, 40),
    )


def test_a_fused_optimiser_reads_gradients_and_changes_all_else() -> None:
    def step(x: Tensor) -> None:
        weight = torch.nn.Parameter(x)
        optimizer = torch.optim.Adam([weight], fused=True)
        weight.grad = torch.empty_like(x)
        optimizer.step()

    adam = counted(step, X).tallies["optimiser", "_fused_adam_"]
    assert (adam.loads, adam.stores) == (4 * 80 + 4, 3 * 80)  # and the number of the step


def test_a_compiled_cell_is_one_launch() -> None:
    def cell(gates: Tensor, recurrent: Tensor, bias: Tensor, *others: Tensor) -> None:
        torch.compile(lstm_cell.forward)(gates, recurrent, bias, *others, 3.0)

    state = of((2, 3, 5))
    makers = [of((2, 3, 20)), of((2, 3, 20), bf16), of((2, 20)), state, state, state]
    total = counted(cell, *makers).of()
    assert total.operations == 1
    assert total.loads == 4 * 120 + 2 * 120 + 4 * 40 + 4 * 30
    assert total.stores == 4 * 120 + 2 * 4 * 30


def test_a_fused_kernel_counts_what_its_module_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    @torch.library.custom_op("biloom::scale_for_a_test", mutates_args={"x"})
    def scale(x: Tensor, factor: float) -> None:
        raise NotImplementedError

    def run(x: Tensor) -> None:
        torch.ops.biloom.scale_for_a_test(x, 2.0)

    with pytest.raises(AssertionError, match="scale_for_a_test: tell its traffic in TRAFFIC"):
        counted(run, X)
    # So that the registry is as before after the test.
    monkeypatch.setitem(TRAFFIC, "biloom::scale_for_a_test", lambda *_: Traffic(0, 0))

    @register("biloom::scale_for_a_test")
    def _(x: Tensor, factor: float) -> Traffic:
        return Traffic(loads=x.nbytes, stores=7)

    total = counted(run, X).of()
    assert (total.operations, total.loads, total.stores) == (1, 80, 7)


def test_the_device_exists_only_in_the_block() -> None:
    assert counted(lambda x: x + 1, X).of("glue").operations == 1
    assert set(PARTS) >= {"glue"}
    with pytest.raises((AssertionError, RuntimeError)):
        torch.empty(1, device=DEVICE)


def test_a_replay_has_the_operations_of_the_captured_function() -> None:
    counter = StepCounter()
    with fake_gpu(counter.compiled, counter.captured), counter:
        x = on_gpu(4, 5)
        (result,), replay = counter.captured(lambda: (x.bfloat16(),))
        counter.is_on = True
        replay()
        x.mul_(2)
    total = counter.count.of()
    assert result.dtype == torch.bfloat16
    assert (total.operations, total.captured, counter.count.graphs) == (2, 1, 1)
    assert total.bytes == (80 + 40) + 2 * 80


def test_what_depends_on_values_is_not_captured() -> None:
    counter = StepCounter()
    with fake_gpu(counter.compiled, counter.captured), counter:
        sizes = iter((4, 5))
        _, replay = counter.captured(lambda: (on_gpu(next(sizes)).zero_(),))
        with pytest.raises(AssertionError, match="other operations than when it was captured"):
            replay()
        counter.is_on = True
        with pytest.raises(AssertionError, match="copies from the host, or reads on it"):
            counter.captured(lambda: (float(on_gpu()),))
        with pytest.raises(AssertionError, match="copies from the host, or reads on it"):
            counter.captured(lambda: (torch.ones(3).to(DEVICE),))

"""The fused losses in Triton's interpreter, on the CPU, against their definition in float64."""

import math
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.nn.heads import fused_loss, linear_loss
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.kernels import narrow_softmax, support, wide_softmax
from lightning_modules.nn.kernels.traffic import TRAFFIC

from .conftest import Interpreter

pytest.importorskip("triton", reason="Triton is not installed")
pytestmark = pytest.mark.usefixtures("interpreter")
INTERPRETED = ("narrow_softmax_triton", "wide_softmax_triton")

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
# Of one rounding to the dtype; the interpreter truncates to bfloat16, where a GPU rounds.
ROUNDING = {BF16: 2**-7, FP16: 2**-10, FP32: 4e-6}


def exact(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool
) -> Tensor:
    """Return the losses by their definition."""
    z = F.linear(hidden, weight, bias)
    if not exclude:
        goals = columns.where(columns >= 0, -100)
        return F.cross_entropy(z, goals, ignore_index=-100, reduction="none")
    out = F.one_hot(columns.clamp(min=0), len(weight)).bool() & (columns >= 0)[:, None]
    return z.masked_fill(out, -torch.inf).logsumexp(1)


def example(
    n: int, dim: int, size: int, dtype: torch.dtype, biased: bool
) -> tuple[list[Tensor], Tensor]:
    """Return hidden, weight and perhaps bias, whose numbers fit the dtype, and columns."""
    generator = torch.Generator().manual_seed(n + size)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).float().requires_grad_()

    columns = torch.randint(-1, size, (n,), generator=generator)
    return [draw(n, dim), draw(size, dim), draw(size)][: 2 + biased], columns


def assert_fused(
    leaves: list[Tensor], columns: Tensor, exclude: bool, dtype: torch.dtype, logits: float = 0.0
) -> None:
    """Assert that losses and gradients are the exact ones, but for a rounding of p - e.

    Args:
        leaves: hidden, weight, and perhaps bias.
        columns: columns.
        exclude: form of the loss.
        dtype: dtype of the matmuls.
        logits: absolute error of the logits.
    """
    g = torch.linspace(-1, 2, len(columns))  # gradients of the losses
    bias = leaves[2] if len(leaves) > 2 else None
    loss = fused_loss.fused_loss(*leaves[:2], bias, columns, exclude, dtype)
    with torch.no_grad():
        without = fused_loss.fused_loss(*leaves[:2], bias, columns, exclude, dtype)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = exact(*wide[:2], wide[2] if len(wide) > 2 else None, columns, exclude)

    assert loss.dtype == FP32
    for ours in (loss, without):
        torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=2e-5 + 2 * logits)
    gradients = torch.autograd.grad((loss * g).sum(), leaves)
    for ours, theirs in zip(
        gradients, torch.autograd.grad((expected * g).sum(), wide), strict=True
    ):
        assert ours.dtype == FP32
        assert (ours - theirs).norm() <= (ROUNDING[dtype] + 2 * logits) * theirs.norm() + 1e-6


@pytest.mark.parametrize(
    ("shape", "dtype", "biased", "exclude"),
    [
        ((1, 1, 1), BF16, False, False),
        ((1, 16, 2), FP16, True, True),
        ((5, 8, 129), BF16, True, False),
        ((33, 8, 64), BF16, True, True),
        ((129, 20, 65), FP16, False, False),
        ((128, 128, 63), BF16, False, True),
    ],
)
def test_the_losses_of_narrow_maps_never_round_logits(
    shape: tuple[int, int, int], dtype: torch.dtype, biased: bool, exclude: bool
) -> None:
    leaves, columns = example(*shape, dtype, biased)
    assert_fused(leaves, columns, exclude, dtype)


@pytest.mark.parametrize(
    ("sizes", "dtype", "biased", "exclude"),  # sizes are KEPT and TILE
    [
        ((1 << 28, 1), BF16, False, False),
        ((1 << 28, 1), FP16, True, True),
        ((1 << 28, 1), FP32, True, False),
        ((0, 1), BF16, True, False),
        ((0, 640), FP32, False, True),
        ((0, 640), FP16, True, False),
    ],
)
def test_the_losses_of_wide_maps_use_logits_rounded_to_the_dtype_of_matmuls(
    sizes: tuple[int, int], dtype: torch.dtype, biased: bool, exclude: bool
) -> None:
    leaves, columns = example(7, 144, 300, dtype, biased)
    error = 0 if dtype == FP32 else ROUNDING[dtype] * 32  # logits of at most 64

    with mock.patch.multiple(fused_loss, KEPT=sizes[0], TILE=sizes[1], ROWS=3):
        assert_fused(leaves, columns, exclude, dtype, error)


@pytest.mark.parametrize("dtype", [BF16, FP16, FP32])
@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 301])
@pytest.mark.parametrize("whole_row", [16384, 0])
def test_an_operation_on_logits_is_exact(
    size: int, whole_row: int, exclude: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(size)
    logits = (torch.randn(3, 320) * 4).to(dtype)[:, :size]
    bias, columns = torch.randn(size), torch.tensor([0, size - 1, -1])
    wide = logits.double().requires_grad_()
    hidden = torch.eye(3, dtype=torch.float64)
    if size == 1 and exclude:
        columns.fill_(-1)
    biased = (wide + bias.double()).T
    losses = exact(hidden, biased, None, columns, exclude)
    (gradient,) = torch.autograd.grad(losses.sum(), wide)

    with mock.patch.multiple(wide_softmax, WHOLE_ROW=whole_row, BLOCK=128):
        ours = wide_softmax.softmax_rows_(logits, bias, columns, exclude)

    torch.testing.assert_close(ours.double(), losses, rtol=1e-6, atol=1e-5)
    kept = (columns >= 0) | torch.tensor(exclude)  # those of ignored rows are multiplied by 0
    torch.testing.assert_close(
        logits.double()[kept], gradient[kept], rtol=ROUNDING[dtype], atol=1e-6
    )


@pytest.mark.parametrize("dim", [8, 144])
def test_ignored_rows_have_no_loss_and_no_gradient(dim: int) -> None:
    leaves, columns = example(6, dim, 70, BF16, True)
    loss = fused_loss.fused_loss(*leaves, columns.fill_(-100), False, BF16)

    assert not loss.any()
    assert not any(g.any() for g in torch.autograd.grad(loss.sum(), leaves))


@pytest.mark.parametrize("dim", [8, 144])
@pytest.mark.parametrize("kept", [0, 1000])
def test_a_row_whose_only_column_is_excluded_has_no_gradient(dim: int, kept: int) -> None:
    hidden, weight = torch.ones(2, dim, requires_grad=True), torch.ones(1, dim, requires_grad=True)

    with mock.patch.object(fused_loss, "KEPT", kept):
        others = fused_loss.fused_loss(hidden, weight, None, torch.tensor([0, -1]), True, BF16)
        gradients = torch.autograd.grad(F.softplus(others).sum(), [hidden, weight])

    assert others.tolist() == [torch.finfo(FP32).min, dim]
    assert not gradients[0][0].any()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dim", [16, 144])
@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("dtype", [BF16, FP16])
@pytest.mark.parametrize("number", [1e4, -1e4, math.inf, -math.inf, math.nan])
def test_large_logits_are_exact_and_others_make_the_loss_not_finite_as_in_eager(
    number: float, dtype: torch.dtype, dim: int, kept: int
) -> None:
    leaves, columns = example(3, dim, 90, dtype, False)
    hidden, weight = leaves
    columns = torch.tensor([70, 3, 4])
    with torch.no_grad():
        weight[:, 0] = 0
        weight[70, 0], hidden[1, 0] = number, 1.0
        hidden[[0, 2], 0] = 0 if math.isfinite(number) else 1e-3

    with mock.patch.object(fused_loss, "KEPT", kept), torch.autocast("cpu", dtype):
        runs = []
        for function in (fused_loss.fused_loss, eager):
            loss = function(hidden, weight, None, columns, False, dtype)
            runs.append([loss, *torch.autograd.grad(loss.sum(), leaves)])

    assert torch.equal(runs[0][0].isfinite(), runs[1][0].isfinite())
    for ours, theirs in zip(*runs, strict=True):
        assert theirs.isfinite().all() or not ours.isfinite().all()
    if math.isfinite(number):
        torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-2, atol=0.1)


@pytest.mark.parametrize("dim", [16, 144])
@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_gradients_of_a_scaled_loss_are_right_in_float16(dim: int, kept: int) -> None:
    """The largest scale of a training is tried, 65,536, and one that overflows."""
    leaves, columns = example(24, dim, 90, FP16, True)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = torch.autograd.grad(exact(*wide, columns, False).mean(), wide)
    scales = [65536.0, 65536.0 * 1024]
    with mock.patch.object(fused_loss, "KEPT", kept):
        loss = fused_loss.fused_loss(*leaves, columns, False, FP16).mean()
        found, over = (torch.autograd.grad(loss * s, leaves, retain_graph=True) for s in scales)

    for ours, theirs in zip(found, expected, strict=True):
        error = (ours.double() / scales[0] - theirs).norm() / theirs.norm()
        assert error < ROUNDING[FP16] * (1 if dim == 16 else 32)
    assert dim == 16 or not over[1].isfinite().all(), "an overflow is seen"


def eager(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    columns: Tensor,
    exclude: bool,
    dtype: torch.dtype,
) -> Tensor:
    assert not exclude
    return linear_loss.linear_nll(hidden, weight, bias, columns)


def test_an_adaptive_softmax_trains_with_the_kernels_as_without() -> None:
    torch.manual_seed(1)
    head = AdaptiveSoftmax(AdaptiveSoftmaxConfig(div=4), 144, 300, (40, 90), None)
    hidden = torch.randn(30, 144, requires_grad=True)
    targets = torch.randint(-1, 300, (30,))
    leaves = [hidden, *head.parameters()]
    runs = []
    for usable in (True, False):
        with mock.patch.object(support, "are_usable", lambda device, usable=usable: usable):
            with torch.autocast("cpu", BF16):
                loss = head.nll(hidden, targets)
            runs.append([loss, *torch.autograd.grad(loss.mean(), leaves)])

    assert all(x.dtype == FP32 for x in runs[0])
    for ours, theirs in zip(*runs, strict=True):
        assert 0 < (ours - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize(
    ("n", "size", "biased", "exclude"),
    [(3, 60, False, False), (3, 60, True, True), (19, 201, False, True), (19, 201, True, False)],
)
def test_the_traffic_of_the_kernels_is_what_they_load_and_store(
    interpreter: Interpreter, n: int, size: int, biased: bool, exclude: bool
) -> None:
    leaves, columns = example(n, 20, size, BF16, True)
    hidden, weight, bias = (leaf.detach() for leaf in leaves)
    hidden, weight, columns = hidden.to(BF16), weight.to(BF16), columns.clamp(min=0)
    rest = (bias if biased else None, columns)
    logits = torch.randn(n, 320).to(BF16)[:, :size]
    state = torch.zeros(2, n)
    sums = torch.ones(2, narrow_softmax.grid_of(n, size).chunks, n)

    for name, arguments in {
        "softmax_rows_": (logits, *rest, exclude),
        "add_softmax_totals_": (logits, *rest, *state, 0, exclude),
        "softmax_gradient_": (logits, *rest, state[0], 0, exclude),
        "narrow_softmax_sums": (hidden, weight, *rest, exclude),
        "narrow_softmax_loss": (sums, hidden, weight, *rest, exclude),
        "narrow_softmax_d_hidden": (hidden, weight, *rest, *state, exclude),
        "narrow_softmax_d_weight": (hidden, weight, *rest, *state, exclude),
    }.items():
        interpreter.reset()
        with mock.patch.multiple(wide_softmax, WHOLE_ROW=128, BLOCK=128):
            getattr(torch.ops.biloom, name)(*arguments)
            assert interpreter.traffic == TRAFFIC[f"biloom::{name}"](*arguments), name


@pytest.mark.parametrize("dim", [8, 144])
@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_shapes_depend_on_shapes_only_and_no_value_is_read(dim: int, kept: int) -> None:
    arguments: list[Any] = [torch.empty(*s, device="meta") for s in ((9, dim), (300, dim), (300,))]
    leaves = [x.requires_grad_() for x in arguments]
    columns = torch.empty(9, dtype=torch.int64, device="meta")

    with mock.patch.multiple(fused_loss, KEPT=kept, TILE=640):
        loss = fused_loss.fused_loss(*leaves, columns, False, BF16)
        gradients = torch.autograd.grad(loss.sum(), leaves)

    assert loss.shape == (9,)
    assert [g.shape for g in gradients] == [x.shape for x in leaves]


@pytest.mark.slow
@pytest.mark.parametrize("dim", [8, 144])
def test_a_large_vocabulary_of_an_odd_size(dim: int) -> None:
    leaves, _ = example(2, dim, 300_001, BF16, False)
    error = 0 if dim == 8 else ROUNDING[BF16] * 32

    # Large tiles, because the interpreter needs milliseconds for each.
    with mock.patch.multiple(narrow_softmax, ROWS=16, COLUMNS=4096, WEIGHT_COLUMNS=8192):
        assert_fused(leaves, torch.tensor([300_000, 7]), False, BF16, error)

"""The losses against their definitions for any tile size, and their memory."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_modules.nn.heads import linear_loss
from lightning_modules.nn.heads.linear_loss import Sizes, linear_logsumexp, linear_nll


def defined(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, exclude: bool
) -> Tensor:
    logits = F.linear(hidden, weight, bias)
    if not exclude:
        goals = columns.where(columns >= 0, -100)
        return F.cross_entropy(logits, goals, ignore_index=-100, reduction="none")
    left_out = F.one_hot(columns.clamp(min=0), len(weight)).bool() & (columns >= 0)[:, None]
    return logits.masked_fill(left_out, -torch.inf).logsumexp(1)


class Record(TorchDispatchMode):
    """Records the size of the largest tensor that an operation returns, and counts matmuls."""

    largest = matmuls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.largest = max([self.largest, *sizes])
        self.matmuls += func.overloadpacket.__name__ in ("mm", "addmm_", "_linear_pointwise")
        return out


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 9),
    st.integers(2, 12),
    st.booleans(),
    st.booleans(),
    st.sampled_from([Sizes(1, 0), Sizes(10, 0), Sizes(1000, 0), Sizes(1, 1000), Sizes(1000, 1000)]),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_losses_and_gradients_match_the_definition_for_any_tiles(
    n: int, size: int, biased: bool, exclude: bool, sizes: Sizes, rows: int, seed: int
) -> None:
    torch.manual_seed(seed)
    columns = torch.randint(-1, size, (n,))
    leaves = [torch.randn(shape, dtype=torch.float64) * 3 for shape in ((n, 4), (size, 4), (size,))]
    leaves = [leaf.requires_grad_() for leaf in leaves[: 2 + biased]]
    hidden, weight, bias = (*leaves, None)[:3]
    weights = torch.randn(n, dtype=torch.float64)  # weights of the positions in the sum

    with mock.patch.multiple(linear_loss, CPU_SIZES=sizes, LEAST_ROWS=rows, MOST_ROWS=rows):
        ours = (linear_logsumexp if exclude else linear_nll)(hidden, weight, bias, columns)
        gradients = torch.autograd.grad((ours * weights).sum(), leaves)
        with torch.no_grad():
            without = (linear_logsumexp if exclude else linear_nll)(hidden, weight, bias, columns)

    theirs = defined(hidden, weight, bias, columns, exclude)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(without, theirs)
    for a, b in zip(gradients, torch.autograd.grad((theirs * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kept", [0, 1000])
def test_far_apart_logits_neither_overflow_nor_vanish(kept: int) -> None:
    hidden = torch.tensor([[100.0], [-100.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [-1.0]], requires_grad=True)
    targets = torch.tensor([2, 2])

    with mock.patch.object(linear_loss, "CPU_SIZES", Sizes(2, kept)):
        loss = linear_nll(hidden, weight, None, targets)
        gradients = torch.autograd.grad(loss.sum(), [hidden, weight])

    assert loss.tolist() == [200, 0]
    expected_gradients = torch.autograd.grad(
        F.cross_entropy(hidden @ weight.T, targets, reduction="sum"), [hidden, weight]
    )
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_row_whose_only_column_is_excluded_has_no_gradient(kept: int) -> None:
    hidden, weight = torch.ones(2, 3, requires_grad=True), torch.ones(1, 3, requires_grad=True)

    with mock.patch.object(linear_loss, "CPU_SIZES", Sizes(10, kept)):
        others = linear_logsumexp(hidden, weight, None, torch.tensor([0, -1]))
        gradients = torch.autograd.grad(F.softplus(others).sum(), [hidden, weight])

    assert others[0] < -1e38
    assert others[1] == 3
    assert not gradients[0][0].any()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("kept", [0, 1_000_000])
def test_under_autocast_matmuls_use_its_dtype_and_the_loss_is_float32(kept: int) -> None:
    torch.manual_seed(3)
    hidden, weight = (
        torch.randn(300, 32, requires_grad=True),
        torch.randn(50, 32, requires_grad=True),
    )
    bias, targets = torch.randn(50, requires_grad=True), torch.randint(0, 50, (300,))
    leaves = [hidden, weight, bias]

    with (
        mock.patch.object(linear_loss, "CPU_SIZES", Sizes(1000, kept)),
        torch.autocast("cpu", torch.bfloat16),
    ):
        loss = linear_nll(hidden, weight, bias, targets)
        reference = F.cross_entropy(
            F.linear(hidden, weight).float() + bias, targets, reduction="none"
        )
    gradients = torch.autograd.grad(loss.mean(), leaves)

    assert loss.dtype == torch.float32
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    torch.testing.assert_close(loss, reference)
    exact = defined(hidden, weight, bias, targets, exclude=False)
    assert 0 < (loss - exact).abs().max() < 0.3
    for ours, whole in zip(gradients, torch.autograd.grad(exact.mean(), leaves), strict=True):
        assert (ours - whole).norm() < 0.02 * whole.norm()


@pytest.mark.parametrize("training", [True, False])
def test_memory_is_bounded_for_a_million_ids(training: bool) -> None:
    hidden = torch.randn(40, 2, requires_grad=True)
    weight = torch.randn(1_000_000, 2, requires_grad=True)
    record = Record()

    with record, torch.set_grad_enabled(training):
        loss = linear_nll(hidden, weight, None, torch.arange(40)).sum()
        if training:
            torch.autograd.grad(loss, [hidden, weight])

    assert record.largest <= linear_loss.CPU_SIZES.tile


def test_for_a_small_vocabulary_logits_are_computed_once_in_a_single_tile() -> None:
    hidden = torch.randn(500, 4, requires_grad=True)
    weight = torch.randn(1000, 4, requires_grad=True)
    record = Record()

    with record:
        loss = linear_nll(hidden, weight, None, torch.arange(500)).sum()
        torch.autograd.grad(loss, [hidden, weight])

    assert record.largest == 500 * 1000
    assert record.matmuls == 3

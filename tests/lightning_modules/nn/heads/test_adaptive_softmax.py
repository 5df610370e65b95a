"""The adaptive softmax against nn.AdaptiveLogSoftmaxWithLoss."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.nn.heads import linear_loss
from lightning_modules.nn.heads.adaptive_softmax import AdaptiveSoftmax
from lightning_modules.nn.heads.linear_loss import Sizes
from lightning_modules.nn.heads.routes import route

DIM = 64


LogProb = Callable[[Any, Tensor], Tensor]


def head(
    vocabulary: int, cutoffs: tuple[int, ...], div: float = 4.0, ranks: Tensor | None = None
) -> AdaptiveSoftmax:
    torch.manual_seed(2)
    return AdaptiveSoftmax(AdaptiveSoftmaxConfig(div=div), DIM, vocabulary, cutoffs, ranks)


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, tuple[int, ...], float, list[int], int]:
    vocabulary = draw(st.integers(3, 40))
    cuts = draw(st.sets(st.integers(1, vocabulary - 1), min_size=1, max_size=3))
    targets = draw(st.lists(st.integers(-1, vocabulary - 1), min_size=1, max_size=30))
    return (
        vocabulary,
        tuple(sorted(cuts)),
        draw(st.sampled_from([1.0, 2.0, 4.0])),
        targets,
        draw(st.integers(0, 99)),
    )


@settings(deadline=None, max_examples=60)
@given(cases(), st.booleans(), st.sampled_from([linear_loss.CPU_SIZES, Sizes(40, 0)]))
def test_losses_and_gradients_equal_those_of_torchs_adaptive_softmax(
    log_prob: LogProb,
    case: tuple[int, tuple[int, ...], float, list[int], int],
    routed: bool,
    sizes: Sizes,
) -> None:
    vocabulary, cutoffs, div, goals, seed = case
    ranks = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))
    ours = head(vocabulary, cutoffs, div, ranks)
    theirs = nn.AdaptiveLogSoftmaxWithLoss(DIM, vocabulary, list(cutoffs), div_value=div)
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if k != "ranks"})
    targets = torch.tensor([-100 if goal < 0 else goal for goal in goals])
    kept = targets >= 0
    hidden = torch.randn(len(goals), DIM, generator=torch.Generator().manual_seed(seed))
    hidden.requires_grad_()

    routes = route(targets.numpy(), ranks.numpy(), cutoffs) if routed else None
    with mock.patch.object(linear_loss, "CPU_SIZES", sizes):
        loss = ours.nll(hidden, targets, routes)

    assert loss.dtype == torch.float32
    assert not loss[~kept].any()
    torch.testing.assert_close(
        log_prob(ours, hidden), theirs.log_prob(hidden)[:, ranks], atol=1e-5, rtol=1e-5
    )
    gradients = torch.autograd.grad(loss.sum(), [hidden, *ours.parameters()])  # each one exists
    if not kept.any():
        assert not any(g.any() for g in gradients)
        return
    expected = -theirs(hidden[kept], ranks[targets[kept]]).output
    torch.testing.assert_close(loss[kept], expected, atol=1e-5, rtol=1e-5)
    expected_gradients = torch.autograd.grad(
        expected.sum(), [hidden, *theirs.parameters()], allow_unused=True, materialize_grads=True
    )
    for a, b in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_probabilities_sum_to_one(log_prob: LogProb) -> None:
    ours = head(30, (5, 12), ranks=torch.arange(30).flip(0))
    hidden = torch.randn(30, DIM)

    table = log_prob(ours, hidden)

    torch.testing.assert_close(table.exp().sum(1), torch.ones(30))


def test_without_cutoffs_it_is_a_full_softmax(log_prob: LogProb) -> None:
    ours = head(20, ())
    hidden, targets = torch.randn(6, DIM), torch.tensor([0, 3, -100, 19, 7, 7])
    logits = hidden @ ours.head.weight.T

    expected = nn.functional.cross_entropy(logits, targets, reduction="none")

    torch.testing.assert_close(ours.nll(hidden, targets), expected)
    routes = route(targets.numpy(), np.arange(20), ())
    torch.testing.assert_close(ours.nll(hidden, targets, routes), expected)
    torch.testing.assert_close(log_prob(ours, hidden), logits.log_softmax(1))


def test_ranks_are_part_of_the_state_dict() -> None:
    ranks = torch.randperm(30)
    loaded = head(30, (5,))

    loaded.load_state_dict(head(30, (5,), ranks=ranks).state_dict())

    assert torch.equal(loaded.ranks, ranks)


@pytest.mark.parametrize("cutoffs", [(5, 5), (0, 3), (3, 30), (31,)])
def test_cutoffs_outside_the_vocabulary_raise(cutoffs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"head\.cutoffs: .* between 0 and 30, the number .* auto"):
        head(30, cutoffs)


def test_ranks_that_are_not_a_permutation_raise() -> None:
    with pytest.raises(ValueError, match="ranks must hold each of 0 to 2 once"):
        head(3, (1,), ranks=torch.tensor([0, 1, 1]))


def test_the_width_of_a_tail_is_at_least_one() -> None:
    ours = head(10, (2, 4, 6, 8))  # 64 / 4 ** k: 16, 4, 1 and 0.25

    assert [tail[0].out_features for tail in ours.tail] == [16, 4, 1, 1]


# torch.compile calls deprecated functions of torch.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_with_routes_it_compiles_to_a_single_graph(backend: str) -> None:
    ours = head(40, (5, 20))
    hidden, targets = torch.randn(30, DIM, requires_grad=True), torch.arange(30)
    routes = route(targets.numpy(), np.arange(40), ours.cutoffs)
    torch._dynamo.reset()
    compiled = torch.compile(ours.nll, fullgraph=True, backend=backend)

    loss = compiled(hidden, targets, routes)

    exact = ours.nll(hidden, targets, routes)
    torch.testing.assert_close(loss, exact)
    leaves = [hidden, *ours.parameters()]
    expected_gradients = torch.autograd.grad(exact.sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), leaves), expected_gradients)


def test_under_autocast_the_loss_is_float32() -> None:
    ours = head(40, (5, 20))
    hidden, targets = torch.randn(30, DIM, requires_grad=True), torch.arange(30)
    routes = route(targets.numpy(), np.arange(40), ours.cutoffs)
    leaves = [hidden, *ours.parameters()]
    exact = ours.nll(hidden, targets, routes)
    expected_gradients = torch.autograd.grad(exact.sum(), leaves)

    with torch.autocast("cpu", torch.bfloat16):
        low = ours.nll(hidden, targets, routes)

    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, atol=0.05, rtol=0.02)
    for gradient, leaf in zip(
        torch.autograd.grad(low.sum(), leaves), expected_gradients, strict=True
    ):
        assert gradient.dtype == torch.float32
        assert (gradient - leaf).norm() < 0.03 * leaf.norm() + 1e-6

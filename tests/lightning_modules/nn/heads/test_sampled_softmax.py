"""The sampled softmax against TensorFlow's loss and sampler, and against the full softmax."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import SampledSoftmaxConfig, SoftmaxConfig
from lightning_modules.nn.heads.sampled_softmax import SampledSoftmax
from lightning_modules.nn.heads.softmax import FullSoftmax

DIM = 8


LogProb = Callable[[Any, Tensor], Tensor]


def head(vocabulary: int, samples: int, ranks: Tensor | None = None) -> SampledSoftmax:
    torch.manual_seed(2)
    module = SampledSoftmax(SampledSoftmaxConfig(samples=samples), DIM, vocabulary, ranks)
    nn.init.normal_(module.bias)
    return module


def full(sampled: SampledSoftmax) -> FullSoftmax:
    module = FullSoftmax(SoftmaxConfig(), DIM, sampled.vocabulary, sampled)
    module.bias = sampled.bias
    return module


def test_the_loss_is_the_cross_entropy_over_target_and_samples_with_corrected_logits() -> None:
    ours = head(30, 12, torch.randperm(30))
    hidden = torch.randn(40, DIM, requires_grad=True)
    targets = torch.arange(40) % 30
    targets[5] = -1
    leaves = [hidden, *ours.parameters()]

    torch.manual_seed(7)
    loss = ours.nll(hidden, targets)
    torch.manual_seed(7)
    drawn, expected = ours._draw()

    logits = F.linear(hidden, ours.vectors, ours.bias) - expected.log()
    wanted, hits = [], 0
    for row, target in zip(logits, targets.tolist(), strict=True):
        others = [i for i in drawn.tolist() if i != target]
        hits += len(others) < len(drawn)
        wanted.append(-row[[target, *others]].log_softmax(0)[0] if target >= 0 else row.sum() * 0)
    assert 0 < hits < 40
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.stack(wanted))
    weights = torch.randn(40)
    for a, b in zip(
        torch.autograd.grad(loss @ weights, leaves),
        torch.autograd.grad(torch.stack(wanted) @ weights, leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_evaluation_is_exact(log_prob: LogProb) -> None:
    ours = head(30, 4)
    ours.eval()
    hidden, targets = torch.randn(6, DIM), torch.tensor([0, 3, -100, 29, 7, 7])

    torch.testing.assert_close(ours.nll(hidden, targets), full(ours).nll(hidden, targets))
    torch.testing.assert_close(
        log_prob(ours, hidden), F.linear(hidden, ours.vectors, ours.bias).log_softmax(1)
    )


def test_with_as_many_samples_as_ids_it_is_the_full_softmax() -> None:
    hidden, targets = torch.randn(6, DIM), torch.tensor([0, 3, -100, 29, 7, 7])

    for samples in (30, 8192):
        ours = head(30, samples)
        assert torch.equal(ours.nll(hidden, targets), full(ours).nll(hidden, targets))


def test_more_samples_bring_the_gradients_closer_to_those_of_the_full_softmax() -> None:
    hidden, targets = torch.randn(64, DIM, requires_grad=True), torch.arange(64)
    errors = []
    for samples in (4, 16, 60):
        ours = head(64, samples)
        leaves = [hidden, *ours.parameters()]
        loss = sum(ours.nll(hidden, targets).mean() for _ in range(100)) / 100
        exact = torch.autograd.grad(full(ours).nll(hidden, targets).mean(), leaves)
        pairs = zip(torch.autograd.grad(loss, leaves), exact, strict=True)
        errors.append(max(float((a - b).norm() / b.norm()) for a, b in pairs))

    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.05


def drawn_by_rejection(
    vocabulary: int, samples: int, rng: np.random.Generator
) -> tuple[set[int], int]:
    """Draw log-uniform ranks until enough are distinct, as TensorFlow does; return them and the draws."""
    seen: set[int] = set()
    draws = 0
    while len(seen) < samples:
        seen.add(int(np.exp(rng.random() * np.log(vocabulary + 1))) - 1)
        draws += 1
    return seen, draws


def test_ids_are_drawn_as_often_as_by_tensorflow_and_as_predicted() -> None:
    vocabulary, samples, times = 60, 12, 4000
    ours = head(vocabulary, samples)
    rng = np.random.default_rng(1)
    single = np.log1p(1 / np.arange(1, vocabulary + 1)) / np.log(vocabulary + 1)
    often, often_theirs = torch.zeros(vocabulary), torch.zeros(vocabulary)
    inverse, expected_theirs = torch.zeros(vocabulary), torch.zeros(vocabulary)
    expected = torch.zeros(vocabulary)
    for _ in range(times):
        drawn, q = ours._draw()
        assert len(set(drawn.tolist())) == samples
        often[drawn] += 1 / times
        inverse[drawn] += 1 / q[drawn] / times
        expected += q / times
        theirs, draws = drawn_by_rejection(vocabulary, samples, rng)
        often_theirs[list(theirs)] += 1 / times
        expected_theirs += torch.from_numpy(1 - (1 - single) ** draws) / times

    torch.testing.assert_close(often, often_theirs, atol=0.04, rtol=0)
    torch.testing.assert_close(expected, often, atol=0.05, rtol=0)
    torch.testing.assert_close(expected, expected_theirs, atol=0.05, rtol=0)
    # With weights 1 / q, a sum over the samples is an unbiased estimate of the sum over all ids.
    torch.testing.assert_close(inverse, torch.ones(vocabulary), atol=0.2, rtol=0)
    assert inverse.mean().item() == pytest.approx(1, abs=0.02)


def test_low_ranks_are_drawn_most_and_a_seed_determines_the_draw() -> None:
    ours = head(1000, 10, torch.arange(1000).flip(0))
    torch.manual_seed(5)
    often = torch.zeros(1000)
    for _ in range(50):
        often[ours._draw()[0]] += 1
    torch.manual_seed(5)
    first = ours._draw()[0]
    torch.manual_seed(5)

    assert torch.equal(ours._draw()[0], first)
    assert not torch.equal(ours._draw()[0], first)
    assert often[-10:].sum() > 3 * often[:500].sum()


def test_weights_are_initialised_as_in_bilm_tf_and_shared_ones_are_unchanged() -> None:
    config = SampledSoftmaxConfig()
    shared = nn.Embedding.from_pretrained(torch.ones(12, 4), freeze=False)

    module = SampledSoftmax(config, 4, 10_000)

    assert module.vectors.std().item() == pytest.approx(0.5, rel=0.02)
    assert module.vectors.abs().max() > 1
    assert not module.bias.any()
    assert SampledSoftmax(config, 4, 12, None, shared).vectors is shared.weight
    assert torch.equal(shared.weight, torch.ones(12, 4))


def test_under_autocast_the_loss_is_float32() -> None:
    ours = head(60, 20)
    hidden, targets = torch.randn(40, DIM, requires_grad=True), torch.arange(40)
    torch.manual_seed(7)
    exact = ours.nll(hidden, targets)
    torch.manual_seed(7)

    with torch.autocast("cpu", torch.bfloat16):
        loss = ours.nll(hidden, targets)

    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, atol=0.05, rtol=0.05)
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(loss.sum(), ours.parameters()))


def test_ranks_that_are_not_a_permutation_raise() -> None:
    with pytest.raises(ValueError, match="ranks must hold each of 0 to 2 once"):
        head(3, 1, torch.tensor([0, 1, 1]))

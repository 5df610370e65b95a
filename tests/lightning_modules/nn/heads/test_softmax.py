"""The full softmax against its definition, with weights of its own and shared ones."""

import torch
from torch import nn
from torch.nn import functional

from lightning_modules.config import SoftmaxConfig
from lightning_modules.nn.heads.softmax import FullSoftmax


def test_nll_is_the_cross_entropy_of_the_logits() -> None:
    torch.manual_seed(1)
    head = FullSoftmax(SoftmaxConfig(), 4, 12)
    nn.init.normal_(head.bias)
    hidden = torch.randn(7, 4, requires_grad=True)
    targets = torch.tensor([0, 11, -1, 3, -100, 5, 5])

    loss = head.nll(hidden, targets)

    whole = functional.cross_entropy(
        functional.linear(hidden, head.vectors, head.bias),
        targets.where(targets >= 0, -100),
        reduction="none",
    )
    torch.testing.assert_close(loss, whole)
    leaves = [hidden, *head.parameters()]
    for a, b in zip(
        torch.autograd.grad(loss.sum(), leaves),
        torch.autograd.grad(whole.sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_initial_weights_are_within_the_bounds() -> None:
    head = FullSoftmax(SoftmaxConfig(), 4, 1000)

    assert head.cutoffs == ()
    assert 0.49 < head.vectors.abs().max() <= 0.5
    assert not head.bias.any()


def test_shared_weights_are_used_unchanged() -> None:
    shared = nn.Embedding.from_pretrained(torch.ones(12, 4), freeze=False)

    head = FullSoftmax(SoftmaxConfig(), 4, 12, shared)

    assert head.vectors is shared.weight
    assert torch.equal(shared.weight, torch.ones(12, 4))
    (gradient,) = torch.autograd.grad(head.nll(torch.randn(1, 4), torch.tensor([3])), shared.weight)
    assert gradient.any()

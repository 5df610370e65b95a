"""The full softmax: the definition, in pieces and whole."""

import pytest
import torch
from torch.nn import functional

from lightning_modules.config import SoftmaxConfig
from lightning_modules.nn import softmax
from lightning_modules.nn.softmax import FullSoftmax


@pytest.mark.parametrize("logits", [1, 36, 4_000_000])
def test_nll_is_the_cross_entropy_of_the_logits_in_pieces_of_any_size(
    logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "LOGITS", logits)
    torch.manual_seed(1)
    head = FullSoftmax(SoftmaxConfig(), 4, 12)
    hidden = torch.randn(7, 4, requires_grad=True)
    targets = torch.tensor([0, 11, -1, 3, -100, 5, 5])

    loss = head.nll(hidden, targets)

    whole = functional.cross_entropy(
        head.linear(hidden), targets.where(targets >= 0, -100), reduction="none"
    )
    torch.testing.assert_close(loss, whole)
    leaves = [hidden, *head.parameters()]
    for a, b in zip(
        torch.autograd.grad(loss.sum(), leaves),
        torch.autograd.grad(whole.sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(head.log_prob(hidden)[1, 11], -loss[1])


def test_it_has_no_tails_whatever_the_cutoffs() -> None:
    assert FullSoftmax(SoftmaxConfig(), 4, 12, (3, 6)).cutoffs == ()

"""The losses of a student: their formulas, their gradients, and passes that need too much memory."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.window import Window
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.distillation.losses import LayerMaps, PredictionLoss
from preprocess.errors import UserError

VOCABULARY = 30
RANKS = torch.from_numpy(np.random.default_rng(5).permutation(VOCABULARY))


def network(
    width: int,
    layers: int = 2,
    cutoffs: tuple[int, ...] = (8, 20),
    head: str = "adaptive_softmax",
    ranks: Tensor | None = RANKS,
) -> BiLMNetwork:
    torch.manual_seed(width)
    recurrent = {"kind": "gru", "hidden": width, "layers": layers}
    config = ModelConfig.model_validate({"recurrent": recurrent, "head": {"kind": head}})
    cut = cutoffs if head == "adaptive_softmax" else ()
    return BiLMNetwork(config, VOCABULARY, cut, ranks).double()


def tensors(draw: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(draw).normal(size=shape))


def window(targets: Tensor, cutoffs: tuple[int, ...] = (8, 20)) -> Window:
    make = WindowMaker(RANKS.numpy(), cutoffs)
    return make(np.zeros(targets.shape, np.int64), targets.numpy())


def test_layers_are_matched_from_the_top_and_layer_0_with_layer_0() -> None:
    assert LayerMaps(network(4, 1), network(6, 3)).matched == (0, 3)
    assert LayerMaps(network(4, 2), network(6, 3)).matched == (0, 2, 3)
    assert LayerMaps(network(4, 3), network(6, 3)).matched == (0, 1, 2, 3)


def test_the_loss_on_layers_is_the_sum_of_relative_squared_errors() -> None:
    maps = LayerMaps(network(4), network(6, 3)).double()
    torch.manual_seed(1)
    for weight in maps.parameters():
        weight.data.normal_()
    ours = [tensors(n, 2, 5, 3, 4).requires_grad_() for n in range(3)]
    theirs = [tensors(10 + n, 2, 5, 3, 6) for n in range(4)]
    theirs[2][0, 1, 2] = 0  # a vector without size has no relative error

    expected = torch.zeros(())
    for number, layer in enumerate((0, 2, 3)):
        errors = []
        for index in np.ndindex(2, 5, 3):
            mapped = ours[number][index] @ maps.weight[number, index[0]]
            mapped = mapped + maps.bias[number, index[0], 0]
            wanted = theirs[layer][index]
            size = (wanted**2).sum()
            errors.append(((mapped - wanted) ** 2).sum() / size if size else size)
        expected = expected + torch.stack(errors).mean()
    found = maps(ours, theirs)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    inputs = [*ours, *maps.parameters()]
    for ours_, formula in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(ours_, formula, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_loss_on_layers_does_not_depend_on_the_scale_of_the_teacher(factor: float) -> None:
    maps = LayerMaps(network(4), network(4)).double()
    ours, theirs = ([tensors(10 * k + n, 2, 5, 3, 4) for n in range(3)] for k in (1, 2))
    scaled = maps([factor * one for one in ours], [factor * one for one in theirs])
    torch.testing.assert_close(scaled, maps(ours, theirs), rtol=1e-5, atol=0)


def test_maps_start_as_the_identity() -> None:
    maps = LayerMaps(network(4), network(4)).double()
    layers = [tensors(n, 2, 5, 3, 4) for n in range(3)]
    assert maps(layers, layers).item() == 0


def divergence(ours: Tensor, theirs: Tensor, t: float) -> Tensor:
    """T^2 KL(p || q) of logits, by its definition."""
    p, q = ((one / t).softmax(-1) for one in (theirs, ours))
    return t**2 * (p * (p.log() - q.log())).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("head", ["softmax", "other clusters"])
def test_the_loss_on_predictions_is_the_divergence_over_all_ids(
    temperature: float, head: str
) -> None:
    kind = "softmax" if head == "softmax" else "adaptive_softmax"
    student = network(4, cutoffs=(8, 20), head=kind)
    teacher = network(6, cutoffs=(5,), head="adaptive_softmax")
    loss = PredictionLoss(student, teacher, temperature)
    assert not loss.by_cluster
    targets = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, (2, 5, 3)))
    targets[0, 1, 1] = targets[1, 3] = -1  # nothing is predicted there
    ours = tensors(1, 2, 5, 3, 4).requires_grad_()
    theirs = tensors(2, 2, 5, 3, 6)

    logits = student.head.log_probabilities(ours.view(-1, 4)).view(2, 5, 3, -1)
    wanted = teacher.head.log_probabilities(theirs.view(-1, 6)).view(2, 5, 3, -1)
    each = divergence(logits.double(), wanted.double(), temperature) * (targets >= 0)
    expected = (each.sum((1, 2)) / (targets >= 0).sum((1, 2))).mean()
    found = loss(ours, theirs, window(targets))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    inputs = [ours, *student.head.parameters()]
    for mine, formula in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(mine, formula, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_with_equal_clusters_it_is_the_divergence_of_each_softmax(temperature: float) -> None:
    student, teacher = network(4), network(6)
    loss = PredictionLoss(student, teacher, temperature)
    assert loss.by_cluster
    targets = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY, (2, 5, 3)))
    targets[0, 1, 1] = -1
    ours, theirs = tensors(1, 2, 5, 3, 4).requires_grad_(), tensors(2, 2, 5, 3, 6)
    heads: Any = (student.head, teacher.head)

    each = divergence(heads[0].head(ours), heads[1].head(theirs), temperature)
    ranks = RANKS[targets.clamp(min=0)]
    for tail, (first, end) in enumerate([(8, 20), (20, VOCABULARY)]):
        inside = (ranks >= first) & (ranks < end)
        each = each + inside * divergence(
            heads[0].tail[tail](ours), heads[1].tail[tail](theirs), temperature
        )
    is_target = targets >= 0
    expected = ((each * is_target).sum((1, 2)) / is_target.sum((1, 2))).mean()
    found = loss(ours, theirs, window(targets))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    inputs = [ours, *student.head.parameters()]
    for mine, formula in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(mine, formula, rtol=1e-3, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_with_equal_clusters_its_mean_over_the_teachers_targets_is_the_divergence(
    seed: int,
) -> None:
    """Each id as the target, weighted by the teacher's probability, gives the divergence over all ids."""
    student, teacher = network(4), network(6)
    ours, theirs = tensors(seed, 1, 1, 1, 4), tensors(seed + 1, 1, 1, 1, 6)
    loss = PredictionLoss(student, teacher, 1.0)
    with torch.no_grad():
        log_p = teacher.head.log_probabilities(theirs.view(1, 6))[0].double()
        log_q = student.head.log_probabilities(ours.view(1, 4))[0].double()
        each = [
            loss(ours, theirs, window(torch.full((1, 1, 1), id_))).item()
            for id_ in range(VOCABULARY)
        ]
    weighted = float((log_p.exp() * torch.tensor(each).double()).sum())
    assert weighted == pytest.approx(float((log_p.exp() * (log_p - log_q)).sum()), rel=1e-3)


def test_no_gradient_reaches_the_teacher() -> None:
    for head in ("adaptive_softmax", "softmax"):
        student, teacher = network(4, head=head), network(6, head=head)
        loss = PredictionLoss(student, teacher, 1.0)
        targets = torch.zeros(2, 5, 3, dtype=torch.int64)
        found = loss(tensors(1, 2, 5, 3, 4), tensors(2, 2, 5, 3, 6), window(targets))
        found.backward()
        assert all(weight.grad is None for weight in teacher.parameters())


def test_clusters_with_other_ranks_are_not_equal() -> None:
    other = network(6, ranks=torch.arange(VOCABULARY))
    assert not PredictionLoss(network(4), other, 1.0).by_cluster


def test_passes_whose_probabilities_need_too_much_memory_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "lightning_modules.training.distillation.losses.MOST_PROBABILITIES", 2 * 3 * 5 * 30
    )
    apart = PredictionLoss(network(4, head="softmax"), network(6), 1.0)
    apart.check(rows=3, unroll=5)
    with pytest.raises(
        UserError,
        match=r"^the loss on predictions would compute 40 x 30 probabilities at once, because .*; set "
        r"model\.head\.kind=adaptive_softmax .*, raise train\.row_passes, or set "
        r"train\.teacher\.predictions=0$",
    ):
        apart.check(rows=4, unroll=5)
    PredictionLoss(network(4), network(6), 1.0).check(rows=4000, unroll=5)

"""The whole network: what its loss is, what its layers are, that a seed fixes it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.adaptive_softmax import route
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.parameter_count import parameter_count

VOCABULARY, TIME, ROWS = 40, 5, 3
CUTOFFS = (8, 20)


def config(**sections: Any) -> ModelConfig:
    recurrent = {"hidden": 12, "projection": 6} | sections.pop("recurrent", {})
    return ModelConfig.model_validate({"recurrent": recurrent} | sections)


def network(seed: int = 1, **sections: Any) -> BiLMNetwork:
    torch.manual_seed(seed)
    return BiLMNetwork(config(**sections), VOCABULARY, CUTOFFS)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids, targets = torch.randint(0, VOCABULARY, (2, 2, TIME, ROWS), generator=generator)
    targets[0, 0, 0] = targets[1, :, 1] = -100
    return ids, targets


HEADS = pytest.mark.parametrize("kind", ["adaptive_softmax", "softmax"])


@HEADS
def test_the_loss_is_the_mean_of_nll_over_each_directions_targets(kind: str) -> None:
    net = network(head={"kind": kind}).eval()
    ids, targets = batch()

    losses, state = net.loss(ids, targets, net.zero_state(ROWS))
    nll, after = net.nll(ids, targets, net.zero_state(ROWS))

    assert losses.dtype == torch.float32
    assert nll.shape == (2, TIME, ROWS)
    for direction in range(2):
        kept = targets[direction] >= 0
        torch.testing.assert_close(losses[direction], nll[direction][kept].mean())
        assert not nll[direction][~kept].any()
    torch.testing.assert_close(state, after)


@HEADS
def test_nll_is_minus_the_heads_log_probability_of_the_top_layer(kind: str) -> None:
    net = network(head={"kind": kind}).eval()
    ids, targets = batch()
    outputs, _ = net.layers(ids, net.zero_state(ROWS))

    nll, _ = net.nll(ids, targets, net.zero_state(ROWS))

    table = net.head.log_prob(outputs[-1].reshape(-1, 6)).view(2, TIME, ROWS, VOCABULARY)
    expected = -table.gather(3, targets.clamp(min=0).unsqueeze(3)).squeeze(3)
    torch.testing.assert_close(nll, expected.where(targets >= 0, 0.0))


@HEADS
def test_routes_change_no_loss_and_no_gradient(kind: str) -> None:
    net = network(head={"kind": kind}).eval()
    ids, targets = batch()
    routes = route(targets.reshape(-1).numpy(), torch.arange(VOCABULARY).numpy(), net.head.cutoffs)

    gradients = []
    for given in (None, routes):
        losses, _ = net.loss(ids, targets, net.zero_state(ROWS), given)
        gradients.append([losses, *torch.autograd.grad(losses.sum(), list(net.parameters()))])

    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_a_batch_without_targets_has_no_loss_and_gradients_of_zero() -> None:
    net = network()
    ids, targets = batch()

    losses, _ = net.loss(ids, torch.full_like(targets, -100), net.zero_state(ROWS))

    assert losses.tolist() == [0, 0]
    assert not any(g.any() for g in torch.autograd.grad(losses.sum(), list(net.parameters())))


def test_layers_are_the_input_vectors_and_every_output() -> None:
    net = network(input={"dim": 9}).eval()
    ids, _ = batch()

    outputs, state = net.layers(ids, net.zero_state(ROWS))

    assert [o.shape for o in outputs] == [(2, TIME, ROWS, 6)] * 3
    assert torch.equal(outputs[0], net.input(ids))
    assert state.hidden.shape == (2, 2, ROWS, 6)
    assert (net.direction_width, net.width) == (6, 12)


def test_rows_do_not_see_each_other() -> None:
    net = network().eval()
    ids, targets = batch()

    together, _ = net.nll(ids, targets, net.zero_state(ROWS))
    alone, _ = net.nll(ids[:, :, 1:2], targets[:, :, 1:2], net.zero_state(1))

    torch.testing.assert_close(together[:, :, 1:2], alone)


def test_the_seed_fixes_weights_and_a_training_step_to_the_bit() -> None:
    def step(seed: int) -> list[Tensor]:
        net = network(seed)
        losses, _ = net.loss(*batch(), net.zero_state(ROWS))
        return [losses, *net.parameters(), *torch.autograd.grad(losses.sum(), [*net.parameters()])]

    assert all(torch.equal(a, b) for a, b in zip(step(1), step(1), strict=True))
    assert not torch.equal(step(1)[0], step(2)[0])


def test_it_learns_a_repeated_text() -> None:
    net = network(recurrent={"dropout": 0.0}, input={"dropout": 0.0})
    optimiser = torch.optim.Adam(net.parameters(), 0.04)
    ids, _ = batch()
    first = None
    for _ in range(30):
        losses, _ = net.loss(ids[:, :-1], ids[:, 1:], net.zero_state(ROWS))
        first = losses.detach() if first is None else first
        optimiser.zero_grad()
        losses.sum().backward()
        optimiser.step()

    assert first is not None
    assert (losses < 0.3 * first).all()


@HEADS
@pytest.mark.parametrize("dim", [None, 6, 9])
@pytest.mark.parametrize("projection", [None, 6])
@pytest.mark.parametrize("cutoffs", [(), (8,), (8, 20, 39)])
def test_parameter_count_is_the_networks(
    kind: str, dim: int | None, projection: int | None, cutoffs: tuple[int, ...]
) -> None:
    model = config(
        head={"kind": kind}, input={"dim": dim}, recurrent={"projection": projection, "layers": 3}
    )

    net = BiLMNetwork(model, VOCABULARY, cutoffs)

    assert parameter_count(model, VOCABULARY, cutoffs) == sum(p.numel() for p in net.parameters())

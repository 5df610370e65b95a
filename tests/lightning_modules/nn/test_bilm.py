"""The whole network: losses, layers, tied vectors, and determinism for a seed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.nn.heads.routes import route
from lightning_modules.nn.window import Window

VOCABULARY, TIME, ROWS = 40, 5, 3
CUTOFFS = (8, 20)


LogProb = Callable[[Any, Tensor], Tensor]


def config(**sections: Any) -> ModelConfig:
    recurrent = {"kind": "lstm", "hidden": 12, "projection": 6} | sections.pop("recurrent", {})
    if recurrent["kind"] in ("gru", "sru"):
        del recurrent["projection"]
    sections["input"] = {"kind": "embedding"} | sections.get("input", {})
    return ModelConfig.model_validate({"recurrent": recurrent} | sections)


def network(seed: int = 1, **sections: Any) -> BiLMNetwork:
    torch.manual_seed(seed)
    return BiLMNetwork(config(**sections), VOCABULARY, CUTOFFS)


def batch(directions: int = 2) -> Window:
    generator = torch.Generator().manual_seed(5)
    ids, targets = torch.randint(0, VOCABULARY, (2, 2, TIME, ROWS), generator=generator)
    targets[0, 0, 0] = targets[1, :, 1] = -100
    return Window(ids[:directions], targets[:directions])


HEADS = pytest.mark.parametrize("kind", ["adaptive_softmax", "softmax", "sampled_softmax"])


@HEADS
@pytest.mark.parametrize("directions", ["both", "forward"])
def test_the_loss_is_the_mean_cross_entropy_of_each_direction(kind: str, directions: str) -> None:
    net = network(head={"kind": kind}, directions=directions).eval()
    window = batch(net.directions)

    losses = net.loss(window, net.zero_state(ROWS))
    nll, after = net.nll(window, net.zero_state(ROWS))

    assert losses.means.dtype == torch.float32
    assert losses.means.shape == (net.directions,)
    assert nll.shape == (net.directions, TIME, ROWS)
    for direction in range(net.directions):
        kept = window.targets[direction] >= 0
        torch.testing.assert_close(losses.means[direction], nll[direction][kept].mean())
        assert not nll[direction][~kept].any()
    torch.testing.assert_close(losses.state, after)


@HEADS
def test_nll_is_the_negative_log_probability_from_the_top_layer(
    kind: str, log_prob: LogProb
) -> None:
    net = network(head={"kind": kind}).eval()
    window = batch()
    outputs, _ = net.layers(window.inputs, net.zero_state(ROWS))

    nll, _ = net.nll(window, net.zero_state(ROWS))

    table = log_prob(net.head, outputs[-1].reshape(-1, 6)).view(2, TIME, ROWS, VOCABULARY)
    expected = -table.gather(3, window.targets.clamp(min=0).unsqueeze(3)).squeeze(3)
    torch.testing.assert_close(nll, expected.where(window.targets >= 0, 0.0))


@HEADS
def test_routes_change_no_loss_and_no_gradient(kind: str) -> None:
    net = network(head={"kind": kind}).eval()
    window = batch()
    ranks = torch.arange(VOCABULARY).numpy()
    routes = route(window.targets.reshape(-1).numpy(), ranks, net.head.cutoffs)

    gradients = []
    for with_or_without in (window, window._replace(routes=routes)):
        means = net.loss(with_or_without, net.zero_state(ROWS)).means
        gradients.append([means, *torch.autograd.grad(means.sum(), list(net.parameters()))])

    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_a_batch_without_targets_has_zero_loss_and_zero_gradients() -> None:
    net = network()
    window = batch()
    empty = window._replace(targets=torch.full_like(window.targets, -100))

    losses = net.loss(empty, net.zero_state(ROWS)).means

    assert losses.tolist() == [0, 0]
    assert not any(g.any() for g in torch.autograd.grad(losses.sum(), list(net.parameters())))


def test_penalties_are_mean_squares_of_the_top_outputs_and_of_their_change() -> None:
    net = network().eval()
    window = batch()
    top = net.layers(window.inputs, net.zero_state(ROWS))[0][-1]

    losses = net.loss(window, net.zero_state(ROWS), penalties=True)

    assert net.loss(window, net.zero_state(ROWS)).activation is None
    torch.testing.assert_close(losses.activation, (top**2).mean())
    torch.testing.assert_close(losses.change, ((top[:, 1:] - top[:, :-1]) ** 2).mean())


def test_layers_are_the_input_vectors_and_every_output() -> None:
    net = network(input={"dim": 9}).eval()
    window = batch()

    outputs, state = net.layers(window.inputs, net.zero_state(ROWS))

    assert [o.shape for o in outputs] == [(2, TIME, ROWS, 6)] * 3
    assert torch.equal(outputs[0], net.input(window.inputs))
    assert state.shape == (2, 2, ROWS, 6 + 12)
    assert (net.direction_width, net.width) == (6, 12)


def test_after_a_reset_earlier_inputs_have_no_effect() -> None:
    net = network().eval()
    ids, targets, *_ = batch()
    resets = torch.zeros(2, TIME, ROWS, dtype=torch.bool)
    resets[:, 2] = True

    whole, _ = net.nll(Window(ids, targets, resets=resets), net.zero_state(ROWS))
    late, _ = net.nll(Window(ids[:, 2:], targets[:, 2:]), net.zero_state(ROWS))

    torch.testing.assert_close(whole[:, 2:], late)


def test_rows_do_not_see_each_other() -> None:
    net = network().eval()
    ids, targets, *_ = batch()

    together, _ = net.nll(Window(ids, targets), net.zero_state(ROWS))
    alone, _ = net.nll(Window(ids[:, :, 1:2], targets[:, :, 1:2]), net.zero_state(1))

    torch.testing.assert_close(together[:, :, 1:2], alone)


def test_a_seed_determines_weights_and_gradients_to_the_bit() -> None:
    def step(seed: int) -> list[Tensor]:
        net = network(seed)
        means = net.loss(batch(), net.zero_state(ROWS)).means
        return [means, *net.parameters(), *torch.autograd.grad(means.sum(), [*net.parameters()])]

    assert all(torch.equal(a, b) for a, b in zip(step(1), step(1), strict=True))
    assert not torch.equal(step(1)[0], step(2)[0])


LEARNERS = [
    {},
    {"recurrent": {"kind": "gru"}},
    {"recurrent": {"kind": "hgrn2", "expansion": 4}},
    {"recurrent": {"kind": "sru"}},
    {"head": {"kind": "sampled_softmax", "samples": 20}},
    {"head": {"kind": "softmax"}, "tied": True},
    {"input": {"kind": "adaptive"}},
    {"input": {"kind": "adaptive"}, "tied": True},
]


@pytest.mark.parametrize("sections", LEARNERS)
def test_it_learns_a_repeated_text(sections: dict[str, Any]) -> None:
    sections = {k: dict(v) if isinstance(v, dict) else v for k, v in sections.items()}
    for part in ("recurrent", "input"):
        sections[part] = {"dropout": 0.0} | sections.get(part, {})
    net = network(**sections)
    optimiser = torch.optim.Adam(net.parameters(), 0.04)
    ids, *_ = batch()
    found = []
    for _ in range(40):
        means = net.loss(Window(ids[:, :-1], ids[:, 1:]), net.zero_state(ROWS)).means
        found.append(means.detach())
        optimiser.zero_grad()
        means.sum().backward()
        optimiser.step()

    # The lowest loss, because at this rate a single step may raise it again.
    assert (torch.stack(found).amin(0) < 0.4 * found[0]).all()


@pytest.mark.parametrize(
    "sections",
    [
        {"head": {"kind": "softmax"}},
        {"head": {"kind": "sampled_softmax"}},
        {"input": {"kind": "adaptive"}, "head": {"kind": "adaptive_softmax"}},
    ],
)
def test_tied_vectors_are_stored_once(sections: dict[str, Any]) -> None:
    tied, apart = (network(**sections, tied=tie) for tie in (True, False))
    count = [sum(w.numel() for w in net.parameters()) for net in (tied, apart)]
    saved = tied.state_dict()

    assert count[0] < count[1]
    pointers = [tensor.data_ptr() for tensor in saved.values()]
    assert len(set(pointers)) == len(pointers), "a tensor is in the state dict twice"
    again = network(2, **sections, tied=True)
    again.load_state_dict(saved)
    window = batch()
    for net in (tied, again):
        net.eval()
    torch.testing.assert_close(
        tied.nll(window, tied.zero_state(ROWS))[0], again.nll(window, again.zero_state(ROWS))[0]
    )


def test_the_output_vocabulary_is_at_most_the_vocabulary() -> None:
    net = network(output_vocabulary=25)

    assert net.output_vocabulary == net.head.vocabulary == 25
    assert network(output_vocabulary=99).output_vocabulary == VOCABULARY

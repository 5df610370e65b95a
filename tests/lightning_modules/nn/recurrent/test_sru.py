"""The SRU against a plain loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.nn.recurrent.sru import SRULayer
from lightning_modules.recurrent_config import SRUConfig

TIME, ROWS, HIDDEN = 7, 3, 5


def sru(directions: int = 2) -> SRULayer:
    torch.manual_seed(1)
    layer = SRULayer(SRUConfig(hidden=HIDDEN), directions).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return layer


def inputs(
    layer: SRULayer, time: int = TIME, rows: int = ROWS, seed: int = 7
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    directions, dtype = len(layer.bias), layer.bias.dtype
    x = torch.randn(directions, time, rows, HIDDEN, generator=generator, dtype=dtype)
    state = torch.randn(directions, rows, HIDDEN, generator=generator, dtype=dtype)
    return x.requires_grad_(), state.requires_grad_()


def objective(*parts: Tensor) -> Tensor:
    """Return a number that depends on every element, with different weights."""
    weighed = [
        (p * torch.linspace(-1, 2, p.numel(), dtype=p.dtype).view_as(p)).sum() for p in parts
    ]
    return torch.stack(weighed).sum()


def by_hand(layer: SRULayer, x: Tensor, c: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute the formulas in the docstring of SRULayer with autograd."""
    steps = []
    for t in range(x.shape[1]):
        c = c if resets is None else c.masked_fill(resets[:, t, :, None], 0)
        u, f, r = (x[:, t] @ layer.weight_input).chunk(3, -1)
        bias_f, bias_r = layer.bias[:, None].chunk(2, -1)
        f, r = (f + bias_f).sigmoid(), (r + bias_r).sigmoid()
        c = f * c + (1 - f) * u
        steps.append(r * c + (1 - r) * math.sqrt(3) * x[:, t])
    return torch.stack(steps, 1), c


@settings(deadline=None, max_examples=40)
@given(
    time=st.integers(1, 24), directions=st.integers(1, 2), share=st.sampled_from([None, 0, 0.2, 1]),
    seed=st.integers(0, 100),
)  # fmt: skip
def test_all_steps_at_once_equal_one_step_after_another(
    time: int, directions: int, share: float | None, seed: int
) -> None:
    layer = sru(directions)
    x, state = inputs(layer, time, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    resets = None
    if share is not None:
        resets = torch.rand(directions, time, ROWS, generator=generator) < share
    leaves = [x, state, *layer.parameters()]

    ours, theirs = layer(x, state, resets), by_hand(layer, x, state, resets)
    streamed, steps = state, []
    for t in range(time):
        step = slice(t, t + 1)
        y, streamed = layer(x[:, step], streamed, None if resets is None else resets[:, step])
        steps.append(y)

    for found in (ours, (torch.cat(steps, 1), streamed)):
        torch.testing.assert_close(found, theirs, atol=1e-11, rtol=0)
        gradients = (torch.autograd.grad(objective(*run), leaves, retain_graph=True)
                     for run in (found, theirs))  # fmt: skip
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def test_gradcheck() -> None:
    layer = sru()
    x, state = inputs(layer, time=5, rows=2)
    resets = torch.zeros(2, 5, 2, dtype=torch.bool)
    resets[0, 1, 1] = True

    def run(x: Tensor, state: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        names = [name for name, _ in layer.named_parameters()]
        arguments = dict(zip(names, weights, strict=True))
        result: tuple[Tensor, ...] = torch.func.functional_call(
            layer, arguments, (x, state, resets)
        )
        return result

    weights = [w.detach().requires_grad_() for w in layer.parameters()]
    assert torch.autograd.gradcheck(run, (x, state, *weights))


def test_without_a_graph_the_outputs_are_the_same_bits() -> None:
    layer = sru().float()
    x, state = (t.detach().float().requires_grad_() for t in inputs(layer))
    traced = layer(x, state, None)
    with torch.no_grad():
        bare = layer(x, state, None)

    for a, b in zip(bare, traced, strict=True):
        assert torch.equal(a, b)


def test_a_retained_graph_gives_the_same_gradient_again() -> None:
    layer = sru()
    x, state = inputs(layer)
    total = objective(*layer(x, state, None))

    first = torch.autograd.grad(total, [x, state], retain_graph=True)
    second = torch.autograd.grad(total, [x, state])

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_gradient_of_a_tap_is_that_of_the_output() -> None:
    layer = sru()
    x, state = inputs(layer)
    tap = torch.zeros_like(x).requires_grad_()
    outputs, after = layer(x, state, None, tap=tap)

    ours, theirs = torch.autograd.grad(objective(outputs, after), [tap, outputs])

    assert torch.equal(ours, theirs)
    assert torch.equal(outputs, layer(x, state, None)[0])


@pytest.mark.parametrize("hidden", [1, 400])
def test_initial_weights_have_the_variance_of_the_paper(hidden: int) -> None:
    torch.manual_seed(1)
    layer = SRULayer(SRUConfig(hidden=hidden), 2)

    assert layer.weight_input.abs().max() <= math.sqrt(3 / hidden)
    if hidden > 1:
        assert layer.weight_input.var().item() == pytest.approx(1 / hidden, rel=0.02)
    assert not layer.bias.any()

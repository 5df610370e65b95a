"""The HGRN2 layer against a plain loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.nn.recurrent.hgrn2.layer import HGRN2Layer
from lightning_modules.recurrent_config import HGRN2Config

TIME, ROWS, HIDDEN, WIDTH, EXPANSION = 7, 3, 6, 5, 3


def hgrn2(directions: int = 2, bound: float = 0.5) -> HGRN2Layer:
    torch.manual_seed(1)
    config = HGRN2Config(hidden=HIDDEN, projection=WIDTH, expansion=EXPANSION)
    layer = HGRN2Layer(config, directions, bound).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return layer


def inputs(
    layer: HGRN2Layer, time: int = TIME, rows: int = ROWS, seed: int = 7
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    directions = len(layer.bias)
    x = torch.randn(directions, time, rows, WIDTH, generator=generator, dtype=torch.float64)
    shape = directions, rows, HIDDEN * EXPANSION
    state = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), state.requires_grad_()


def objective(*parts: Tensor) -> Tensor:
    """Return a number that depends on every element, with different weights."""
    weighed = [
        (p * torch.linspace(-1, 2, p.numel(), dtype=p.dtype).view_as(p)).sum() for p in parts
    ]
    return torch.stack(weighed).sum()


def by_hand(
    layer: HGRN2Layer, x: Tensor, state: Tensor, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the formulas in the docstring of HGRN2Layer with autograd."""
    directions, time, rows, _ = x.shape
    heads = directions, rows, HIDDEN // EXPANSION, EXPANSION
    matrix = state.view(*heads, EXPANSION)
    bound = 0.0 if layer.bound_logit is None else layer.bound_logit.sigmoid()[:, None]
    steps = []
    for t in range(time):
        matrix = (
            matrix if resets is None else matrix.masked_fill(resets[:, t, :, None, None, None], 0)
        )
        q, f, v = (x[:, t] @ layer.weight_input).chunk(3, -1)
        f = bound + (1 - bound) * (f + layer.bias[:, None]).sigmoid()
        key, value, query = (z.view(heads) for z in (1 - f, v, F.silu(q)))
        matrix = matrix * f.view(heads).unsqueeze(-2) + value.unsqueeze(-1) * key.unsqueeze(-2)
        y = (matrix @ query.unsqueeze(-1)).reshape(directions, rows, HIDDEN)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.norm[:, None]
        steps.append(y @ layer.weight_projection)
    return torch.stack(steps, 1), matrix.reshape(state.shape)


@settings(deadline=None, max_examples=40)
@given(
    time=st.integers(1, 24), directions=st.integers(1, 2), share=st.sampled_from([None, 0, 0.2, 1]),
    bound=st.sampled_from([0, 0.5]), seed=st.integers(0, 100),
)  # fmt: skip
def test_all_steps_at_once_equal_one_step_after_another(
    time: int, directions: int, share: float | None, bound: float, seed: int
) -> None:
    layer = hgrn2(directions, bound)
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
        torch.testing.assert_close(found, theirs, atol=1e-10, rtol=0)
        gradients = (torch.autograd.grad(objective(*run), leaves, retain_graph=True)
                     for run in (found, theirs))  # fmt: skip
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("bound", [0, 0.5])
def test_gradcheck(bound: float) -> None:
    layer = hgrn2(bound=bound)
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
    assert torch.autograd.gradcheck(run, (x, state, *weights), fast_mode=True)


def test_without_a_graph_the_outputs_are_the_same_bits() -> None:
    layer = hgrn2().float()
    x, state = (t.detach().float().requires_grad_() for t in inputs(layer))
    traced = layer(x, state, None)
    with torch.no_grad():
        bare = layer(x, state, None)

    for a, b in zip(bare, traced, strict=True):
        assert torch.equal(a, b)


def test_a_retained_graph_gives_the_same_gradient_again() -> None:
    layer = hgrn2()
    x, state = inputs(layer)
    total = objective(*layer(x, state, None))

    first = torch.autograd.grad(total, [x, state], retain_graph=True)
    second = torch.autograd.grad(total, [x, state])

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_gradient_of_a_tap_is_that_of_the_output() -> None:
    layer = hgrn2()
    x, state = inputs(layer)
    tap = torch.zeros_like(x).requires_grad_()
    outputs, after = layer(x, state, None, tap=tap)

    ours, theirs = torch.autograd.grad(objective(outputs, after), [tap, outputs])

    assert torch.equal(ours, theirs)
    assert torch.equal(outputs, layer(x, state, None)[0])


def test_constant_weights_have_no_gradient() -> None:
    layer = hgrn2().requires_grad_(False)
    x, state = inputs(layer)

    gradients = torch.autograd.grad(objective(*layer(x, state, None)), [x, state])

    expected = torch.autograd.grad(objective(*by_hand(layer, x, state, None)), [x, state])
    torch.testing.assert_close(gradients, expected, atol=1e-9, rtol=0)


def test_only_upper_layers_have_a_lower_bound() -> None:
    assert "bound_logit" not in dict(hgrn2(bound=0).named_parameters())
    layer = HGRN2Layer(HGRN2Config(hidden=16), 2, 0.75)

    assert layer.bound_logit is not None
    torch.testing.assert_close(layer.bound_logit.sigmoid(), torch.full((2, 16), 0.75))


def test_initial_weights_are_glorot_uniform() -> None:
    torch.manual_seed(1)
    layer = HGRN2Layer(HGRN2Config(hidden=400, projection=100), 2)

    for weight in (layer.weight_input, layer.weight_projection):
        assert weight.abs().max().item() == pytest.approx(math.sqrt(6 / 500), rel=0.01)
        assert weight.abs().max() <= math.sqrt(6 / 500)
    assert not layer.bias.any()
    assert (layer.norm == 1).all()

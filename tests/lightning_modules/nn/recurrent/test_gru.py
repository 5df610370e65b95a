"""The GRU against nn.GRU, and against a plain loop for what nn.GRU does not have."""

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.nn.recurrent.gru import GRULayer
from lightning_modules.recurrent_config import GRUConfig

TIME, ROWS, HIDDEN = 5, 3, 7


def gru(directions: int = 2, **settings: object) -> GRULayer:
    torch.manual_seed(1)
    layer = GRULayer(GRUConfig.model_validate({"hidden": HIDDEN} | settings), directions)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return layer


def inputs(layer: GRULayer, rows: int = ROWS, time: int = TIME) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
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


def by_hand(
    layer: GRULayer, x: Tensor, h: Tensor, resets: Tensor | None, weight_hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the formulas in the docstring of GRULayer with autograd."""
    steps = []
    for t in range(x.shape[1]):
        h = h if resets is None else h.masked_fill(resets[:, t, :, None], 0)
        r, z, n = (x[:, t] @ layer.weight_input + layer.bias[:, None]).chunk(3, -1)
        to_r, to_z, to_n = (h @ weight_hidden).chunk(3, -1)
        r, z = (r + to_r).sigmoid(), (z + to_z).sigmoid()
        n = (n + r * (to_n + layer.bias_hidden[:, None])).tanh()
        h = (1 - z) * n + z * h
        steps.append(h)
    return torch.stack(steps, 1), h


def assert_same(
    ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], leaves: list[Tensor], tolerance: float
) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)
    for a, b in zip(
        torch.autograd.grad(objective(*ours), leaves),
        torch.autograd.grad(objective(*theirs), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("directions", [1, 2])
def test_it_equals_nn_gru(dtype: torch.dtype, directions: int) -> None:
    layer = gru(directions).to(dtype)
    x, state = inputs(layer)
    outputs, after = layer(x, state, None)
    ours = torch.autograd.grad(objective(outputs, after), [x, state, *layer.parameters()])

    twins, runs = [], []
    for d in range(directions):
        twin = nn.GRU(HIDDEN, HIDDEN, dtype=dtype)
        twins.append(twin)
        with torch.no_grad():
            twin.weight_ih_l0.copy_(layer.weight_input[d].T)
            twin.weight_hh_l0.copy_(layer.weight_hidden[d].T)
            twin.bias_ih_l0.copy_(layer.bias[d])
            twin.bias_hh_l0.zero_()[2 * HIDDEN :] = layer.bias_hidden[d]
        y, h = twin(x[d], state[d : d + 1])
        runs.append((y, h[0]))
    expected = [torch.stack(parts) for parts in zip(*runs, strict=True)]
    names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    theirs = torch.autograd.grad(
        objective(*expected), [x, state, *(getattr(t, n) for n in names for t in twins)]
    )

    for a, b in zip((outputs, after), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    by = [
        torch.stack(theirs[2 + at : 2 + at + directions])
        for at in range(0, directions * len(names), directions)
    ]
    by_weights = [by[0].mT, by[1].mT, by[2], by[3][:, 2 * HIDDEN :]]
    for a, b in zip(ours, [*theirs[:2], *by_weights], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("directions", [1, 2])
def test_a_reset_is_a_zero_state_before_the_input(directions: int) -> None:
    layer = gru(directions).double()
    x, state = inputs(layer)
    resets = torch.rand(directions, TIME, ROWS, generator=torch.manual_seed(2)) < 0.4
    resets[0, 0, 0] = True

    assert_same(
        layer(x, state, resets),
        by_hand(layer, x, state, resets, layer.weight_hidden),
        [x, state, *layer.parameters()],
        1e-9,
    )


def test_gradcheck() -> None:
    layer = gru().double()
    x, state = inputs(layer, rows=2, time=3)
    resets = torch.zeros(2, 3, 2, dtype=torch.bool)
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


def test_weight_drop_zeroes_hidden_weights_with_one_mask_per_call() -> None:
    layer = gru(weight_drop=0.4)
    x, state = inputs(layer)

    torch.manual_seed(5)
    ours = layer(x, state, None)
    torch.manual_seed(5)
    dropped = nn.functional.dropout(layer.weight_hidden, 0.4)
    theirs = by_hand(layer, x, state, None, dropped)
    # A weight's gradient is a sum over all steps and rows, in another order: 2e-6 on some processors.
    assert_same(ours, theirs, [x, state, *layer.parameters()], 5e-6)

    evaluated = layer.eval()(x, state, None)
    assert_same(evaluated, by_hand(layer, x, state, None, layer.weight_hidden), [x], 1e-6)


def test_without_a_graph_the_outputs_are_the_same_bits() -> None:
    layer = gru()
    x, state = inputs(layer)
    traced = layer(x, state, None)
    with torch.no_grad():
        bare = layer(x, state, None)

    for a, b in zip(bare, traced, strict=True):
        assert torch.equal(a, b)


def test_a_retained_graph_gives_the_same_gradient_again() -> None:
    layer = gru()
    x, state = inputs(layer)
    total = objective(*layer(x, state, None))

    first = torch.autograd.grad(total, [x, state], retain_graph=True)
    second = torch.autograd.grad(total, [x, state])

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

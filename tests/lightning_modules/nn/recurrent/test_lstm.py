"""The projected LSTM against nn.LSTM, and against a plain loop for what nn.LSTM does not have."""

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.nn.recurrent import matmul
from lightning_modules.nn.recurrent.lstm import LSTMLayer
from lightning_modules.recurrent_config import LSTMConfig

TIME, ROWS, HIDDEN = 6, 3, 10


@pytest.fixture(params=["batched", "per direction"])
def product_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one of the two kinds of products, for any size of the weights."""
    monkeypatch.setattr(matmul, "PER_DIRECTION", 0 if request.param == "per direction" else 1 << 60)
    return str(request.param)


def lstm(directions: int = 2, scale: float = 1.0, **settings: object) -> LSTMLayer:
    torch.manual_seed(1)
    plain = {"cell_clip": None, "projection_clip": None, "hidden": HIDDEN, "projection": 4}
    layer = LSTMLayer(LSTMConfig.model_validate(plain | settings), directions)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(scale).add_(0.01)
    return layer


def inputs(layer: LSTMLayer, rows: int = ROWS, time: int = TIME) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    directions, width, _ = layer.weight_input.shape
    shapes = [(directions, time, rows, width), (directions, rows, layer.state_width)]
    dtype = layer.bias.dtype
    x, state = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return x.requires_grad_(), state.requires_grad_()


def objective(*parts: Tensor) -> Tensor:
    """Return a number that depends on every element, with different weights."""
    weighed = [
        (p * torch.linspace(-1, 2, p.numel(), dtype=p.dtype).view_as(p)).sum() for p in parts
    ]
    return torch.stack(weighed).sum()


def by_hand(
    layer: LSTMLayer,
    x: Tensor,
    state: Tensor,
    resets: Tensor | None = None,
    weight_hidden: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the formulas in the docstring of LSTMLayer with autograd."""
    config, width, steps = layer.config, x.shape[-1], []
    weight_hidden = layer.weight_hidden if weight_hidden is None else weight_hidden
    h, c = state[..., :width], state[..., width:]
    for t in range(x.shape[1]):
        if resets is not None:
            h, c = (s.masked_fill(resets[:, t, :, None], 0) for s in (h, c))
        gates = x[:, t] @ layer.weight_input + h @ weight_hidden + layer.bias[:, None]
        i, f, g, o = gates.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        c = c if config.cell_clip is None else c.clamp(-config.cell_clip, config.cell_clip)
        h = o.sigmoid() * c.tanh()
        h = h if layer.weight_projection is None else h @ layer.weight_projection
        clip = config.projection_clip
        h = h if clip is None else h.clamp(-clip, clip)
        steps.append(h)
    return torch.stack(steps, 1), torch.cat([h, c], -1)


def assert_same(
    ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...], leaves: list[Tensor], tolerance: float
) -> None:
    """Assert that values and gradients of the leaves are the same."""
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)
    for a, b in zip(
        torch.autograd.grad(objective(*ours), leaves),
        torch.autograd.grad(objective(*theirs), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def assert_by_hand(layer: LSTMLayer, tolerance: float, resets: Tensor | None = None) -> Tensor:
    """Assert that the layer equals `by_hand`; return the state after it."""
    x, state = inputs(layer)
    ours = layer(x, state, resets)
    leaves = [x, state, *layer.parameters()]
    assert_same(ours, by_hand(layer, x, state, resets), leaves, tolerance)
    after: Tensor = ours[1].detach()
    return after


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("projection", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.usefixtures("product_kind")
def test_without_clipping_it_equals_nn_lstm(
    projection: int | None, dtype: torch.dtype, directions: int
) -> None:
    layer = lstm(directions, projection=projection).to(dtype)
    x, state = inputs(layer)
    outputs, after = layer(x, state, None)
    ours = torch.autograd.grad(objective(outputs, after), [x, state, *layer.parameters()])

    runs, twins = [], []
    for d in range(directions):
        twin = nn.LSTM(x.shape[-1], HIDDEN, proj_size=projection or 0, dtype=dtype)
        twins.append(twin)
        with torch.no_grad():
            twin.weight_ih_l0.copy_(layer.weight_input[d].T)
            twin.weight_hh_l0.copy_(layer.weight_hidden[d].T)
            twin.bias_ih_l0.copy_(layer.bias[d])
            twin.bias_hh_l0.zero_()
            if layer.weight_projection is not None:
                twin.weight_hr_l0.copy_(layer.weight_projection[d].T)
        h, c = state[d : d + 1, :, : x.shape[-1]], state[d : d + 1, :, x.shape[-1] :]
        y, (h, c) = twin(x[d], (h.contiguous(), c.contiguous()))
        runs.append((y, torch.cat([h[0], c[0]], -1)))
    expected = [torch.stack(parts) for parts in zip(*runs, strict=True)]
    names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", *["weight_hr_l0"][: bool(projection)]]
    theirs = torch.autograd.grad(
        objective(*expected), [x, state, *(getattr(t, n) for n in names for t in twins)]
    )

    for a, b in zip((outputs, after), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    weights = [
        torch.stack(theirs[2 + at : 2 + at + directions])
        for at in range(0, directions * len(names), directions)
    ]
    order = [n for n, _ in layer.named_parameters()]
    assert order[:3] == ["weight_input", "weight_hidden", "bias"]
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    for a, b in zip(ours[2:], weights, strict=True):
        torch.testing.assert_close(a, b if b.dim() == 2 else b.mT, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("projection", [None, 4])
@pytest.mark.parametrize(("cell_clip", "projection_clip"), [(0.5, None), (None, 0.2), (0.6, 0.2)])
def test_with_clipping_it_equals_the_plain_loop(
    projection: int | None, cell_clip: float | None, projection_clip: float | None
) -> None:
    clips = {"cell_clip": cell_clip, "projection_clip": projection_clip}
    layer = lstm(scale=2.0, projection=projection, **clips).double()

    after = assert_by_hand(layer, 1e-9)

    hidden, cell = after.split([after.shape[-1] - HIDDEN, HIDDEN], -1)
    if cell_clip is not None:
        assert (cell.abs() == cell_clip).any()
    if projection_clip is not None:
        assert (hidden.abs() == projection_clip).any()


@pytest.mark.parametrize("projection", [None, 4])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.usefixtures("product_kind")
def test_a_reset_is_a_zero_state_before_the_input(projection: int | None, directions: int) -> None:
    layer = lstm(directions, projection=projection, cell_clip=0.5, projection_clip=0.2)
    resets = torch.rand(directions, TIME, ROWS, generator=torch.manual_seed(2)) < 0.4
    resets[0, 0, 0] = True

    assert_by_hand(layer, 1e-6, resets)
    assert_by_hand(layer.double(), 1e-9, resets)


def test_after_a_reset_a_row_does_not_depend_on_earlier_inputs() -> None:
    layer = lstm()
    x, state = inputs(layer)
    resets = torch.zeros(2, TIME, ROWS, dtype=torch.bool)
    resets[:, 2] = True

    outputs, after = layer(x, state, resets)
    fresh, fresh_after = layer(x[:, 2:], torch.zeros_like(state), None)

    torch.testing.assert_close(outputs[:, 2:], fresh)
    torch.testing.assert_close(after, fresh_after)
    by_x, by_state = torch.autograd.grad(outputs[:, 2:].sum(), [x, state])
    assert not by_x[:, :2].any()
    assert not by_state.any()


@pytest.mark.usefixtures("product_kind")
def test_gradcheck() -> None:
    layer = lstm(scale=2.0, cell_clip=0.5, projection_clip=0.3, hidden=4, projection=3).double()
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
    layer = lstm(weight_drop=0.4)
    x, state = inputs(layer)

    torch.manual_seed(5)
    ours = layer(x, state, None)
    torch.manual_seed(5)
    dropped = nn.functional.dropout(layer.weight_hidden, 0.4)
    assert (dropped == 0).float().mean() == pytest.approx(0.4, abs=0.1)
    theirs = by_hand(layer, x, state, weight_hidden=dropped)
    assert_same(ours, theirs, [x, state, *layer.parameters()], 1e-6)

    other = layer(x, state, None)
    assert not torch.allclose(other[0], ours[0])
    evaluated = layer.eval()(x, state, None)
    assert_same(evaluated, by_hand(layer, x, state), [x], 1e-6)


@pytest.mark.usefixtures("product_kind")
def test_without_a_graph_the_outputs_are_the_same() -> None:
    layer = lstm(cell_clip=0.5, projection_clip=0.3)
    x, state = inputs(layer)
    traced = layer(x, state, None)
    with torch.no_grad():
        bare = layer(x, state, None)

    assert not bare[0].requires_grad
    for a, b in zip(bare, traced, strict=True):
        torch.testing.assert_close(a, b)


def test_a_retained_graph_gives_the_same_gradient_again() -> None:
    layer = lstm()
    x, state = inputs(layer)
    total = objective(*layer(x, state, None))

    first = torch.autograd.grad(total, [x, state], retain_graph=True)
    second = torch.autograd.grad(total, [x, state])

    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_backward_does_not_modify_the_gradient_it_gets() -> None:
    layer = lstm(1)
    x, state = inputs(layer, rows=1)
    outputs, after = layer(x, state, None)
    given_gradients = torch.ones_like(outputs), torch.ones_like(after)

    torch.autograd.grad([outputs, after], [x], given_gradients)

    assert all((h == 1).all() for h in given_gradients)


def test_the_directions_are_independent() -> None:
    layer = lstm()
    x, state = inputs(layer)

    (gradient,) = torch.autograd.grad(layer(x, state, None)[0][0].sum(), x)

    assert gradient[0].abs().sum() > 0
    assert not gradient[1].any()


@pytest.mark.usefixtures("product_kind")
def test_both_kinds_of_products_give_the_same_results() -> None:
    """Sizes that fill several blocks of a matmul."""
    layer = lstm(hidden=70, projection=33)
    assert_by_hand(layer, 2e-5)


def test_nan_is_not_hidden_by_clipping() -> None:
    layer = lstm(cell_clip=0.5, projection_clip=0.3)
    x, state = inputs(layer)
    with torch.no_grad():
        x[0, 0, 0, 0] = torch.nan
        outputs, after = layer(x, state, None)

    assert outputs[0, :, 0].isnan().all()
    assert after[0, 0].isnan().any()
    assert not outputs[:, :, 1:].isnan().any()


def test_only_the_initial_bias_of_the_forget_gate_is_one() -> None:
    bias = LSTMLayer(LSTMConfig(hidden=10, projection=4), 2).bias

    assert torch.equal(bias[0], torch.tensor([0.0] * 10 + [1.0] * 10 + [0.0] * 20))


def test_forget_bias_is_added_to_the_learned_bias() -> None:
    layer, other = lstm(forget_bias=1.5), lstm()
    x, state = inputs(layer)
    other.load_state_dict(layer.state_dict())
    with torch.no_grad():
        other.bias[:, HIDDEN : 2 * HIDDEN] += 1.5

    for a, b in zip(layer(x, state, None), other(x, state, None), strict=True):
        torch.testing.assert_close(a, b)
    objective(*layer(x, state, None)).backward()
    objective(*other(x, state, None)).backward()
    torch.testing.assert_close(layer.bias.grad, other.bias.grad)


@pytest.mark.parametrize("forget_bias", [0.0, 1.0, 1.5])
def test_the_initial_bias_of_the_forget_gate_with_forget_bias_is_one(forget_bias: float) -> None:
    layer = LSTMLayer(LSTMConfig(hidden=HIDDEN, projection=4, forget_bias=forget_bias), 2)

    used = layer.bias[:, HIDDEN : 2 * HIDDEN] + forget_bias
    assert torch.equal(used, torch.ones_like(used))

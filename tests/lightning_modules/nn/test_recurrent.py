"""The projected LSTM against nn.LSTM, and against a loop written out where nn.LSTM cannot follow."""

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.config import LSTMConfig
from lightning_modules.nn.recurrent import BiLSTM, LSTMLayer, State

TIME, ROWS = 6, 3
PLAIN = {"residual": False, "cell_clip": None, "projection_clip": None, "dropout": 0.0}


def stack(seed: int = 1, scale: float = 1.0, **settings: object) -> BiLSTM:
    torch.manual_seed(seed)
    config = LSTMConfig.model_validate({"hidden": 10, "projection": 4, "dropout": 0.0} | settings)
    lstm = BiLSTM(config, config.direction_width)
    with torch.no_grad():
        for weight in lstm.parameters():
            weight.mul_(scale)
    return lstm


def inputs(lstm: BiLSTM, time: int = TIME) -> tuple[Tensor, State]:
    generator = torch.Generator().manual_seed(7)
    zero = lstm.zero_state(ROWS)
    dtype = next(lstm.parameters()).dtype
    shapes = [(2, time, ROWS, lstm.width), *(z.shape for z in zero)]
    x, hidden, cell = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return x.requires_grad_(), State(hidden.requires_grad_(), cell.requires_grad_())


def objective(top: Tensor, state: State) -> Tensor:
    """A number that depends on every output and on the state, unevenly."""
    parts = [top, state.hidden, state.cell]
    return torch.stack(
        [(p * torch.linspace(-1, 2, p.numel()).view_as(p)).sum() for p in parts]
    ).sum()


def by_hand(lstm: BiLSTM, x: Tensor, state: State) -> tuple[list[Tensor], State]:
    """What the docstring of BiLSTM says, one operation a line, autograd's own gradient."""
    config = lstm.config
    outputs, hiddens, cells = [], [], []
    for index, layer in enumerate(lstm.layers):
        assert isinstance(layer, LSTMLayer)
        h, c, steps = state.hidden[index], state.cell[index], []
        for t in range(x.shape[1]):
            gates = x[:, t] @ layer.weight_input + h @ layer.weight_hidden + layer.bias[:, None]
            i, f, g, o = gates.chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            c = c if config.cell_clip is None else c.clamp(-config.cell_clip, config.cell_clip)
            h = o.sigmoid() * c.tanh()
            h = h if layer.weight_projection is None else h @ layer.weight_projection
            clip = config.projection_clip
            h = h if clip is None else h.clamp(-clip, clip)
            steps.append(h)
        y = torch.stack(steps, 1)
        x = y + x if index and config.residual else y
        outputs.append(x)
        hiddens.append(h)
        cells.append(c)
    return outputs, State(torch.stack(hiddens), torch.stack(cells))


def assert_same_gradients(lstm: BiLSTM, ours: Tensor, theirs: Tensor, leaves: list[Tensor]) -> None:
    leaves = [*leaves, *lstm.parameters()]
    for a, b in zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs, leaves), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("projection", [None, 4])
@pytest.mark.parametrize("direction", [0, 1])
def test_without_clips_and_residual_it_is_nn_lstm(projection: int | None, direction: int) -> None:
    lstm = stack(projection=projection, **PLAIN)
    theirs = nn.LSTM(lstm.width, 10, num_layers=2, proj_size=projection or 0)
    for index, layer in enumerate(lstm.layers):
        ours = {
            f"weight_ih_l{index}": layer.weight_input,
            f"weight_hh_l{index}": layer.weight_hidden,
            f"weight_hr_l{index}": layer.weight_projection,
        }
        with torch.no_grad():
            for name, weight in ours.items():
                if weight is not None:
                    getattr(theirs, name).copy_(weight[direction].T)
            getattr(theirs, f"bias_ih_l{index}").copy_(layer.bias[direction])
            getattr(theirs, f"bias_hh_l{index}").zero_()
    x, state = inputs(lstm)

    outputs, after = lstm(x, state)
    y, (h, c) = theirs(
        x[direction],
        (state.hidden[:, direction].contiguous(), state.cell[:, direction].contiguous()),
    )

    torch.testing.assert_close(outputs[-1][direction], y, atol=1e-6, rtol=0)
    torch.testing.assert_close(after.hidden[:, direction], h, atol=1e-6, rtol=0)
    torch.testing.assert_close(after.cell[:, direction], c, atol=1e-6, rtol=0)
    ours_by = torch.autograd.grad(
        objective(outputs[-1][direction], State(*(s[:, direction] for s in after))),
        [x, *state, *lstm.parameters()],
    )
    by_name = dict(theirs.named_parameters())
    theirs_by = torch.autograd.grad(objective(y, State(h, c)), [x, *state, *by_name.values()])
    for a, b in zip(ours_by[:3], theirs_by[:3], strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    weights = dict(zip(by_name, theirs_by[3:], strict=True))
    ours_named = dict(zip((n for n, _ in lstm.named_parameters()), ours_by[3:], strict=True))
    pairs = {"input": "ih", "hidden": "hh", "projection": "hr"}
    for index in range(2):
        for ours_name, name in pairs.items():
            if f"weight_{name}_l{index}" in weights:
                a = ours_named[f"layers.{index}.weight_{ours_name}"][direction].T
                torch.testing.assert_close(
                    a, weights[f"weight_{name}_l{index}"], atol=1e-6, rtol=1e-5
                )
        a = ours_named[f"layers.{index}.bias"][direction]
        torch.testing.assert_close(a, weights[f"bias_ih_l{index}"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("projection", [None, 4])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("cell_clip", "projection_clip"), [(None, None), (0.5, None), (0.6, 0.2)])
def test_clips_and_residual_are_the_loop_written_out(
    projection: int | None,
    residual: bool,
    cell_clip: float | None,
    projection_clip: float | None,
) -> None:
    lstm = stack(
        scale=2.0, layers=3, projection=projection, residual=residual,
        cell_clip=cell_clip, projection_clip=projection_clip,
    ).double()  # fmt: skip
    x, state = inputs(lstm)

    outputs, after = lstm(x, state)
    expected, state_after = by_hand(lstm, x, state)

    for a, b in zip((*outputs, *after), (*expected, *state_after), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    if cell_clip is not None:
        assert (after.cell.abs() == cell_clip).any()
    if projection_clip is not None:
        assert (after.hidden.abs() == projection_clip).any()
    assert_same_gradients(
        lstm,
        sum((o * o).sum() for o in outputs) + objective(outputs[-1], after),
        sum((o * o).sum() for o in expected) + objective(expected[-1], state_after),
        [x, *state],
    )


def test_two_halves_with_the_state_carried_are_one_run() -> None:
    lstm = stack().double()
    x, state = inputs(lstm)

    whole, end = lstm(x, state)
    first, between = lstm(x[:, :2], state)
    second, end_of_halves = lstm(x[:, 2:], between)

    torch.testing.assert_close(torch.cat([first[-1], second[-1]], 1), whole[-1])
    torch.testing.assert_close(end_of_halves, end)
    assert_same_gradients(
        lstm,
        objective(torch.cat([first[-1], second[-1]], 1), end_of_halves),
        objective(whole[-1], end),
        [x, *state],
    )


def test_the_new_state_is_part_of_the_graph() -> None:
    lstm = stack()
    x, state = inputs(lstm)
    _, after = lstm(x, state)

    for carried in after:
        (gradient,) = torch.autograd.grad(carried.sum(), x, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_without_a_graph_the_outputs_are_the_same_bits() -> None:
    lstm = stack()
    x, state = inputs(lstm)
    with torch.no_grad():
        outputs, after = lstm(x, state)
    traced, traced_after = lstm(x, state)

    assert not outputs[-1].requires_grad
    for a, b in zip((*outputs, *after), (*traced, *traced_after), strict=True):
        assert torch.equal(a, b)


def test_the_directions_do_not_see_each_other() -> None:
    lstm = stack()
    x, state = inputs(lstm)
    outputs, _ = lstm(x, state)

    (gradient,) = torch.autograd.grad(outputs[-1][0].sum(), x)

    assert gradient[0].abs().sum() > 0
    assert not gradient[1].any()


def test_dropout_falls_above_the_first_layer_and_at_the_top_in_training_only() -> None:
    lstm = stack(dropout=0.5)
    x, state = inputs(lstm)

    torch.manual_seed(3)
    trained, _ = lstm(x, state)
    evaluated, _ = lstm.eval()(x, state)

    assert torch.equal(trained[0], evaluated[0])
    assert (trained[1] == 0).float().mean() == pytest.approx(0.5, abs=0.15)
    kept = trained[1] != 0
    assert not torch.allclose(trained[1][kept], 2 * evaluated[1][kept])  # its input was dropped too
    assert not (evaluated[1] == 0).any()


def test_the_seed_fixes_weights_dropout_outputs_and_gradients_to_the_bit() -> None:
    def run() -> list[Tensor]:
        lstm = stack(dropout=0.3)
        x, state = inputs(lstm)
        outputs, after = lstm(x, state)
        leaves = list(lstm.parameters())
        return [*leaves, *outputs, *torch.autograd.grad(objective(outputs[-1], after), leaves)]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_only_the_forget_gates_bias_starts_at_one() -> None:
    bias = stack().layers[0].bias

    assert torch.equal(bias[0], torch.tensor([0.0] * 10 + [1.0] * 10 + [0.0] * 20))


def test_the_zero_state_has_the_shapes_of_the_stack() -> None:
    state = stack().zero_state(ROWS)

    assert state.hidden.shape == (2, 2, ROWS, 4)
    assert state.cell.shape == (2, 2, ROWS, 10)
    assert not state.hidden.any()
    assert not state.cell.any()

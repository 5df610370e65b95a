"""The steps for many rows without a gradient, against the steps with one."""

import pytest
import torch
from torch import Tensor

from lightning_modules.nn.recurrent import lstm_cell, lstm_inference
from lightning_modules.nn.recurrent.lstm import LSTMLayer
from lightning_modules.recurrent_config import LSTMConfig

TIME, HIDDEN, PROJECTION = lstm_inference.LEAST_STEPS, 20, 8
ROWS = lstm_inference.LEAST_ROWS
CLIPPED = {"cell_clip": 0.4, "projection_clip": 0.1}
FREE = {"cell_clip": None, "projection_clip": None}


def layer_of(directions: int = 2, **settings: object) -> LSTMLayer:
    torch.manual_seed(1)
    plain = {"hidden": HIDDEN, "projection": PROJECTION, "forget_bias": 1.0} | FREE
    return LSTMLayer(LSTMConfig.model_validate(plain | settings), directions)


def inputs(layer: LSTMLayer, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    directions, width, _ = layer.weight_input.shape
    dtype = layer.bias.dtype
    x = torch.randn(directions, TIME, rows, width, generator=generator, dtype=dtype)
    state = torch.randn(directions, rows, layer.state_width, generator=generator, dtype=dtype)
    return x, state, torch.rand(directions, TIME, rows, generator=generator) < 0.3


def assert_same(layer: LSTMLayer, rows: int, resets: bool, tolerance: float) -> None:
    x, state, where = inputs(layer, rows)
    arguments = x, state, where if resets else None
    before = [x.clone(), state.clone()]
    expected = layer(*arguments)
    with torch.no_grad():
        found = layer(*arguments)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)
        assert one.is_contiguous()
    for given, kept in zip((x, state), before, strict=True):
        assert torch.equal(given, kept)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("clips", [CLIPPED, FREE])
@pytest.mark.parametrize("directions", [1, 2])
def test_outputs_and_state_are_those_of_the_steps_with_a_gradient(
    directions: int, clips: dict[str, float | None], resets: bool
) -> None:
    layer = layer_of(directions, **clips)
    assert_same(layer, ROWS, resets, 1e-5)
    assert_same(layer.double(), ROWS + 1, resets, 1e-12)


@pytest.mark.parametrize("resets", [False, True])
def test_so_are_those_of_a_compiled_cell(resets: bool) -> None:
    layer = layer_of(**CLIPPED)
    layer.ops = lstm_cell.build()
    assert_same(layer, ROWS, resets, 1e-5)


@pytest.mark.parametrize(
    ("rows", "steps", "projection", "joined"),
    [
        (ROWS, TIME, PROJECTION, 1),
        (ROWS - 1, TIME, PROJECTION, 0),
        (ROWS, TIME - 1, PROJECTION, 0),
        (ROWS, TIME, None, 0),
    ],
)
def test_they_are_used_for_many_rows_and_steps_with_a_projection(
    rows: int, steps: int, projection: int | None, joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    run = lstm_inference.run_joined
    monkeypatch.setattr(lstm_inference, "run_joined", lambda *a: calls.append(1) or run(*a))
    layer = layer_of(projection=projection)
    x, state, _ = inputs(layer, rows)
    x = x[:, :steps]
    with torch.no_grad():
        layer(x, state, None)
        layer.bfloat16()(x, state, None)  # in 16 bits, the sums of both products are not kept
    layer.float()(x, state, None)
    assert len(calls) == joined


def test_a_state_of_another_dtype_is_converted() -> None:
    layer = layer_of()
    x, state, _ = inputs(layer, ROWS)
    with torch.no_grad():
        outputs, after = layer(x, state.double(), None)
        expected, _ = layer(x, state, None)
    assert torch.equal(outputs, expected)
    assert after.dtype == torch.float32


def test_nan_of_a_row_stays_in_the_row() -> None:
    layer = layer_of(**CLIPPED)
    x, state, _ = inputs(layer, ROWS)
    x[:, 2, 5] = torch.nan
    with torch.no_grad():
        outputs, after = layer(x, state, None)
    assert outputs[:, 2:, 5].isnan().all()
    assert after[:, 5].isnan().all()
    assert not outputs[:, :2].isnan().any()
    assert not outputs[:, :, :5].isnan().any()

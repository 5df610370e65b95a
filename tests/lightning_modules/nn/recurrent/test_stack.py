"""The recurrent stack with layers of each kind: residual connections, dropout, state, bf16."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.config import ModelConfig
from lightning_modules.nn.recurrent.stack import Recurrent, Run

TIME, ROWS = 6, 3
OWN: dict[str, dict[str, object]] = {
    "lstm": {"projection": 4},
    "gru": {},
    "hgrn2": {"projection": 4, "expansion": 2},
    "sru": {},
}
"""Settings of each kind."""
KINDS = [*OWN]
WITH_RESIDUAL = [kind for kind in KINDS if kind != "sru"]
STATE_WIDTHS = {"lstm": 14, "gru": 10, "hgrn2": 20, "sru": 10}
FORGET_GATES = {
    "lstm": slice(16, 32),
    "gru": slice(16, 32),
    "hgrn2": slice(0, 16),
    "sru": slice(0, 16),
}
"""Place of the forget gates of 16 units in a layer's bias."""


def stack(kind: str = "lstm", directions: int = 2, seed: int = 1, **settings: object) -> Recurrent:
    torch.manual_seed(seed)
    plain: dict[str, object] = {"kind": kind, "hidden": 10, "dropout": 0.0}
    config = ModelConfig.model_validate({"recurrent": plain | OWN[kind] | settings})
    return Recurrent(config.recurrent, directions)


def inputs(module: Recurrent, time: int = TIME, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    state = module.zero_state(rows)
    x = torch.randn(module.directions, time, rows, module.width, generator=generator)
    return x.requires_grad_(), torch.randn(state.shape, generator=generator).requires_grad_()


def objective(run: Run) -> Tensor:
    """Return a number that depends on every element of a run, with different weights."""
    parts = [*run.outputs, run.raw, run.state]
    return torch.stack(
        [(p * torch.linspace(-1, 2, p.numel()).view_as(p)).sum() for p in parts]
    ).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("directions", [1, 2])
def test_the_zero_state_has_the_shape_of_the_state_after(kind: str, directions: int) -> None:
    module = stack(kind, directions)
    state = module.zero_state(ROWS)
    run = module(inputs(module)[0], state)

    assert state.shape == (2, directions, ROWS, STATE_WIDTHS[kind]) == run.state.shape
    assert not state.any()
    assert [o.shape for o in run.outputs] == 2 * [(directions, TIME, ROWS, module.width)]
    assert {t.dtype for t in (*run.outputs, run.raw, run.state)} == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "residual"),
    [*((kind, False) for kind in KINDS), *((kind, True) for kind in WITH_RESIDUAL)],
)
def test_a_stack_applies_its_layers_in_order(kind: str, residual: bool) -> None:
    module = stack(kind, layers=3, **({"residual": residual} if kind in WITH_RESIDUAL else {}))
    x, state = inputs(module)

    run = module(x, state)

    carried = x
    for index, layer in enumerate(module.layers):
        y, after = layer(carried, state[index], None)
        torch.testing.assert_close(run.state[index], after)  # before the residual
        if kind in ("lstm", "gru"):
            assert torch.equal(after[..., : module.width], y[:, -1])
        carried = y + carried if residual and index else y
        torch.testing.assert_close(run.outputs[index], carried)
    assert torch.equal(run.raw, run.outputs[-1])


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=12)
@given(
    cut=st.integers(1, TIME - 1), directions=st.integers(1, 2), seed=st.integers(0, 9),
    reset=st.booleans(),
)  # fmt: skip
def test_two_windows_with_the_state_carried_over_equal_one_window(
    kind: str, cut: int, directions: int, seed: int, reset: bool
) -> None:
    module = stack(kind, directions).double()
    x, state = (t.detach().double().requires_grad_() for t in inputs(module))
    generator = torch.Generator().manual_seed(seed)
    resets = torch.rand(directions, TIME, ROWS, generator=generator) < 0.3
    first_resets, second_resets = (resets[:, :cut], resets[:, cut:]) if reset else (None, None)

    whole = module(x, state, resets if reset else None)
    first = module(x[:, :cut], state, first_resets)
    second = module(x[:, cut:], first.state, second_resets)
    parts = Run(
        tuple(torch.cat(o, 1) for o in zip(first.outputs, second.outputs, strict=True)),
        torch.cat([first.raw, second.raw], 1),
        second.state,
    )

    torch.testing.assert_close(parts, whole)
    leaves = [x, state, *module.parameters()]
    for a, b in zip(
        torch.autograd.grad(objective(parts), leaves),
        torch.autograd.grad(objective(whole), leaves),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    module = stack(kind)
    x, state = inputs(module)

    whole = module(x, state)
    alone = module(x[:, :, 1:2], state[:, :, 1:2])

    torch.testing.assert_close(alone.raw, whole.raw[:, :, 1:2])
    torch.testing.assert_close(alone.state, whole.state[:, :, 1:2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_returned_state_is_part_of_the_graph(kind: str) -> None:
    module = stack(kind)
    x, state = inputs(module)

    (gradient,) = torch.autograd.grad(module(x, state).state[0].sum(), x)

    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_applied_between_layers_and_at_the_top_in_training_only(kind: str) -> None:
    module = stack(kind, dropout=0.5)
    x, state = inputs(module)

    trained = module(x, state)
    evaluated = module.eval()(x, state)

    assert torch.equal(
        trained.outputs[0], evaluated.outputs[0]
    )  # the returned output is before dropout
    dropped = trained.outputs[1] == 0
    assert dropped.float().mean() == pytest.approx(0.5, abs=0.15)
    torch.testing.assert_close(trained.outputs[1][~dropped], 2 * trained.raw[~dropped])
    assert not torch.allclose(trained.raw, evaluated.raw)  # its input has dropout
    assert torch.equal(evaluated.raw, evaluated.outputs[1])
    assert not (evaluated.raw == 0).any()


def test_the_residual_adds_the_input_after_dropout() -> None:
    module = stack(dropout=0.5, output_dropout=0.0)
    x, state = inputs(module)
    run = module(x, state)

    with torch.no_grad():
        for weight in module.layers[1].parameters():
            weight.zero_()
    torch.manual_seed(3)
    run = module(x, torch.zeros_like(state))
    torch.manual_seed(3)
    dropped = torch.nn.functional.dropout(run.outputs[0], 0.5)

    assert torch.equal(run.raw, dropped)  # the second layer adds nothing


def test_output_dropout_replaces_dropout_at_the_top() -> None:
    module = stack(dropout=0.0, output_dropout=0.5)
    run = module(*inputs(module))

    assert torch.equal(run.raw, module.eval()(*inputs(module)).raw)
    assert (run.outputs[-1] == 0).float().mean() == pytest.approx(0.5, abs=0.15)
    unchanged = stack(dropout=0.5, output_dropout=0.0)
    run = unchanged(*inputs(unchanged))
    assert torch.equal(run.raw, run.outputs[-1])


def test_a_variational_mask_is_the_same_for_all_tokens_of_a_row() -> None:
    module = stack(variational=True, output_dropout=0.5)
    run = module(*inputs(module))

    dropped = run.outputs[-1] == 0  # (directions, time, rows, width)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    masks = dropped[:, 0].flatten(0, 1)
    assert len({tuple(mask.tolist()) for mask in masks}) > 1
    torch.testing.assert_close(run.outputs[-1][~dropped], 2 * run.raw[~dropped])
    assert not (module.eval()(*inputs(module)).outputs[-1] == 0).any()


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_determines_everything_to_the_bit(kind: str, autocast: bool) -> None:
    def run() -> list[Tensor]:
        weight_drop = {"weight_drop": 0.2} if kind in ("lstm", "gru") else {}
        module = stack(kind, dropout=0.3, variational=True, **weight_drop)
        x, state = inputs(module)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            result = module(x, state)
        leaves = list(module.parameters())
        gradients = torch.autograd.grad(objective(result), leaves)
        return [*leaves, *result.outputs, result.state, *gradients]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.parametrize("kind", [*KINDS, "lstm without projection"])
@pytest.mark.parametrize("reset", [False, True])
def test_under_bf16_autocast_results_are_close_and_float32(kind: str, reset: bool) -> None:
    clips = {"cell_clip": 0.9, "projection_clip": 0.4}
    options = {"lstm": clips, "lstm without projection": clips | {"projection": None}}
    module = stack(kind.split()[0], hidden=16, **options.get(kind, {}))
    x, state = inputs(module)
    resets = (torch.rand(2, TIME, ROWS) < 0.3) if reset else None
    leaves = [x, state, *module.parameters()]

    with torch.autocast("cpu", torch.bfloat16):
        near = module(x, state, resets)
        with torch.no_grad():
            bare = module(x.bfloat16(), state, resets)
    gradients = torch.autograd.grad(objective(near), leaves)
    module.double()
    inputs64 = [leaf.detach().double().requires_grad_() for leaf in (x, state)]
    exact = module(*inputs64, resets)

    for a, b in zip((*near.outputs, near.state), (*exact.outputs, exact.state), strict=True):
        assert a.dtype == torch.float32
        assert 1e-4 < relative_error(a, b) < 0.01  # the matmuls were bf16
    torch.testing.assert_close(bare, Run(*near))
    expected = torch.autograd.grad(objective(exact), [*inputs64, *module.parameters()])
    for a, b in zip(gradients, expected, strict=True):
        assert a.dtype == torch.float32
        assert relative_error(a, b) < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_in_bf16_carries_its_state_in_float32(kind: str) -> None:
    module = stack(kind, hidden=16)
    x, state = inputs(module)
    exact = module(x, state)

    near = module.bfloat16()(x.bfloat16(), state)

    assert {output.dtype for output in near.outputs} == {torch.bfloat16}
    assert near.state.dtype == torch.float32
    assert relative_error(near.state, exact.state) < 0.01
    gradients = torch.autograd.grad(objective(near), [state, *module.parameters()])
    assert [g.dtype for g in gradients] == [torch.float32] + [torch.bfloat16] * (len(gradients) - 1)


def relative_error(ours: Tensor, exact: Tensor) -> float:
    return float((ours.detach() - exact.detach()).norm() / exact.detach().norm())


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_that_rounds_to_1_in_bf16_has_its_gradient(kind: str) -> None:
    module = stack(kind, hidden=16, layers=1)
    (layer,) = module.layers
    with torch.no_grad():
        layer.bias[:, FORGET_GATES[kind]] = 7.0  # a sigmoid of 0.999
    x, state = inputs(module)

    with torch.autocast("cpu", torch.bfloat16):
        near = module(x, state)
    ours = torch.autograd.grad(objective(near), layer.bias)[0]
    exact = module.double()(x.double(), state.double())
    theirs = torch.autograd.grad(objective(exact), layer.bias)[0]
    gates = slice(None), FORGET_GATES[kind]
    assert relative_error(ours[gates], theirs[gates]) < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast_each_weight_is_cast_once_for_both_passes(kind: str) -> None:
    casts: list[torch.Size] = []

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.ops.aten._to_copy.default and kwargs["dtype"] == torch.bfloat16:
                casts.append(args[0].shape)
            return func(*args, **kwargs or {})

    module = stack(kind, hidden=16, layers=1)
    x, state = inputs(module)
    with Casts(), torch.autocast("cpu", torch.bfloat16):
        objective(module(x, state)).backward()

    weights = [w.shape for name, w in module.named_parameters() if "weight" in name]
    assert sorted(shape for shape in casts if len(shape) == 3) == sorted(weights)
    # x, and in HGRN2 the gradient of the output, which its projection reads.
    assert casts.count(x.shape) == (2 if kind == "hgrn2" else 1)


def test_a_cell_state_is_not_rounded_to_bf16() -> None:
    """A cell that forgets nothing and adds 1e-3 per step reaches their sum, which bf16 would lose."""
    module = stack(layers=1, hidden=4, projection=None, cell_clip=None, projection_clip=None)
    (layer,) = module.layers
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
        layer.bias[:, :8] = 20.0  # i and f are 1
        layer.bias[:, 8:12] = 1e-3
        state = torch.cat([torch.zeros(1, 2, 1, 4), torch.ones(1, 2, 1, 4)], -1)
        with torch.autocast("cpu", torch.bfloat16):
            run = module(torch.zeros(2, 100, 1, 4), state)

    torch.testing.assert_close(run.state[..., 4:], torch.full((1, 2, 1, 4), 1.1), atol=1e-4, rtol=0)


def test_without_layers_nothing_changes_the_input() -> None:
    config = ModelConfig.model_validate(
        {"recurrent": {"kind": "none", "hidden": 5}, "directions": "forward"}
    )
    module = Recurrent(config.recurrent, 1)
    x, state = torch.randn(1, TIME, ROWS, 5), module.zero_state(ROWS)
    run = module(x, state)

    assert (state.shape, run.state.shape) == (2 * ((0, 1, ROWS, 0),))
    assert run.outputs == ()
    assert run.raw is x
    assert module.width == 5
    assert module.compile_cell("on") == "the model has no recurrent layers to compile"

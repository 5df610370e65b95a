"""The training step: its loss, the state it carries, its learning rate."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.config import ModelConfig, TrainConfig
from lightning_modules.datamodule import Batch
from lightning_modules.lit_bilm import LitBiLM, learning_rate_share
from lightning_modules.nn.adaptive_softmax import route

VOCABULARY, CUTOFFS = 30, (10,)


def module(**train: Any) -> LitBiLM:
    model = ModelConfig.model_validate({"recurrent": {"hidden": 8, "projection": 4}})
    made = LitBiLM(model, TrainConfig(rows=3, unroll=5, **train), VOCABULARY, CUTOFFS)
    made.on_train_start()
    return made


def batch(step: int) -> Batch:
    ids, targets = np.random.default_rng(step).integers(0, VOCABULARY, (2, 2, 5, 3))
    routes = route(targets.reshape(-1), np.arange(VOCABULARY), CUTOFFS)
    return Batch(step, torch.from_numpy(ids), torch.from_numpy(targets), routes)


def at_step(made: LitBiLM, step: int, monkeypatch: pytest.MonkeyPatch) -> LitBiLM:
    monkeypatch.setattr(type(made), "global_step", property(lambda _: step))
    return made


def test_the_loss_is_the_mean_of_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    made = at_step(module(), 0, monkeypatch)
    loss = made.training_step(batch(0), 0)

    torch.testing.assert_close(loss.detach(), made.losses.mean())
    assert made.losses.shape == (2,)


def test_a_batch_of_another_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = at_step(module(), 4, monkeypatch)

    with pytest.raises(AssertionError, match="at other steps"):
        made.training_step(batch(3), 3)


def test_the_state_is_carried_and_the_gradient_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made = module()
    assert made.state is not None
    first = made.state
    at_step(made, 0, monkeypatch).training_step(batch(0), 0)
    carried = made.state
    with_carried = at_step(made, 1, monkeypatch).training_step(batch(1), 1)
    made.state = first
    without = made.training_step(batch(1), 1)

    assert carried.hidden.grad_fn is None
    assert carried.cell.grad_fn is None
    assert with_carried != without


def test_dropout_follows_from_seed_and_step_only(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for draws in (0, 7):
        made = at_step(module(), 2, monkeypatch)
        torch.rand(draws)
        losses.append(made.training_step(batch(2), 2))
    other = at_step(module(), 3, monkeypatch).training_step(batch(2)._replace(step=3), 3)

    assert losses[0] == losses[1] != other


def test_a_checkpoint_carries_the_state_over(monkeypatch: pytest.MonkeyPatch) -> None:
    made = at_step(module(), 0, monkeypatch)
    made.training_step(batch(0), 0)
    checkpoint: dict[str, Any] = {}
    made.on_save_checkpoint(checkpoint)
    other = module()
    other.on_load_checkpoint(checkpoint)
    other.on_train_start()

    assert made.state is not None
    assert other.state is not None
    assert torch.equal(other.state.hidden, made.state.hidden)
    assert torch.equal(other.state.cell, made.state.cell)
    assert made.state.hidden.shape == (2, 2, 3, 4)
    assert made.state.cell.shape == (2, 2, 3, 8)


def test_the_gradient_is_bounded_and_its_norm_before_that_is_kept() -> None:
    made = module(clip_norm=0.01)
    for parameter in made.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}])
    made.configure_gradient_clipping(optimizer)  # type: ignore[arg-type]

    count = sum(parameter.numel() for parameter in made.network.parameters())
    after = math.sqrt(sum(float((p.grad**2).sum()) for p in made.network.parameters()))  # type: ignore[operator]
    assert float(made.gradient_norm) == pytest.approx(math.sqrt(count))
    assert after == pytest.approx(0.01, rel=1e-3)
    assert made.learning_rate == 0.5


def test_the_rate_rises_to_its_peak_and_falls_to_the_final_share() -> None:
    train = TrainConfig(steps=100, warmup_steps=9, final_rate=0.2)
    rates = [learning_rate_share(train)(step) for step in range(100)]

    assert rates[:9] == pytest.approx([(step + 1) / 10 for step in range(9)])
    assert rates[9] == 1.0
    assert rates[9 + 45] == pytest.approx(0.6)
    assert rates[99] == pytest.approx(0.2)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 80), st.floats(0, 1))
def test_the_rate_is_a_share_that_rises_once_and_falls_once(
    steps: int, warmup: int, final: float
) -> None:
    share = learning_rate_share(TrainConfig(steps=steps, warmup_steps=warmup, final_rate=final))
    rates = [share(step) for step in range(steps)]

    assert all(0 <= rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)

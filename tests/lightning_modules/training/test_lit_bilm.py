"""Training steps: loss, carried state, skipped steps, checkpoints."""

import io
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.datamodule import Batch
from lightning_modules.training.distribution import Share
from lightning_modules.training.lit_bilm import LitBiLM
from preprocess.errors import UserError

VOCABULARY, CUTOFFS = 30, (10,)
ROWS = 4


class Alone(LitBiLM):
    """A module that trains without a Trainer."""

    def manual_backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def _no_sync(self) -> AbstractContextManager[None]:
        return nullcontext()


def module(
    model: dict[str, Any] | None = None,
    share: Share | None = None,
    bf16: bool = False,
    **train: Any,
) -> Alone:
    config = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}} | (model or {})
    settings = TrainConfig.model_validate({"rows": ROWS, "unroll": 5, "warmup_steps": 0} | train)
    made = Alone(
        ModelConfig.model_validate(config), settings, VOCABULARY, CUTOFFS, share=share, bf16=bf16
    )
    made.on_train_start()
    return made


def batch(step: int, share: Share | None = None, accumulate: int = 1) -> Batch:
    share = share or Share(ROWS)
    make = WindowMaker(np.arange(VOCABULARY), CUTOFFS)
    windows = []
    for place in range(step * accumulate, (step + 1) * accumulate):
        ids, targets = np.random.default_rng(place).integers(0, VOCABULARY, (2, 2, 5, ROWS))
        windows.append(
            tuple(
                make(ids[..., part.start : part.stop], targets[..., part.start : part.stop])
                for part in share.ranges
            )
        )
    return Batch(step, tuple(windows))


def train(made: Alone, steps: range, accumulate: int = 1) -> list[list[float]]:
    losses = []
    for step in steps:
        made.training_step(batch(step, made.share, accumulate), step)
        losses.append(made.losses.tolist())
    return losses


STILL = {
    "input": {"kind": "embedding", "dropout": 0},
    "recurrent": {"kind": "lstm", "hidden": 8, "projection": 4, "dropout": 0},
}


def test_the_gradient_is_that_of_the_scaled_mean_of_both_directions() -> None:
    scaled = module(STILL, loss_scale=7.0, clip_norm=None)
    plain = module(STILL, clip_norm=None)
    for made in (scaled, plain):
        made.training_step(batch(0), 0)

    assert scaled.losses.tolist() == plain.losses.tolist()
    assert plain.losses.shape == (2,)
    assert scaled.gradient_norm == pytest.approx(7 * plain.gradient_norm, rel=1e-5)
    window = batch(0).windows[0][0]
    made = module(STILL, clip_norm=None)
    found = made.network.loss(window, made.network.zero_state(ROWS))
    found.means.mean().backward()
    norm = math.sqrt(sum(float((w.grad**2).sum()) for w in made.network.parameters()))  # type: ignore[operator]
    assert plain.gradient_norm == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("name", ["activation_penalty", "change_penalty"])
def test_penalties_change_the_gradient_but_not_the_reported_loss(name: str) -> None:
    with_it, without = module(STILL, **{name: 5.0}), module(STILL)
    for made in (with_it, without):
        made.training_step(batch(0), 0)

    assert with_it.losses.tolist() == without.losses.tolist()
    assert with_it.gradient_norm != without.gradient_norm


def test_a_batch_of_another_step_is_refused() -> None:
    with pytest.raises(AssertionError, match="at different steps"):
        module().training_step(batch(3), 3)


def test_the_state_is_carried_and_the_gradient_is_not() -> None:
    made = module(STILL, learning_rate=1e-9)
    [first], second = train(made, range(1)), made.checkpoint()["carried_state"]
    assert made._states[0].grad_fn is None
    carried = train(made, range(1, 2))[0]
    made.step = 1
    made._states = [torch.zeros_like(second)]
    forgotten = train(made, range(1, 2))[0]

    assert second.abs().min(dim=3).values.gt(0).all()
    assert carried != forgotten
    assert first != carried


def test_random_numbers_follow_from_seed_step_and_rank_only() -> None:
    losses = []
    for draws, step, rank in ((0, 2, 0), (7, 2, 0), (0, 3, 0), (0, 2, 1)):
        made = module(share=Share(2 * ROWS, rank, 2), rows=2 * ROWS)
        made.step = step
        torch.rand(draws)
        made.training_step(batch(2, Share(ROWS))._replace(step=step), step)
        losses.append(made.losses.tolist())

    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert losses[0] != losses[3]


@pytest.mark.parametrize("passes", [2, 4])
def test_several_passes_over_the_rows_give_the_same_training(passes: int) -> None:
    whole, parts = module(STILL), module(STILL, Share(ROWS, passes=passes))
    ours, theirs = train(parts, range(20)), train(whole, range(20))

    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    torch.testing.assert_close(
        parts.checkpoint()["carried_state"], whole.checkpoint()["carried_state"], rtol=0, atol=1e-4
    )


def test_accumulated_windows_are_read_one_after_another() -> None:
    made = module(STILL, accumulate_steps=2, learning_rate=1e-9, clip_norm=None)
    [losses] = train(made, range(1), accumulate=2)
    one = module(STILL, learning_rate=1e-9, clip_norm=None)
    each = train(one, range(2))

    np.testing.assert_allclose(losses, np.mean(each, 0), rtol=1e-5)
    torch.testing.assert_close(
        made.checkpoint()["carried_state"], one.checkpoint()["carried_state"], rtol=0, atol=1e-5
    )


def test_the_gradient_is_clipped_and_its_norm_before_clipping_is_kept() -> None:
    made = module(STILL, clip_norm=0.01, optimizer={"kind": "sgd"}, learning_rate=1.0)
    before = [w.detach().clone() for w in made.network.parameters()]
    made.training_step(batch(0), 0)
    moved = [b - w.detach() for w, b in zip(made.network.parameters(), before, strict=True)]

    assert made.gradient_norm > 0.02
    norm = math.sqrt(sum(float((x.double() ** 2).sum()) for x in moved))
    assert norm == pytest.approx(0.01, rel=1e-3)
    assert made.learning_rate == 1.0


def test_a_step_whose_gradient_is_not_finite_is_skipped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = module()
    train(made, range(2))
    before = made.checkpoint()
    real = type(made.network).loss

    def broken(network: Any, *arguments: Any) -> Any:
        found = real(network, *arguments)
        return found._replace(means=found.means * float("nan"), state=found.state * float("nan"))

    with monkeypatch.context() as patched:
        patched.setattr(type(made.network), "loss", broken)
        train(made, range(2, 4))
    after = made.checkpoint()

    assert (made.step, made.skipped, made.skipped_in_a_row) == (4, 2, 2)
    for name, weight in before["state_dict"].items():
        assert torch.equal(weight, after["state_dict"][name])
    assert torch.equal(before["carried_state"], after["carried_state"])
    train(made, range(4, 5))
    assert (made.skipped, made.skipped_in_a_row) == (2, 0)
    assert all(weight.isfinite().all() for weight in made.network.parameters())


def reloaded(checkpoint: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def test_only_rank_0_gets_the_checkpoint() -> None:
    first, second = (module(share=Share(2 * ROWS, rank, 2), rows=2 * ROWS) for rank in (0, 1))

    assert first.checkpoint()
    assert not second.checkpoint()


@pytest.mark.parametrize(
    "optimizer",
    [
        {"kind": "adam"},
        {"kind": "adamw"},
        {"kind": "adagrad"},
        {"kind": "sgd", "momentum": 0.9, "average_after": 1},
    ],
)
def test_a_resumed_training_takes_the_same_steps(optimizer: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"optimizer": optimizer, "schedule": {"kind": "plateau"}}

    def train_and_evaluate(made: Alone, steps: range) -> list[list[float]]:
        losses = []
        for step in steps:
            losses += train(made, range(step, step + 1))
            if step % 2:
                made.record_held_out_loss(3.0 + step / 10)
        return losses

    undisturbed = module(**settings)
    losses = train_and_evaluate(undisturbed, range(12))
    stopped = module(**settings)
    train_and_evaluate(stopped, range(7))
    checkpoint = reloaded(stopped.checkpoint())
    other = Alone(
        ModelConfig.model_validate({"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}),
        stopped.train_config.model_copy(update={"seed": 9}),
        VOCABULARY,
        CUTOFFS,
    )
    other.train_config = stopped.train_config
    other.restore(checkpoint)
    other.on_train_start()

    assert train_and_evaluate(other, range(7, 12)) == losses[7:]
    assert other.is_averaging is undisturbed.is_averaging is (optimizer["kind"] == "sgd")
    assert other.learning_rate == undisturbed.learning_rate < 1e-3
    ours, theirs = other.checkpoint(), undisturbed.checkpoint()
    assert torch.equal(ours["carried_state"], theirs["carried_state"])
    for part in ("state_dict", "average"):
        for name, weight in (theirs[part] or {}).items():
            assert torch.equal(weight, ours[part][name]), name


def test_a_checkpoint_of_one_process_can_be_resumed_by_two() -> None:
    made = module(STILL)
    train(made, range(3))
    checkpoint = made.checkpoint()
    halves = []
    for rank in range(2):
        half = Alone(
            ModelConfig.model_validate(STILL), made.train_config, VOCABULARY, CUTOFFS,
            share=Share(ROWS, rank, 2),
        )  # fmt: skip
        half.restore(checkpoint)
        half.on_train_start()
        halves += half._states

    assert torch.equal(torch.cat(halves, 2), checkpoint["carried_state"])


def test_averaged_weights_are_exchanged_for_an_evaluation_and_back() -> None:
    made = module(optimizer={"kind": "sgd", "average_after": 1}, learning_rate=1.0)
    train(made, range(1))
    for nats in (3.0, 4.0, 5.0):
        made.record_held_out_loss(nats)
    train(made, range(1, 4))
    raw = [w.detach().clone() for w in made.network.parameters()]
    made.swap_average()
    averaged = [w.detach().clone() for w in made.network.parameters()]
    made.swap_average()

    assert made.is_averaging
    assert not all(map(torch.equal, raw, averaged))
    assert all(map(torch.equal, raw, made.network.parameters()))
    saved = made.checkpoint()["average"]
    for (name, _), weight in zip(made.network.named_parameters(), averaged, strict=True):
        assert torch.equal(saved[name], weight)


def test_bf16_trains_with_weights_and_state_in_float32() -> None:
    exact, rough = module(STILL), module(STILL, bf16=True)
    ours, theirs = train(rough, range(3)), train(exact, range(3))

    assert ours != theirs
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    assert all(weight.dtype == torch.float32 for weight in rough.network.parameters())
    assert rough.checkpoint()["carried_state"].dtype == torch.float32


def test_a_checkpoint_of_another_format_is_refused() -> None:
    made = module()
    with pytest.raises(
        UserError,
        match=r"has format 1, but this version of biloom resumes from format 2; use the version",
    ):
        made.restore({"state_dict": {}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state_dict", {}),
        ("state_dict", 3),
        ("looks", None),
        ("average", {"a": torch.zeros(1)}),
        ("carried_state", torch.zeros(1)),
        ("carried_state", None),
        ("optimizer", {}),
        ("optimizer", {"state": {}, "param_groups": []}),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(key: str, value: Any) -> None:
    made = module()
    train(made, range(1))
    saved = made.checkpoint() | {key: value}

    def resume() -> None:
        other = module()
        other.restore(saved)
        other.on_train_start()

    with pytest.raises(
        UserError, match=r"^the checkpoint does not fit the model and its settings \("
    ):
        resume()


def test_the_optimiser_implementation_is_that_of_the_device_it_resumes_on() -> None:
    made = module(optimizer={"kind": "adagrad"}, clip_norm=1e-6)
    train(made, range(1))
    saved = made.checkpoint()
    saved["optimizer"]["param_groups"][0]["fused"] = False  # as from a GPU
    other = Alone(
        ModelConfig.model_validate({"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}),
        made.train_config,
        VOCABULARY,
        CUTOFFS,
    )
    other.restore(saved)
    other.on_train_start()

    assert train(other, range(1, 2)) == train(made, range(1, 2))


def test_penalties_of_windows_of_one_token_are_finite() -> None:
    made = module(STILL, activation_penalty=1.0, change_penalty=1.0)
    make = WindowMaker(np.arange(VOCABULARY), CUTOFFS)
    ids = np.ones((2, 1, ROWS), np.int64)
    made.training_step(Batch(0, ((make(ids, ids),),)), 0)

    assert made.skipped == 0

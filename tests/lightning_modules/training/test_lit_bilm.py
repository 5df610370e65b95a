"""The module in a Trainer: loss, carried state, skipped steps, checkpoints, validation."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.config import ModelConfig
from lightning_modules.nn.window import Window
from lightning_modules.nn.window_maker import WindowMaker
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.validation.loader import HeldOutBatch
from lightning_modules.training.window_loader import Batch
from preprocess.errors import UserError

pytestmark = [
    # Lightning's advice on loaders.
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
]

VOCABULARY, CUTOFFS = 30, (10,)
ROWS = 4
SMALL = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}
STILL = {
    "input": {"kind": "embedding", "dropout": 0},
    "recurrent": {"kind": "lstm", "hidden": 8, "projection": 4, "dropout": 0},
}


def module(model: dict[str, Any] | None = None, **train: Any) -> LitBiLM:
    settings = {"rows": ROWS, "unroll": 5, "warmup_steps": 0, "compile": "off"} | train
    return LitBiLM(SMALL | (model or {}), settings, VOCABULARY, CUTOFFS)


def window(number: int, rows: slice = slice(None)) -> Window:
    ids, targets = np.random.default_rng(number).integers(0, VOCABULARY, (2, 2, 5, ROWS))
    make = WindowMaker(np.arange(VOCABULARY), CUTOFFS)
    return make(np.ascontiguousarray(ids[..., rows]), np.ascontiguousarray(targets[..., rows]))


class Batches:
    """Batches of random windows, from the window that the module is at."""

    def __init__(self, made: LitBiLM, length: int) -> None:
        self.made, self.length = made, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        passes = self.made.train_config.row_passes
        size = ROWS // passes
        for number in range(self.made.windows, self.made.windows + self.length):
            parts = [window(number, slice(n * size, (n + 1) * size)) for n in range(passes)]
            yield Batch(number, tuple(parts))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Loader:
    """A loader of given items."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class Losses(pl.Callback):
    """Keeps the losses of each step, and saves a checkpoint after one of them."""

    def __init__(self, saved: int = 0, path: Path | None = None) -> None:
        self.losses: list[list[float]] = []
        self.saved, self.path = saved, path

    def on_train_batch_end(self, trainer: pl.Trainer, made: Any, *arguments: Any) -> None:
        if made.figures.is_between_steps:
            self.losses.append(made.figures.losses.tolist())
            if made.step == self.saved and self.path:
                trainer.save_checkpoint(self.path)


def quiet_trainer(**options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **options,
    )  # fmt: skip


def fit(
    made: LitBiLM,
    steps: int,
    save: tuple[int, Path] | None = None,
    resume: Path | None = None,
    validate: int = 0,
    **options: Any,
) -> list[list[float]]:
    """Train up to a step; the losses of each step."""
    kept = Losses(*(save or ()))
    accumulated = made.train_config.accumulate_steps
    options = {"accumulate_grad_batches": accumulated, "max_steps": steps} | options
    if validate:
        options |= {"val_check_interval": validate, "check_val_every_n_epoch": None}
    trainer = quiet_trainer(callbacks=[kept], **options)
    batches = [HeldOutBatch(window(number), 0, 1) for number in (1000, 1001)]
    held_out = Loader(*batches) if validate else None
    trainer.fit(made, Batches(made, 100), held_out, ckpt_path=resume)
    return kept.losses


def state(made: LitBiLM) -> torch.Tensor:
    return made.carried_state.of_all_rows()


def test_the_gradient_is_that_of_the_scaled_mean_of_both_directions() -> None:
    scaled, plain = (module(STILL, loss_scale=scale, clip_norm=None) for scale in (7.0, 1.0))
    [ours], [theirs] = fit(scaled, 1), fit(plain, 1)

    assert ours == theirs
    assert len(theirs) == 2
    assert float(scaled.figures.gradient_norm) == pytest.approx(
        7 * float(plain.figures.gradient_norm), rel=1e-5
    )
    made = module(STILL)
    found = made.network.loss(window(0), made.network.zero_state(ROWS))
    found.means.mean().backward()
    norm = math.sqrt(sum(float((w.grad**2).sum()) for w in made.network.parameters()))  # type: ignore[operator]
    assert float(plain.figures.gradient_norm) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("name", ["activation_penalty", "change_penalty"])
def test_penalties_change_the_gradient_but_not_the_reported_loss(name: str) -> None:
    with_it, without = module(STILL, **{name: 5.0}), module(STILL)

    assert fit(with_it, 1) == fit(without, 1)
    assert with_it.figures.gradient_norm != without.figures.gradient_norm


def test_a_batch_of_another_window_is_refused() -> None:
    made = module()
    batches = Batches(made, 3)
    batches.made = module()
    batches.made.windows = 5
    trainer = quiet_trainer(max_steps=1)
    with pytest.raises(
        UserError, match=r"^the data are at window 5 but the module is at window 0; resume both by"
    ):
        trainer.fit(made, batches)


def test_the_state_is_carried_and_the_gradient_is_not(tmp_path: Path) -> None:
    made = module(STILL, learning_rate=1e-9)
    [first, carried] = fit(made, 2, save=(1, tmp_path / "one.ckpt"))
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)
    assert all(part.grad_fn is None for part in made.carried_state.passes)
    assert saved["carried_state"].abs().min(dim=3).values.gt(0).all()

    saved["carried_state"].zero_()
    torch.save(saved, tmp_path / "zero.ckpt")
    [forgotten] = fit(module(STILL, learning_rate=1e-9), 2, resume=tmp_path / "zero.ckpt")
    assert len({tuple(first), tuple(carried), tuple(forgotten)}) == 3


def test_random_numbers_follow_from_the_seed_and_leave_the_process_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    made = module()
    assert torch.equal(torch.get_rng_state(), before)
    losses = fit(made, 3)
    assert torch.equal(torch.get_rng_state(), before)

    torch.rand(7)
    assert fit(module(), 3) == losses
    assert fit(module(seed=2), 3) != losses


@pytest.mark.parametrize("passes", [2, 4])
def test_several_passes_over_the_rows_give_the_same_training(passes: int) -> None:
    whole, parts = module(STILL), module(STILL, row_passes=passes)

    np.testing.assert_allclose(fit(parts, 20), fit(whole, 20), rtol=1e-4)
    torch.testing.assert_close(state(parts), state(whole), rtol=0, atol=1e-4)


@pytest.mark.parametrize("passes", [1, 2])
def test_accumulated_windows_are_read_one_after_another(passes: int) -> None:
    still = {"learning_rate": 1e-9, "clip_norm": None}
    made = module(STILL, accumulate_steps=2, row_passes=passes, **still)
    one = module(STILL, **still)
    [losses], each = fit(made, 1), fit(one, 2)

    assert made.windows == one.windows == 2
    np.testing.assert_allclose(losses, np.mean(each, 0), rtol=1e-5)
    torch.testing.assert_close(state(made), state(one), rtol=0, atol=1e-5)


def test_an_accumulated_gradient_is_the_mean_of_those_of_its_windows() -> None:
    settings = {"clip_norm": None, "optimizer": {"kind": "sgd"}, "learning_rate": 1.0}
    made = module(STILL, accumulate_steps=2, row_passes=2, **settings)
    before = [w.detach().clone() for w in made.network.parameters()]
    fit(made, 1)
    other = module(STILL, **settings)
    carried = other.network.zero_state(ROWS)
    for number in range(2):
        losses = other.network.loss(window(number), carried)
        (losses.means.mean() / 2).backward()
        carried = losses.state.detach()

    for was, weight, expected in zip(
        before, made.network.parameters(), other.network.parameters(), strict=True
    ):
        torch.testing.assert_close(was - weight.detach(), expected.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"row_passes": 2, "accumulate_steps": 2},
        {"optimizer": {"kind": "sgd", "momentum": 0.9, "average_after": 1}},
    ],
)
def test_cuda_graphs_of_the_layers_do_not_change_the_training(
    train: dict[str, Any], captures: Any
) -> None:
    ours, theirs = module(**train), module(cuda_graphs="off", **train)

    expected = fit(theirs, 5, validate=2)
    assert captures.count == 0
    assert fit(ours, 5, validate=2) == expected
    assert captures.count == 4  # the passes of two layers, of training only
    windows = 5 * ours.train_config.row_passes * ours.train_config.accumulate_steps
    assert captures.replays == 4 * windows
    assert torch.equal(state(ours), state(theirs))
    for a, b in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [layer.graphs for layer in ours.network.recurrent.layers] == [None, None]


@pytest.mark.parametrize("by_trainer", [False, True])
def test_the_gradient_is_clipped_and_its_norm_before_clipping_is_kept(by_trainer: bool) -> None:
    clipped = {} if by_trainer else {"clip_norm": 0.01}
    made = module(STILL, **clipped, optimizer={"kind": "sgd"}, learning_rate=1.0)
    before = [w.detach().clone() for w in made.network.parameters()]
    fit(made, 1, gradient_clip_val=0.01 if by_trainer else None)
    moved = [b - w.detach() for w, b in zip(made.network.parameters(), before, strict=True)]

    assert made.figures.gradient_norm > 0.02
    norm = math.sqrt(sum(float((x.double() ** 2).sum()) for x in moved))
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_a_trainer_can_clip_each_value() -> None:
    made = module(STILL, optimizer={"kind": "sgd"}, learning_rate=1.0)
    before = [w.detach().clone() for w in made.network.parameters()]
    fit(made, 1, gradient_clip_val=0.001, gradient_clip_algorithm="value")

    moved = [b - w.detach() for w, b in zip(made.network.parameters(), before, strict=True)]
    assert max(float(x.abs().max()) for x in moved) == pytest.approx(0.001, rel=1e-3)


def test_a_step_whose_gradient_is_not_finite_is_skipped_and_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = module()
    real = type(made.network).loss

    def broken(network: Any, *arguments: Any) -> Any:
        found = real(network, *arguments)
        if made.windows not in (2, 3):
            return found
        return found._replace(means=found.means * float("nan"), state=found.state * float("nan"))

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: Any, made: Any, *arguments: Any) -> None:
            if made.step in (2, 4):
                trainer.save_checkpoint(tmp_path / f"{made.step}.ckpt")
                counted.append((made.figures.skipped, made.figures.skipped_in_a_row))

    counted: list[tuple[int, int]] = []
    monkeypatch.setattr(type(made.network), "loss", broken)
    trainer = quiet_trainer(max_steps=5, callbacks=[Watch()])
    trainer.fit(made, Batches(made, 10))
    before, after = (torch.load(tmp_path / f"{n}.ckpt", weights_only=True) for n in (2, 4))

    assert counted == [(0, 0), (2, 2)]
    assert trainer.global_step == made.step == 5
    for name, weight in before["state_dict"].items():
        assert torch.equal(weight, after["state_dict"][name])
    assert torch.equal(before["carried_state"], after["carried_state"])
    assert (made.figures.skipped, made.figures.skipped_in_a_row) == (2, 0)
    assert all(weight.isfinite().all() for weight in made.network.parameters())


OPTIMIZERS: list[dict[str, Any]] = [
    {"kind": "adam"},
    {"kind": "adamw"},
    {"kind": "adagrad"},
    {"kind": "sgd", "momentum": 0.9, "average_after": 1},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_takes_the_same_steps(
    optimizer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(made: LitBiLM, nats: float) -> None:
        record(made, 3.0 + made.step / 10)

    record = LitBiLM.record_held_out_loss
    monkeypatch.setattr(LitBiLM, "record_held_out_loss", worse)
    settings: dict[str, Any] = {"optimizer": optimizer, "schedule": {"kind": "plateau"}}
    path = tmp_path / "7.ckpt"
    whole, resumed = module(**settings), module(**settings)
    losses = fit(whole, 12, save=(7, path), validate=2)

    assert fit(resumed, 12, resume=path, validate=2) == losses[7:]
    assert resumed.is_averaging is whole.is_averaging is (optimizer["kind"] == "sgd")
    assert resumed.figures.learning_rate == whole.figures.learning_rate < 1e-3
    assert resumed.held_out_losses == whole.held_out_losses
    assert torch.equal(state(resumed), state(whole))
    for one, other in (
        (resumed.network.state_dict(), whole.network.state_dict()),
        (resumed.averaged_weights() or {}, whole.averaged_weights() or {}),
    ):
        for name, weight in other.items():
            assert torch.equal(weight, one[name]), name


def test_averaged_weights_are_validated_and_exchanged_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = iter((3.0, 4.0, 5.0, 6.0, 7.0))
    record = LitBiLM.record_held_out_loss
    monkeypatch.setattr(LitBiLM, "record_held_out_loss", lambda made, _: record(made, next(losses)))
    made = module(optimizer={"kind": "sgd", "average_after": 1}, learning_rate=1.0)
    fit(made, 4, validate=1)
    raw = [w.detach().clone() for w in made.network.parameters()]
    made.swap_average()
    averaged = [w.detach().clone() for w in made.network.parameters()]
    made.swap_average()

    assert made.is_averaging
    assert not all(map(torch.equal, raw, averaged))
    assert all(map(torch.equal, raw, made.network.parameters()))
    saved = made.averaged_weights()
    assert saved is not None
    for (name, _), weight in zip(made.network.named_parameters(), averaged, strict=True):
        assert torch.equal(saved[name], weight)
    nll = 0.0
    carried = made.network.zero_state(ROWS)
    made.swap_average()
    for number in range(2):
        of_targets, carried = made.network.nll(window(1000 + number), carried)
        nll += float(of_targets.detach().double().sum())
    assert made.held_out["loss"] == pytest.approx(nll / (2 * 2 * 5 * ROWS), rel=1e-6)


def test_bf16_trains_with_weights_and_state_in_float32() -> None:
    exact, rough = module(STILL), module(STILL)
    theirs, ours = fit(exact, 3), fit(rough, 3, precision="bf16-mixed")

    assert ours != theirs
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    assert all(weight.dtype == torch.float32 for weight in rough.network.parameters())
    assert state(rough).dtype == torch.float32


def test_hyperparameters_are_saved_and_a_checkpoint_is_loaded_without_arguments(
    tmp_path: Path,
) -> None:
    made = LitBiLM(
        ModelConfig.model_validate(SMALL), TrainConfig(rows=ROWS, unroll=5), VOCABULARY, CUTOFFS,
        torch.arange(VOCABULARY).flip(0),
    )  # fmt: skip
    fit(made, 2, save=(2, tmp_path / "two.ckpt"))
    loaded = LitBiLM.load_from_checkpoint(tmp_path / "two.ckpt")

    assert loaded.train_config == made.train_config
    assert loaded.model_config == made.model_config
    assert (loaded.step, loaded.windows) == (2, 2)
    for name, tensor in made.network.state_dict().items():
        assert torch.equal(tensor, loaded.network.state_dict()[name]), name


def test_a_loaded_module_starts_anew_in_another_trainer(tmp_path: Path) -> None:
    fit(module(), 3, save=(3, tmp_path / "three.ckpt"))
    loaded = LitBiLM.load_from_checkpoint(tmp_path / "three.ckpt")
    fit(loaded, 2)

    assert (loaded.step, loaded.windows) == (2, 2)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("state_dict", {}),
        ("state_dict", 3),
        ("looks", None),
        ("average", {"a": torch.zeros(1)}),
        ("carried_state", torch.zeros(1)),
        ("carried_state", None),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    fit(module(), 1, save=(1, tmp_path / "one.ckpt"))
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True) | {key: value}

    with pytest.raises(
        UserError, match=r"^the checkpoint does not fit the model and its settings \("
    ):
        module().on_load_checkpoint(saved)


def test_the_optimiser_implementation_is_that_of_the_device_it_resumes_on(tmp_path: Path) -> None:
    path = tmp_path / "one.ckpt"
    made = module(optimizer={"kind": "adagrad"}, clip_norm=1e-6)
    losses = fit(made, 2, save=(1, path))
    saved = torch.load(path, weights_only=True)
    saved["optimizer_states"][0]["param_groups"][0]["fused"] = False  # as from a GPU
    torch.save(saved, path)

    other = module(optimizer={"kind": "adagrad"}, clip_norm=1e-6)
    assert fit(other, 2, resume=path) == losses[1:]
    assert other.optimizers(use_pl_optimizer=False).param_groups[0]["fused"] is True  # type: ignore[union-attr]


def test_penalties_of_windows_of_one_token_are_finite() -> None:
    made = module(STILL, activation_penalty=1.0, change_penalty=1.0)
    make = WindowMaker(np.arange(VOCABULARY), CUTOFFS)
    ids = np.ones((2, 1, ROWS), np.int64)
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(made, Loader(Batch(0, (make(ids, ids),))))

    assert made.figures.skipped == 0

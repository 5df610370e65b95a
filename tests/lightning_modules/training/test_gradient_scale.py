"""Training in float16 on the CPU: the scale of the gradients, overflows, checkpoints, two ranks."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_modules.training.gradient_scale import GradientScaler
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.optimizers import FUSED, end_skip, skip_if

from .test_lit_bilm import STILL, Batches, fit, module, quiet_trainer, state

pytestmark = [
    # Lightning's advice on loaders.
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
]

Together = Callable[[str, int], list[tuple[int, str]]]  # of conftest.py
OVERFLOWS = 2.0**30
"""A scale at which gradients overflow, until it has halved several times."""


def half(scale: float = 2.0**16, **options: Any) -> list[MixedPrecision]:
    """Return Lightning's plugin with torch's own scaler; Lightning has no name for it on a CPU."""
    scaler = torch.amp.GradScaler("cpu", scale, **options)
    return [MixedPrecision("16-mixed", "cpu", scaler)]


class Watch(pl.Callback):
    """Keeps the figures and the weights after each step, and saves checkpoints."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.figures: list[dict[str, float]] = []
        self.weights: list[torch.Tensor] = []
        self.states: list[torch.Tensor] = []
        self.norms: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, made: Any, optimizer: Any) -> None:
        grads = [weight.grad for weight in made.network.parameters() if weight.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(grads)))

    def on_train_batch_end(self, trainer: Any, made: Any, *arguments: Any) -> None:
        self.figures.append(made.figures.to_log())
        self.weights.append(torch.nn.utils.parameters_to_vector(made.parameters()).detach())
        self.states.append(state(made))
        if self.folder:
            trainer.save_checkpoint(self.folder / f"{made.step}.ckpt")


def trained(
    made: LitBiLM, steps: int, plugins: Any, folder: Path | None = None, resume: Any = None
) -> Watch:
    watch = Watch(folder)
    trainer = quiet_trainer(max_steps=steps, plugins=plugins, callbacks=[watch])
    trainer.fit(made, Batches(made, 100), ckpt_path=resume)
    return watch


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_float16_trains_as_float32_does_with_weights_and_state_in_float32(kind: str) -> None:
    model = STILL | (
        {"recurrent": {"kind": "gru", "hidden": 8, "dropout": 0}} if kind == "gru" else {}
    )
    exact, rough = module(model), module(model)
    theirs, watch = fit(exact, 4), trained(rough, 4, half())
    ours = [[row["loss_forward"], row["loss_backward"]] for row in watch.figures]

    assert ours != theirs
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)
    assert float(rough.figures.gradient_norm) == pytest.approx(
        float(exact.figures.gradient_norm), rel=0.01
    )
    assert {row["gradient_scale"] for row in watch.figures} == {2.0**16}
    assert "gradient_scale" not in exact.figures.to_log()
    assert all(weight.dtype == torch.float32 for weight in rough.network.parameters())
    assert state(rough).dtype == torch.float32


@pytest.mark.parametrize("kind", ["adam", "adagrad", "sgd"])
def test_an_overflow_is_a_skipped_step_with_half_the_scale(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "sgd":  # as an optimiser without a fused implementation
        monkeypatch.setattr("torch.optim.SGD.__init__", not_fused(torch.optim.SGD.__init__))
    made = module(STILL, optimizer={"kind": kind}, max_skipped_steps=1)
    before = torch.nn.utils.parameters_to_vector(made.parameters()).detach().clone()
    watch = trained(made, 30, half(OVERFLOWS))
    skipped = int(watch.figures[-1]["skipped_steps"])

    assert 3 < skipped < 30
    scales = [row["gradient_scale"] for row in watch.figures]
    assert scales == [OVERFLOWS / 2 ** min(step, skipped) for step in range(30)]
    for step in range(skipped):
        assert torch.equal(watch.weights[step], before)
        assert not watch.states[step].any(), "the state is that before the skipped step"
    assert not torch.equal(watch.weights[skipped], before)
    assert made.figures.known_skipped_in_a_row == 0
    assert all(weight.isfinite().all() for weight in watch.weights)
    norms = [row["gradient_norm"] for row in watch.figures]
    assert norms == pytest.approx(watch.norms, nan_ok=True), "callbacks see unscaled gradients"
    assert np.isfinite(norms).tolist() == [step >= skipped for step in range(30)]
    assert max(norms[skipped:]) < 100


def not_fused(real: Any) -> Any:
    def init(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options | {"fused": None})

    return init


@pytest.mark.parametrize("at", [2, 12, 13])
def test_a_resumed_training_in_float16_takes_the_same_steps(at: int, tmp_path: Path) -> None:
    """At step 2, steps are skipped; later, the scale grows after every third step."""
    options = {"growth_interval": 3}
    whole = trained(module(), 24, half(OVERFLOWS, **options), tmp_path)
    scales = [row["gradient_scale"] for row in whole.figures]
    assert whole.figures[1]["skipped_steps"] == 2
    assert any(later > scale for scale, later in pairwise(scales))

    rest = trained(module(), 24, half(**options), resume=tmp_path / f"{at}.ckpt")

    assert str(rest.figures) == str(whole.figures[at:]), (
        "nan is not equal to itself, but its name is"
    )
    assert torch.equal(rest.weights[-1], whole.weights[-1])


def test_a_checkpoint_of_another_precision_is_resumed_with_the_first_scale(tmp_path: Path) -> None:
    trained(module(), 2, [], tmp_path)
    there = trained(module(), 4, half(), tmp_path, tmp_path / "2.ckpt")
    back = trained(module(), 6, [], None, tmp_path / "4.ckpt")

    assert [row["gradient_scale"] for row in there.figures] == [2.0**16] * 2
    assert "gradient_scale" not in back.figures[0]


def test_accumulated_windows_and_passes_are_scaled_alike() -> None:
    made, parts = (module(STILL, accumulate_steps=2, row_passes=n) for n in (1, 2))
    one, two = (fit(m, 3, plugins=half()) for m in (made, parts))

    np.testing.assert_allclose(one, two, rtol=2e-3)
    norms = [float(m.figures.gradient_norm) for m in (made, parts)]
    assert norms[0] == pytest.approx(norms[1], rel=0.01)


def test_a_trainer_can_clip_each_value_of_unscaled_gradients() -> None:
    made = module(STILL, optimizer={"kind": "sgd"}, learning_rate=1.0)
    before = torch.nn.utils.parameters_to_vector(made.parameters()).detach().clone()
    fit(made, 1, plugins=half(), gradient_clip_val=0.001, gradient_clip_algorithm="value")

    moved = torch.nn.utils.parameters_to_vector(made.parameters()).detach() - before
    assert float(moved.abs().max()) == pytest.approx(0.001, rel=1e-3)


def test_a_scaler_that_is_disabled_stays_so() -> None:
    made = module(STILL)
    watch = trained(made, 1, half(enabled=False))

    assert "gradient_scale" not in watch.figures[0]
    assert 0 < watch.figures[0]["gradient_norm"] < 100


@pytest.mark.parametrize("kind", FUSED)
def test_no_step_reads_from_the_device(kind: type[torch.optim.Optimizer]) -> None:
    """Fake tensors have no values, so that reading one raises an exception."""
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = kind([weight], lr=0.1, fused=True)  # type: ignore[call-arg]
        scaler = GradientScaler("cpu")
        for _ in range(2):
            scaler.scale(weight.sum()).backward()
            scaler.unscale_(optimizer)
            skip_if(~torch.nn.utils.get_total_norm([weight.grad]).isfinite(), optimizer)
            scaler.step(optimizer)
            end_skip(optimizer)
            scaler.update()


RANKS = """
import torch.nn as nn
from lightning_modules.training.gradient_scale import GradientScaler
from lightning_modules.training.optimizers import clip_gradients, end_skip, skip_if
from lightning_modules.training.ranks.ordered_sum import ordered_mean
from lightning_modules.training.step_figures import StepFigures
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

def compressed(state, bucket):  # under its own name, torch refuses it on CPUs
    return bf16_compress_hook(state, bucket)

for hook, sent in ((None, None), (ordered_mean, torch.bfloat16), (compressed, None)):
    torch.manual_seed(1)
    model = DistributedDataParallel(nn.Linear(4, 4))
    if hook:
        model.register_comm_hook(sent, hook)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    scaler, figures = GradientScaler("cpu"), StepFigures(1)
    for step in range(6):
        before = model.module.weight.detach().clone()
        optimizer.zero_grad()
        # In step 2, the gradient of the last rank alone exceeds float16.
        factor = 10.0 if step == 2 and rank == world - 1 else 1e-3
        with torch.autocast("cpu", torch.float16):
            loss = model(torch.full((2, 4), factor)).float().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = clip_gradients(list(model.parameters()), 1.0)
        is_skipped = figures.count_gradient(norm, scaler.scale(torch.ones(())))
        skip_if(is_skipped, optimizer)
        scaler.step(optimizer)
        end_skip(optimizer)
        scaler.update()
        assert bool(is_skipped) is (step == 2)
        assert torch.equal(before, model.module.weight) is (step == 2)
        assert scaler.get_scale() == 2.0 ** (15 if step >= 2 else 16)
        others = [torch.empty(4, 4) for _ in range(world)]
        dist.all_gather(others, model.module.weight.detach())
        assert all(torch.equal(other, others[0]) for other in others)
    assert figures.to_save() == {"skipped": 1, "skipped_in_a_row": 0, "skipped_unscaled": 0}
dist.destroy_process_group()
"""


def test_two_ranks_skip_a_step_that_overflows_on_one_of_them(together: Together) -> None:
    assert together(RANKS, 2) == [(0, "")] * 2

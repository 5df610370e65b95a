"""The update of weights in shared memory by several processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.training.config import TrainConfig
from lightning_modules.training.update import Update

Together = Callable[[str, int], list[tuple[int, str]]]  # of conftest.py
SHAPES = [(7,), (3, 5), (1,), (3, 30_000)]
CLIP = 424
STEPS, PASSES = 6, 2
OPTIMIZERS: list[dict[str, Any]] = [
    {"kind": "adam"},
    {"kind": "adamw", "weight_decay": 0.1},
    {"kind": "adagrad"},
    {"kind": "sgd", "momentum": 0.5},
    {"kind": "sgd"},
]

SETTING = """
from lightning_modules.training.shared_update import SharedUpdate
from lightning_modules.training.config import TrainConfig
from tests.lightning_modules.training.test_shared_update import (
    CLIP, OPTIMIZERS, PASSES, STEPS, drawn, weights_at_first
)

def update_of(optimizer, weights):
    return SharedUpdate(TrainConfig.model_validate({"optimizer": optimizer}), weights)

def backward(gradients):
    # The gradient of each weight is what it is multiplied with.
    sum((w * g).sum() for w, g in zip(weights, gradients)).backward()

def hand_in(step):
    for number in range(PASSES - 1):
        backward(drawn(step, number, rank, world))
    with update.averaged():
        backward(drawn(step, PASSES - 1, rank, world))

weights = weights_at_first()
"""
TRAINING = """
start = torch.load(folder / "start.pt") if (folder / "start.pt").exists() else None
found = []
for number, optimizer in enumerate(OPTIMIZERS):
    saved = start[number][2] if start else None  # after three steps
    weights, first = weights_at_first(), 0
    if saved:
        first = saved["step"]
        for weight, value in zip(weights, saved["weights"]):
            weight.data = value
    update = update_of(optimizer, weights)
    if saved:
        update.load_state_dict(saved["optimizer"])
    steps = []
    for step in range(first, STEPS):
        hand_in(step)
        norm = update.norm()
        update.step(0.1, norm / CLIP)
        own = {"step": step + 1, "norm": norm, "weights": [w.data.clone() for w in weights]}
        steps.append({**own, "optimizer": copy.deepcopy(update.state_dict())})
    found.append(steps)
torch.save(found, folder / f"{rank}.pt")
dist.destroy_process_group()
"""
OWN = """
update = update_of({"kind": "sgd"}, weights)
"""
LOST = """
hand_in(0)
if rank:
    os._exit(1)
hand_in(1)
"""
NOT_FINITE = """
with update.averaged():
    backward([1, 1, 1, float("inf") if rank else 1])
print(update.norm(), file=sys.stderr)
"""
SHARED = """
if rank == 0:
    weights[0].data[1] = 42.0
dist.barrier()
assert weights[0][1] == 42.0
dist.barrier()
assert weights[0].grad is None
hand_in(0)
assert weights[0].grad is None
dist.destroy_process_group()
"""
WITHOUT_GRADIENT = """
with update.averaged():
    weights[0].sum().backward()
"""


def weights_at_first() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]


def drawn(step: int, number: int, rank: int, world: int) -> list[Tensor]:
    """Return gradients of a rank for a backward pass; their mean does not depend on ``world``."""
    draw = torch.Generator().manual_seed(10 * step + number)
    scale = (step + 1) / 3 * 2 * (rank + 1) / (world + 1)
    return [torch.randn(shape, generator=draw) * scale for shape in SHAPES]


def by_one_process(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Return the result of the same training in one process."""
    train, weights = TrainConfig.model_validate({"optimizer": optimizer}), weights_at_first()
    update = Update(train, weights)
    for step in range(STEPS):
        passes = [drawn(step, number, 0, 1) for number in range(PASSES)]
        for weight, *parts in zip(weights, *passes, strict=True):
            weight.grad = torch.stack(parts).sum(0)
        norm = update.norm()
        update.step(0.1, norm / CLIP)
    values = [weight.detach() for weight in weights]
    return {"step": STEPS, "norm": norm, "weights": values, "optimizer": update.state_dict()}


def assert_near(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
    for key in ("norm", "weights"):
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-5)
    states = (one["optimizer"]["state"] for one in (ours, theirs))
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-5)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_take_the_same_steps_as_one(
    together: Together, tmp_path: Path, world: int
) -> None:
    # With four processes, one has no part, because there are too few blocks.
    assert together(SETTING + TRAINING, world) == [(0, "")] * world

    of_ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    for optimizer, *trainings in zip(OPTIMIZERS, *of_ranks, strict=True):
        assert {step["norm"] > CLIP for step in trainings[0]} == {True, False}, "some are clipped"
        assert_near(trainings[0][-1], by_one_process(optimizer))
        for other in trainings[1:]:
            theirs, whole = other[-1].pop("optimizer"), trainings[0][-1]["optimizer"]
            assert theirs["param_groups"] == whole["param_groups"]
            tensors = [t for part in theirs["state"].values() for t in part.values()]
            assert {tensor.dim() for tensor in tensors} <= {0}, "held twice"
            assert_same(other[-1], {key: trainings[0][-1][key] for key in other[-1]})


@pytest.mark.slow
def test_a_resumed_training_takes_the_same_steps_and_with_other_processes_nearly(
    together: Together, tmp_path: Path
) -> None:
    found = []
    for world in (2, 2, 3):
        assert together(SETTING + TRAINING, world) == [(0, "")] * world
        found.append(torch.load(tmp_path / "0.pt"))
        if len(found) == 1:
            torch.save(found[0], tmp_path / "start.pt")

    for undisturbed, again, of_three in zip(*found, strict=True):
        assert (len(undisturbed), len(again)) == (STEPS, STEPS - 3)
        assert_same(again[-1], undisturbed[-1])
        assert_near(of_three[-1], undisturbed[-1])


def test_weights_are_shared_by_all_processes_and_leave_no_file(
    together: Together, tmp_path: Path
) -> None:
    before = {*Path("/dev/shm").glob("*")}
    assert together(SETTING + OWN + SHARED, 2) == [(0, "")] * 2

    assert not list(tmp_path.glob("biloom-*"))
    assert {*Path("/dev/shm").glob("biloom*")} <= before


def test_without_memfd_a_temporary_file_is_shared(together: Together, tmp_path: Path) -> None:
    without = 'vars(os).pop("memfd_create", None)\n'
    assert together(without + SETTING + OWN + SHARED, 2) == [(0, "")] * 2

    assert not list(tmp_path.glob("biloom-*"))


def test_a_gradient_that_is_not_finite_shows_in_all_processes(together: Together) -> None:
    found = together(SETTING + OWN + NOT_FINITE, 2)

    assert [words.split()[0] for _, words in found] == ["inf", "inf"]


def test_a_weight_without_a_gradient_does_not_get_an_earlier_one(together: Together) -> None:
    found = together(SETTING + OWN + WITHOUT_GRADIENT, 2)

    for code, words in found:
        assert code == 1
        assert "AssertionError: a weight without a gradient" in words


def test_waiting_for_a_lost_process_fails(together: Together) -> None:
    (code, words), _ = together(SETTING + OWN + LOST, 2)

    assert code == 1
    assert "DistNetworkError" in words

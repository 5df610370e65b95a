"""The best held-out evaluation: its weights, when patience has run out, and when a model overfits."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.config import ModelConfig
from lightning_modules.models.checkpoint_file import read_checkpoint
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.optimizers import WeightAverage
from lightning_modules.training.weights.best import (
    BestCheckpoint,
    Patience,
    evaluations_since_best,
    is_last_step,
    overfits,
    patience_ran_out,
    remove_unneeded,
)
from preprocess.work.folder import best_file, best_steps, checkpoint_file, checkpoint_steps


@pytest.mark.parametrize(
    ("losses", "since"),
    [
        ([], 0),
        ([3.0], 0),
        ([3.0, 2.0], 0),
        ([3.0, 2.0, 2.0], 1),  # equal is no improvement
        ([3.0, 2.0, 2.5, 2.4], 2),  # better than the last, not than the best
        ([3.0, 2.0, 2.5, 1.9], 0),
        ([3.0, math.nan, 2.5], 0),
        ([3.0, math.nan, math.nan], 2),
        ([math.nan, math.inf, 2.0, math.nan], 1),
    ],
)
def test_evaluations_since_the_best_are_counted(losses: list[float], since: int) -> None:
    assert evaluations_since_best(losses) == since
    assert not patience_ran_out(losses, None)
    assert not patience_ran_out(losses, since + 1)
    assert patience_ran_out(losses, since) or not since


def test_a_training_ends_at_its_steps_or_when_patience_runs_out() -> None:
    train = TrainConfig(steps=10, patience=2)
    assert is_last_step(train, 10, [])
    assert not is_last_step(train, 9, [1.0, 2.0])
    assert is_last_step(train, 9, [1.0, 2.0, 2.0])
    assert not is_last_step(train.model_copy(update={"patience": None}), 9, [1.0, 2.0, 2.0])


HELD_OUT = [(10, 5.0), (20, 4.0), (30, 4.1), (40, 4.2), (50, 4.3)]
FALLING = [(step, 5.0 - step / 100) for step in range(1, 51)]


@pytest.mark.parametrize(
    ("held_out", "training", "expected"),
    [
        (HELD_OUT, FALLING, True),
        (HELD_OUT[1:], FALLING, True),  # from the first evaluation on
        (HELD_OUT[:-1], FALLING, False),  # too few
        ([*HELD_OUT[:-1], (50, 4.2)], FALLING, False),  # equal
        ([*HELD_OUT[:-1], (50, math.nan)], FALLING, False),
        (HELD_OUT, [(step, -loss) for step, loss in FALLING], False),  # both rise: it diverges
        (HELD_OUT, [], False),
    ],
)
def test_a_model_overfits_if_held_out_loss_rises_and_training_loss_falls(
    held_out: list[tuple[int, float]], training: list[tuple[int, float]], expected: bool
) -> None:
    assert overfits(held_out, training) is expected


# The weights


@pytest.fixture
def module() -> LitBiLM:
    recurrent = {"kind": "lstm", "hidden": 4, "layers": 1}
    return LitBiLM(
        ModelConfig.model_validate({"recurrent": recurrent}), TrainConfig(patience=2), 30
    )


def trainer(is_global_zero: bool = True) -> Any:
    return SimpleNamespace(is_global_zero=is_global_zero, should_stop=False)


def started(
    folder: Path, module: LitBiLM, step: int, told: list[str] | None = None
) -> BestCheckpoint:
    best = BestCheckpoint(str(folder), [].append if told is None else told.append)
    module.step = step
    best.on_train_start(trainer(), module)
    return best


def validate(best: BestCheckpoint, module: LitBiLM, step: int, loss: float) -> None:
    module.step = step
    module.held_out = {"loss": loss, "forward_perplexity": math.exp(loss)}
    best.on_validation_end(trainer(), module)


def two_files(folder: Path, module: LitBiLM) -> None:
    best = started(folder, module, 0)
    for step, loss in ((20, 3.0), (40, 2.0)):
        validate(best, module, step, loss)


def test_only_better_validations_are_written(tmp_path: Path, module: LitBiLM) -> None:
    best = started(tmp_path, module, 0)
    for step, loss in ((10, math.nan), (20, 3.0), (30, 3.0), (40, 2.0), (50, 2.5)):
        validate(best, module, step, loss)

    assert best_steps(str(tmp_path)) == [20, 40]
    assert checkpoint_steps(str(tmp_path)) == []
    assert (best.step, best.loss) == (40, 2.0)
    saved = read_checkpoint(best_file(str(tmp_path), 40))
    weights = saved.pop("state_dict")
    assert saved.pop("pytorch-lightning_version") == pl.__version__
    assert saved.pop("hyper_parameters")["vocabulary"] == 30
    assert saved == {
        "step": 40,
        "cutoffs": list(module.network.head.cutoffs),
        "held_out": {"loss": 2.0, "forward_perplexity": math.exp(2.0)},
    }
    expected = {f"network.{name}": w for name, w in module.network.state_dict().items()}
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], weight) for name, weight in expected.items())


def test_a_module_is_loaded_from_the_best_weights(tmp_path: Path, module: LitBiLM) -> None:
    with torch.no_grad():
        for weight in module.network.parameters():
            weight += 1
    two_files(tmp_path, module)

    loaded = LitBiLM.load_from_checkpoint(best_file(str(tmp_path), 40))

    assert loaded.step == 0, "it starts a new training"
    assert loaded.model_config == module.model_config
    expected = module.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[k]) for k, weight in loaded.state_dict().items())


def test_averaged_weights_are_written(tmp_path: Path, module: LitBiLM) -> None:
    module.average = WeightAverage([w + 1 for w in module.network.parameters()])
    validate(started(tmp_path, module, 0), module, 10, 3.0)
    weights = read_checkpoint(best_file(str(tmp_path), 10))["state_dict"]
    for name, weight in module.network.named_parameters():
        assert torch.equal(weights[f"network.{name}"], weight + 1)


def test_other_ranks_write_nothing(tmp_path: Path, module: LitBiLM) -> None:
    best = BestCheckpoint(str(tmp_path))
    module.step, module.held_out = 10, {"loss": 1.0}
    best.on_train_start(trainer(False), module)
    best.on_validation_end(trainer(False), module)
    assert best_steps(str(tmp_path)) == []


def test_a_resumed_training_knows_the_best_up_to_its_step(tmp_path: Path, module: LitBiLM) -> None:
    two_files(tmp_path, module)
    best = started(tmp_path, module, 30)
    assert (best.step, best.loss) == (20, 3.0)
    # A later one is of steps that are taken again.
    assert best_steps(str(tmp_path)) == [20]


def test_a_damaged_file_is_told_and_removed(tmp_path: Path, module: LitBiLM) -> None:
    two_files(tmp_path, module)
    Path(best_file(str(tmp_path), 40)).write_bytes(b"x")
    told: list[str] = []

    best = started(tmp_path, module, 50, told)

    assert (best.step, best.loss) == (20, 3.0)
    assert best_steps(str(tmp_path)) == [20]
    [line] = told
    assert line.startswith(f"{best_file(str(tmp_path), 40)} is damaged (")
    assert line.endswith("; the best step is now one of the other evaluations")


@pytest.mark.parametrize(
    ("best", "checkpoints", "kept"),
    [
        ([20, 40, 60], [50, 55], [40, 60]),
        ([20, 40, 60], [30, 70], [20, 60]),
        ([20, 40], [10, 15], [20, 40]),
        ([20, 40], [40], [40]),
        ([20, 40], [], [20, 40]),
    ],
)
def test_a_file_is_kept_while_a_checkpoint_needs_it(
    tmp_path: Path, best: list[int], checkpoints: list[int], kept: list[int]
) -> None:
    for step in best:
        Path(best_file(str(tmp_path), step)).touch()
    for step in checkpoints:
        Path(checkpoint_file(str(tmp_path), step)).touch()

    remove_unneeded(str(tmp_path))

    assert best_steps(str(tmp_path)) == kept


def test_patience_stops_the_trainer(module: LitBiLM) -> None:
    running = trainer()
    for loss, stops in ((2.0, False), (3.0, False), (2.0, True)):
        module.held_out_losses.append(loss)
        Patience().on_validation_end(running, module)
        assert running.should_stop is stops

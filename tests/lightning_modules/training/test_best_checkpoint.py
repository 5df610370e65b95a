"""The best weights of an unfinished training, kept as long as a checkpoint needs them."""

import math
from pathlib import Path

import pytest
import torch

from lightning_modules.models.checkpoint_file import read_checkpoint
from lightning_modules.training.best_checkpoint import BestCheckpoint, remove_unneeded
from preprocess.work.folder import best_file, best_steps, checkpoint_file, checkpoint_steps


def offer(best: BestCheckpoint, step: int, loss: float) -> None:
    weights = {"a.weight": torch.full((2, 3), loss)}
    best.offer(step, loss, {"forward_perplexity": math.exp(loss)}, (20, 50), weights)


def test_only_better_evaluations_are_written(tmp_path: Path) -> None:
    best = BestCheckpoint(str(tmp_path), 0)
    for step, loss in ((10, math.nan), (20, 3.0), (30, 3.0), (40, 2.0), (50, 2.5)):
        offer(best, step, loss)

    assert best_steps(str(tmp_path)) == [20, 40]
    assert checkpoint_steps(str(tmp_path)) == []
    assert (best.step, best.loss) == (40, 2.0)
    saved = read_checkpoint(best_file(str(tmp_path), 40))
    weights = saved.pop("state_dict")
    assert saved == {
        "step": 40,
        "cutoffs": [20, 50],
        "held_out": {"loss": 2.0, "forward_perplexity": math.exp(2.0)},
    }
    assert torch.equal(weights["network.a.weight"], torch.full((2, 3), 2.0))


def test_a_resumed_training_knows_the_best_up_to_its_step(tmp_path: Path) -> None:
    for step, loss in ((20, 3.0), (40, 2.0)):
        offer(BestCheckpoint(str(tmp_path), step - 1), step, loss)

    best = BestCheckpoint(str(tmp_path), 30)

    assert (best.step, best.loss) == (20, 3.0)
    # A later one is of steps that are taken again.
    assert best_steps(str(tmp_path)) == [20]


def test_a_damaged_file_is_told_and_removed(tmp_path: Path) -> None:
    for step, loss in ((20, 3.0), (40, 2.0)):
        offer(BestCheckpoint(str(tmp_path), step - 1), step, loss)
    Path(best_file(str(tmp_path), 40)).write_bytes(b"x")
    told: list[str] = []

    best = BestCheckpoint(str(tmp_path), 50, told.append)

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

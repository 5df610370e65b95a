"""Training of a head: the best epoch, early stopping, and resume after a kill."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import Dataset

from lightning_modules.tasks.epoch_batches import EpochBatches, loader_of
from lightning_modules.tasks.fitting import (
    SCORE,
    FitError,
    FitResult,
    FitSettings,
    fit,
)

ROOT = Path(__file__).parents[3]


class Points(Dataset[Any]):
    """Points of a plane, and on which side of a line they lie."""

    def __init__(self, count: int) -> None:
        draw = torch.Generator().manual_seed(count)
        self.x = torch.randn(count, 2, generator=draw)
        self.y = (self.x.sum(1) > 0).long()

    def __getitem__(self, indices: list[int]) -> Any:
        return self.x[indices], self.y[indices]


class Line(pl.LightningModule):
    """A small network with dropout.

    Args:
        scores: score of each epoch; none means the loss.
        rate: learning rate.
        fail_at: step that raises MemoryError.
        die_at: step that ends the process.
    """

    def __init__(
        self,
        scores: tuple[float, ...] = (),
        rate: float = 0.1,
        fail_at: int = -1,
        die_at: int = -1,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.scores, self.rate = scores, rate
        self.fail_at, self.die_at = fail_at, die_at
        self.seen: list[float] = []

    def training_step(self, batch: Any, index: int) -> Any:
        if self.global_step == self.die_at:
            os._exit(9)  # As kill -9: nothing is cleaned up.
        if self.global_step == self.fail_at:
            raise MemoryError
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self.seen.append(nn.functional.cross_entropy(self.net(batch[0]), batch[1]).item())

    def on_validation_epoch_end(self) -> None:
        score = -sum(self.seen)
        if self.scores:
            score = self.scores[self.current_epoch]
        self.seen = []
        self.log(SCORE, score)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), self.rate)


def train(folder: Path, line: Line | None = None, **changes: Any) -> FitResult:
    settings = FitSettings(**{"epochs": 5, "patience": 5, "seed": 3, "device": "cpu", **changes})
    data, dev = Points(40), Points(13)
    batches = EpochBatches([1] * 40, 8, settings.seed)
    loaders = loader_of(data, batches), loader_of(dev, EpochBatches([1] * 13, 8, None))
    return fit(line or Line(), *loaders, settings, folder)


def assert_same(first: FitResult, second: FitResult) -> None:
    assert first.history == second.history
    assert first.best_epoch == second.best_epoch
    assert first.stopped_early == second.stopped_early
    assert first.state.keys() == second.state.keys()
    for name, value in first.state.items():
        assert torch.equal(value, second.state[name])


def test_the_weights_of_the_best_epoch_are_returned(tmp_path: Path) -> None:
    result = train(tmp_path / "all", Line((0.1, 0.5, 0.2, 0.3, 0.4)))
    assert result.best_epoch == 2
    assert [round(figures[SCORE], 4) for figures in result.history] == [0.1, 0.5, 0.2, 0.3, 0.4]
    short = train(tmp_path / "short", Line((0.1, 0.5)), epochs=2)
    assert torch.equal(result.state["net.0.weight"], short.state["net.0.weight"])
    assert not result.stopped_early


def test_training_ends_early(tmp_path: Path) -> None:
    result = train(tmp_path, Line((0.1, 0.5, 0.2, 0.3, 0.4)), patience=2)
    assert len(result.history) == 4
    assert result.stopped_early
    # A finished training is not continued.
    assert_same(result, train(tmp_path, Line((0.1, 0.5, 0.2, 0.3, 0.4)), patience=2))


def test_results_depend_on_the_seed_only(tmp_path: Path) -> None:
    first = train(tmp_path / "1")
    torch.manual_seed(99)
    assert_same(first, train(tmp_path / "2"))
    assert first.history != train(tmp_path / "3", seed=4).history


def test_the_random_numbers_of_the_process_stay_as_they_are(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(tmp_path, Line())
    line = Line()
    torch.set_rng_state(before)
    train(tmp_path / "again", line)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("step", [3, 10, 17])
def test_a_failed_training_continues_with_the_same_result(tmp_path: Path, step: int) -> None:
    with pytest.raises(MemoryError):
        train(tmp_path / "failed", Line(fail_at=step))
    assert_same(train(tmp_path / "whole"), train(tmp_path / "failed"))


@pytest.mark.slow
def test_a_killed_training_continues_with_the_same_result(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from test_fitting import *; train(Path(sys.argv[2]), Line(die_at=12))"
    )
    here = str(Path(__file__).parent)
    killed = subprocess.run(
        [sys.executable, "-c", code, here, str(tmp_path / "killed")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert killed.returncode == 9
    assert_same(train(tmp_path / "whole"), train(tmp_path / "killed"))


def test_a_training_continues_after_its_folder_was_moved(tmp_path: Path) -> None:
    scores = (0.1, 0.9, 0.2, 0.3, 0.4)
    train(tmp_path / "old", Line(scores), epochs=3)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = train(tmp_path / "new", Line(scores))
    assert moved.best_epoch == 2
    assert_same(moved, train(tmp_path / "whole", Line(scores)))


def test_another_training_is_not_continued(tmp_path: Path) -> None:
    train(tmp_path, epochs=1, identity="one")
    with pytest.raises(FitError, match=r"other texts, labels or settings.*delete the folder"):
        train(tmp_path, identity="two")


def test_a_damaged_checkpoint_is_reported(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    (tmp_path / "last.ckpt").write_bytes((tmp_path / "last.ckpt").read_bytes()[:100])
    with pytest.raises(FitError, match=r"last.ckpt is damaged.*delete .* to train again"):
        train(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"epoch 1: the loss is (nan|inf).*lower learning rate"):
        train(tmp_path, Line(rate=1e30))


def test_an_interrupt_remains_an_interrupt(tmp_path: Path) -> None:
    class Stopped(KeyboardInterrupt):
        pass

    class Interrupted(Line):
        def training_step(self, batch: Any, index: int) -> Any:
            if self.global_step == 7:
                raise Stopped
            return super().training_step(batch, index)

    with pytest.raises(Stopped):
        train(tmp_path / "interrupted", Interrupted())
    assert_same(train(tmp_path / "whole"), train(tmp_path / "interrupted"))


def test_nothing_is_printed_or_left_in_the_current_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train(tmp_path / "work")
    assert not any((tmp_path / "here").iterdir())
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert capfd.readouterr() == ("", "")

"""When checkpoints are written and which one is read, without a Trainer."""

import math
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.config import ModelConfig
from lightning_modules.models.checkpoint_file import CheckpointError
from lightning_modules.models.checkpoint_writer import CheckpointWriter
from lightning_modules.training.checkpoints import (
    CheckpointFiles,
    Checkpoints,
    TrainingDiverged,
    newest_checkpoint,
    own_state,
)
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM
from lightning_modules.training.step_figures import StepFigures
from preprocess.files import storage
from preprocess.files.errors import StorageError, StoreError
from preprocess.work.folder import checkpoint_file


class Run:
    """A training that calls the callback at the end of each step, and after each validation."""

    def __init__(self, folder: Path | str, validates: bool = False, **train: Any) -> None:
        steps = train.pop("steps", 100)
        settings = TrainConfig.model_validate({"checkpoint_minutes": 60} | train)
        model = ModelConfig.model_validate(
            {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}
        )
        self.module = LitBiLM(model, settings, 30, (10,))
        self.told: list[int] = []
        self.warned: list[str] = []
        self.writer = CheckpointWriter()
        self.callback = Checkpoints(
            str(folder),
            settings,
            validates,
            self.writer,
            lambda: self.told.append(self.saving),
            self.warned.append,
        )
        self.evaluate_steps = settings.evaluate_steps if validates else 0
        self.trainer: Any = SimpleNamespace(
            is_global_zero=True,
            max_steps=steps,
            should_stop=False,
            save_checkpoint=self.save,
            optimizers=[],
        )
        self.callback.on_train_start(self.trainer, self.module)

    def save(self, path: str, weights_only: bool) -> None:
        if self.trainer.is_global_zero:  # as Lightning
            self.saving = self.module.step
            checkpoint = {"step": self.module.step, "tensor": torch.arange(3)}
            CheckpointFiles(write=self.callback.write).save_checkpoint(checkpoint, path)

    def __call__(self, steps: range, waits: bool = True) -> None:
        """Take steps, and wait until the checkpoints are complete unless told otherwise."""
        for step in steps:
            self.module.step = step
            self.callback.on_train_batch_end(self.trainer, self.module)
            if self.evaluate_steps and step % self.evaluate_steps == 0:
                self.writer.wait()
                self.told.append(-step)
                self.callback.on_validation_end(self.trainer, self.module)
            if waits:
                self.writer.wait()


def saved(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.ckpt"))


def skip(figures: StepFigures) -> None:
    figures.count_gradient(torch.tensor(float("nan")))


def test_checkpoints_are_saved_by_steps_and_at_the_last_one(tmp_path: Path) -> None:
    run = Run(tmp_path, checkpoint_steps=4, steps=10)
    run(range(1, 8))
    assert saved(tmp_path) == [4]
    run(range(8, 11))
    assert saved(tmp_path) == [8, 10], "the two newest are kept"
    assert run.told == [4, 8, 10], "`before` is called once before each checkpoint"


def test_a_checkpoint_is_saved_after_the_validation_of_its_step(tmp_path: Path) -> None:
    run = Run(tmp_path, validates=True, checkpoint_steps=2, evaluate_steps=4)
    run(range(1, 7))

    assert run.told == [2, -4, 4, 6], "the validation is below zero"
    assert saved(tmp_path) == [4, 6]


def test_a_validation_that_ends_the_training_is_saved(tmp_path: Path) -> None:
    run = Run(tmp_path, validates=True, checkpoint_steps=50, evaluate_steps=4)
    run(range(1, 8))
    assert saved(tmp_path) == []
    run.trainer.should_stop = True
    run(range(8, 9))
    assert saved(tmp_path) == [8]


def test_a_stop_waits_for_the_validation_of_its_step(tmp_path: Path) -> None:
    run = Run(tmp_path, validates=True, evaluate_steps=3)
    run(range(1, 3))
    run.callback.stop(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(range(3, 4))

    assert run.told == [-3, 3]


def test_checkpoints_are_saved_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("lightning_modules.training.checkpoints.time.monotonic", lambda: now)
    run = Run(tmp_path, checkpoint_steps=1000, checkpoint_minutes=2)
    for step in range(1, 31):
        now = step * 10.0
        run(range(step, step + 1))

    assert saved(tmp_path) == [13, 26]


def test_a_rank_other_than_0_writes_no_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path, checkpoint_steps=1)
    run.trainer.is_global_zero = False
    run(range(1, 3))

    assert saved(tmp_path) == []


def test_a_stop_saves_the_running_step_and_ends_training(tmp_path: Path) -> None:
    run = Run(tmp_path, checkpoint_steps=1000)
    run(range(1, 3))
    run.callback.stop(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(range(3, 4))

    assert saved(tmp_path) == [3]
    assert run.callback.stopped_by == signal.SIGTERM


def test_a_checkpoint_that_is_asked_for_is_saved_once_and_training_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path, checkpoint_steps=1000)
    run(range(1, 3))
    run.callback.save_soon()
    skip(run.module.figures)
    run(range(3, 4))
    assert saved(tmp_path) == [], "the last good checkpoint stays the newest"
    run.module.figures.count_gradient(torch.tensor(1.0))
    run(range(4, 7))

    assert saved(tmp_path) == [4]


def test_a_stop_in_the_last_step_lets_the_training_finish(tmp_path: Path) -> None:
    run = Run(tmp_path, checkpoint_steps=1000, steps=5)
    run.callback.stop(signal.SIGTERM)
    run(range(5, 6))

    assert saved(tmp_path) == [5]


def test_the_newest_readable_checkpoint_is_found(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert newest_checkpoint(folder) is None
    Run(tmp_path, checkpoint_steps=1)(range(9, 11))
    (tmp_path / ".biloom-tmp-host-1-step-000000099.ckpt").write_bytes(b"")
    newest = newest_checkpoint(folder)
    assert newest is not None
    assert newest["step"] == 10

    path = Path(checkpoint_file(folder, 10))
    path.write_bytes(path.read_bytes()[:300])
    told: list[str] = []
    before = newest_checkpoint(folder, told.append)
    assert before is not None
    assert before["step"] == 9
    assert len(told) == 1
    assert re.fullmatch(
        r".*/step-000000010\.ckpt is damaged \(.*\); training resumes from the checkpoint of step 9",
        told[0],
    )

    Path(checkpoint_file(folder, 9)).write_bytes(b"")
    with pytest.raises(
        CheckpointError,
        match=r"^all checkpoints are damaged: .*10\.ckpt.*9\.ckpt is damaged .*from a backup",
    ):
        newest_checkpoint(folder)


def test_an_error_of_the_store_does_not_count_as_a_damaged_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(tmp_path, checkpoint_steps=1)(range(9, 11))

    def silent(path: str) -> None:
        raise StoreError(f"{path}: the store gave an error")

    monkeypatch.setattr("lightning_modules.models.checkpoint_file.storage.open_read", silent)
    with pytest.raises(StoreError, match="gave an error"):
        newest_checkpoint(str(tmp_path))


def test_damaged_checkpoints_of_later_steps_are_deleted_once_training_has_resumed(
    tmp_path: Path,
) -> None:
    for step in (30, 40):
        (tmp_path / f"step-{step:09d}.ckpt").write_bytes(b"half")
    run = Run(tmp_path, checkpoint_steps=5)
    run(range(5, 6))
    assert saved(tmp_path) == [5]
    run(range(10, 11))
    run(range(15, 16))

    assert saved(tmp_path) == [10, 15]


def test_checkpoints_are_written_and_read_at_a_url() -> None:
    Run("memory://checkpoints", checkpoint_steps=1)(range(3, 4))
    newest = newest_checkpoint("memory://checkpoints")

    assert newest is not None
    assert newest["tensor"].tolist() == [0, 1, 2]


def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


NO_SPACE = r"No space left on device\); free some space and run"


def test_a_full_disk_leaves_the_previous_checkpoint_and_fails_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, checkpoint_steps=1, steps=4)
    run(range(1, 2))
    monkeypatch.setattr("preprocess.files.storage.sync_data", full)
    run(range(2, 3), waits=False)
    assert not run.writer.is_busy(10)
    with pytest.raises(StorageError, match=NO_SPACE):
        run(range(3, 4))
    with pytest.raises(StorageError, match=NO_SPACE):
        run(range(4, 5), waits=False)  # the last step waits itself

    assert saved(tmp_path) == [1]
    assert storage.list_names(str(tmp_path)) == ["step-000000001.ckpt"], (
        "no partial checkpoint is left"
    )
    newest = newest_checkpoint(str(tmp_path))
    assert newest is not None
    assert newest["step"] == 1


def test_a_full_disk_is_told_if_another_error_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, checkpoint_steps=1)
    monkeypatch.setattr("preprocess.files.storage.sync_data", full)
    run(range(1, 2), waits=False)
    run.callback.on_exception(run.trainer, run.module, OSError("the machine is gone"))
    assert len(run.warned) == 1
    assert re.search(NO_SPACE, run.warned[0])


class SlowDisk:
    """Lets each flush of a file wait until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.most = self.now = 0

    def flush(self, *_: Any) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.waiting.release()
        assert self.released.wait(20)
        self.now -= 1


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    monkeypatch.setattr("preprocess.files.storage.sync_data", disk.flush)
    monkeypatch.setattr("lightning_modules.training.checkpoints.PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr("lightning_modules.training.checkpoints.SLOW_SECONDS", 0.05)
    yield disk
    disk.released.set()


def test_training_goes_on_beside_a_slow_disk_with_one_checkpoint_at_a_time(
    tmp_path: Path, slow: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, checkpoint_steps=2)
    waited: list[float] = []
    is_busy = run.writer.is_busy

    def busy(patience: float = 0.0) -> bool:
        waited.append(patience)
        return is_busy(patience)

    monkeypatch.setattr(run.writer, "is_busy", busy)
    run(range(1, 30), waits=False)
    assert sum(waited) <= 0.05, "not at each step"
    assert slow.waiting.acquire(timeout=10)
    assert not slow.waiting.acquire(timeout=0.05), "the others are put off, not queued"
    assert saved(tmp_path) == []
    run(range(30, 34), waits=False)
    assert len(run.warned) == 1, "told once"
    assert re.fullmatch(
        rf"{tmp_path}/step-000000002\.ckpt: writing this checkpoint of 0\.0 MB has taken 0 s so far, and the "
        r"next one is due\. It is put off until this one is complete; training continues\. Raise "
        r"train\.checkpoint_minutes and train\.checkpoint_steps, or choose a faster disk or store for "
        r"run\.output",
        run.warned[0],
    )
    slow.released.set()
    run.writer.wait()
    run(range(35, 36))

    assert saved(tmp_path) == [2, 35], "as soon as the disk is free"
    assert slow.most == 1
    assert run.told == [2, 35]


def test_the_last_step_and_a_stop_wait_for_a_slow_disk(tmp_path: Path, slow: SlowDisk) -> None:
    run = Run(tmp_path, checkpoint_steps=2)
    run(range(1, 4), waits=False)
    threading.Timer(0.05, slow.released.set).start()
    run.callback.stop(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(range(4, 5), waits=False)

    assert saved(tmp_path) == [2, 4]


def test_an_interrupt_does_not_wait_for_a_slow_disk(
    tmp_path: Path, slow: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_modules.models.checkpoint_writer.ABANDON_SECONDS", 0.01)
    run = Run(tmp_path, checkpoint_steps=1)
    run(range(1, 2), waits=False)
    assert slow.waiting.acquire(timeout=10)
    run.callback.on_exception(run.trainer, run.module, KeyboardInterrupt())

    assert run.writer.is_busy()
    assert saved(tmp_path) == []


def test_a_restored_state_does_not_keep_its_file() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight])
    weight.grad = torch.ones(3)
    optimizer.step()
    before = {name: value.data_ptr() for name, value in optimizer.state[weight].items()}
    own_state([optimizer])

    assert before.keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert all(value.data_ptr() != before[k] for k, value in optimizer.state[weight].items())


def test_diverged_training_fails_and_names_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, checkpoint_steps=2, max_skipped_steps=3)
    run(range(1, 3))
    for step in (3, 4):
        skip(run.module.figures)
        run(range(step, step + 1))
    assert saved(tmp_path) == [2], "no checkpoint is written while steps are skipped"
    skip(run.module.figures)
    with pytest.raises(TrainingDiverged) as told:
        run(range(5, 6))

    assert str(told.value).startswith(
        "step 5: the gradient was not finite 3 times in a row; the last good checkpoint is "
        f"{tmp_path}/step-000000002.ckpt. The same command resumes from there. To train again"
    )


def test_an_overflow_in_float16_is_no_divergence_until_the_scale_has_fallen_to_1(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, checkpoint_steps=2, max_skipped_steps=2)
    scales = [2.0**power for power in range(16, -2, -1)]
    for step, scale in enumerate(scales, 1):
        run.module.figures.count_gradient(torch.tensor(math.inf), torch.tensor(scale))
        if scale > 0.5:
            run(range(step, step + 1))
    with pytest.raises(TrainingDiverged, match="step 18: the gradient was not finite 2 times"):
        run(range(18, 19))


def test_a_number_of_skipped_steps_that_is_known_late_is_the_one_in_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StepFigures, "known_skipped_in_a_row", 3)
    run = Run(tmp_path, checkpoint_steps=2, max_skipped_steps=3)
    with pytest.raises(TrainingDiverged, match="the gradient was not finite 3 times"):
        run(range(1, 2))

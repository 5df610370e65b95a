"""Checkpoints and metrics, apart from Lightning's loop (which tests of the train stage run)."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.callbacks import (
    Checkpoints,
    Metrics,
    StorageCheckpointIO,
    checkpoint_path,
    newest_checkpoint,
    read_lines,
)
from lightning_modules.config import ModelConfig, TrainConfig
from lightning_modules.lit_bilm import LitBiLM


class Bar:
    def __init__(self) -> None:
        self.told: list[tuple[float, str]] = []

    def update(self, done: float, note: str = "") -> None:
        self.told.append((done, note))


class Trainer(SimpleNamespace):
    """What the callbacks ask of a trainer."""

    def save_checkpoint(self, path: str) -> None:
        StorageCheckpointIO().save_checkpoint({"global_step": self.global_step}, path)


def run(callback: Checkpoints, steps: range, maximum: int = 100) -> None:
    for step in steps:
        callback.on_train_batch_end(Trainer(global_step=step, max_steps=maximum))  # type: ignore[arg-type]


def saved(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.ckpt"))


def test_checkpoints_are_saved_by_steps_and_at_the_last_one(tmp_path: Path) -> None:
    callback = Checkpoints(str(tmp_path), steps=4, minutes=60)
    run(callback, range(1, 8), maximum=10)
    assert saved(tmp_path) == [4]
    run(callback, range(8, 11), maximum=10)
    assert saved(tmp_path) == [8, 10]


def test_checkpoints_are_saved_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("lightning_modules.callbacks.time.monotonic", lambda: now)
    callback = Checkpoints(str(tmp_path), steps=1000, minutes=2)
    for step in range(1, 31):
        now = step * 10.0
        run(callback, range(step, step + 1))

    assert saved(tmp_path) == [13, 26]


def test_a_stop_saves_the_running_step_and_ends_training(tmp_path: Path) -> None:
    callback = Checkpoints(str(tmp_path), steps=1000, minutes=60)
    run(callback, range(1, 3))
    callback.stop()
    with pytest.raises(KeyboardInterrupt):
        run(callback, range(3, 4))

    assert saved(tmp_path) == [3]


def test_a_stop_in_the_last_step_lets_training_be_finished(tmp_path: Path) -> None:
    callback = Checkpoints(str(tmp_path), steps=1000, minutes=60)
    callback.stop()
    run(callback, range(5, 6), maximum=5)

    assert saved(tmp_path) == [5]


def test_the_newest_checkpoint_is_the_last_that_can_be_read(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert newest_checkpoint(folder) is None
    for step in (9, 10):
        StorageCheckpointIO().save_checkpoint({"global_step": step}, checkpoint_path(folder, step))
    (tmp_path / ".biloom-tmp-host-1-step-000000099.ckpt").write_bytes(b"")
    assert newest_checkpoint(folder) == (checkpoint_path(folder, 10), 10)

    Path(checkpoint_path(folder, 10)).write_bytes(b"half")
    assert newest_checkpoint(folder) == (checkpoint_path(folder, 9), 9)

    Path(checkpoint_path(folder, 9)).write_bytes(b"")
    assert newest_checkpoint(folder) is None


def test_checkpoints_are_written_and_read_at_a_url() -> None:
    files, path = StorageCheckpointIO(), "memory://callbacks/one.ckpt"
    files.save_checkpoint({"global_step": 3, "tensor": torch.arange(3)}, path)
    assert files.load_checkpoint(path)["tensor"].tolist() == [0, 1, 2]

    files.remove_checkpoint(path)
    assert newest_checkpoint("memory://callbacks") is None


def metrics(path: Path, look: Any = None) -> tuple[Metrics, Bar]:
    bar = Bar()
    return Metrics(str(path), 2, 15, bar, look, 3), bar


def module() -> LitBiLM:
    model = ModelConfig.model_validate({"recurrent": {"hidden": 8, "projection": 4}})
    made = LitBiLM(model, TrainConfig(), 30, (10,))
    made.losses, made.gradient_norm = torch.tensor([2.0, 1.0]), torch.tensor(0.5)
    made.learning_rate = 0.25
    return made


class Logger:
    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, Any], int]] = []

    def log_metrics(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((row, step))


def train(callback: Metrics, steps: range, maximum: int) -> Logger:
    logger, made = Logger(), module()
    trainer = Trainer(global_step=steps.start - 1, max_steps=maximum, loggers=[logger])
    callback.on_train_start(trainer, made)  # type: ignore[arg-type]
    for step in steps:
        trainer.global_step = step
        callback.on_train_batch_end(trainer, made)  # type: ignore[arg-type]
    callback.on_train_end()
    return logger


def test_a_line_is_written_every_log_steps_and_at_the_end(tmp_path: Path) -> None:
    callback, bar = metrics(tmp_path / "metrics.jsonl")
    logger = train(callback, range(1, 8), maximum=7)

    rows = [json.loads(line) for line in read_lines(str(tmp_path / "metrics.jsonl"))]
    assert [row["step"] for row in rows] == [2, 4, 6, 7]
    del rows[0]["tokens_per_second"]
    assert rows[0] == {
        "step": 2,
        "loss_forward": 2.0,
        "loss_backward": 1.0,
        "learning_rate": 0.25,
        "gradient_norm": 0.5,
    }
    assert [step for _, step in logger.rows] == [2, 4, 6, 7]
    assert "step" not in logger.rows[0][0]
    # exp of the mean of both losses
    assert bar.told[-1][0] == 7
    assert bar.told[-1][1].endswith(" tokens/s  perplexity 4.5")


def test_lines_after_the_step_that_training_goes_on_from_are_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    train(metrics(path)[0], range(1, 9), maximum=99)
    kept = read_lines(str(path))[:2]
    train(metrics(path)[0], range(5, 8), maximum=7)

    lines = read_lines(str(path))
    assert lines[:2] == kept
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6, 7]


def test_held_out_text_is_looked_at_every_look_steps_and_at_the_end(tmp_path: Path) -> None:
    def look() -> Any:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, 30, (2, 5, 2), generator=generator).numpy()
        return [(ids, ids)], {"documents": 0, "tokens": 10, "words": 10, "text_bytes": 40}

    callback, bar = metrics(tmp_path / "metrics.jsonl", look)
    train(callback, range(1, 8), maximum=7)

    rows = [json.loads(line) for line in read_lines(str(tmp_path / "metrics.jsonl"))]
    assert [row["step"] for row in rows if "valid_bits_per_byte" in row] == [3, 6, 7]
    assert [row["step"] for row in rows if "loss_forward" in row] == [2, 4, 6, 7]
    assert "(held out " in bar.told[-1][1]


def test_lines_are_on_the_disk_with_every_checkpoint(tmp_path: Path) -> None:
    callback, _ = metrics(tmp_path / "metrics.jsonl")
    trainer = Trainer(global_step=0, max_steps=9, loggers=[])
    callback.on_train_start(trainer, module())  # type: ignore[arg-type]
    trainer.global_step = 2
    callback.on_train_batch_end(trainer, module())  # type: ignore[arg-type]
    assert read_lines(str(tmp_path / "metrics.jsonl")) == []

    callback.on_save_checkpoint()
    assert len(read_lines(str(tmp_path / "metrics.jsonl"))) == 1

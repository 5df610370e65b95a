"""The metrics callback without a Trainer; tests of the train stage run it with one."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.config import ModelConfig
from lightning_modules.training.callbacks import Compute, Metrics
from lightning_modules.training.config import TrainConfig
from lightning_modules.training.lit_bilm import LitBiLM


class Bar:
    def __init__(self) -> None:
        self.told: list[tuple[float, str]] = []

    def update(self, done: float, note: str = "") -> None:
        self.told.append((done, note))


class Logger:
    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, Any], int]] = []

    def log_metrics(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((row, step))


class Run:
    """A training with constant figures that calls the callback at the end of each step."""

    def __init__(self, path: Path, start: int, evaluate: Any = None, **train: Any) -> None:
        settings = {"rows": 3, "unroll": 5, "log_steps": 2, "evaluate_steps": 3} | train
        model = ModelConfig.model_validate(
            {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}
        )
        self.module = LitBiLM(model, TrainConfig.model_validate(settings), 30, (10,))
        self.module.losses, self.module.gradient_norm = torch.tensor([2.0, 1.0]), 0.5
        self.module.learning_rate, self.module.skipped = 0.25, 1
        self.module.step = start
        self.bar, self.logger = Bar(), Logger()
        self.loader: Any = SimpleNamespace(waited=0.0)
        self.trainer: Any = SimpleNamespace(is_global_zero=True, loggers=[self.logger])
        self.callback = Metrics(str(path), self.bar, self.loader, Compute(1e6, 1e9), evaluate)
        self.callback.on_train_start(self.trainer, self.module)

    def __call__(self, steps: range) -> "Run":
        for step in steps:
            self.module.step = step
            self.callback.on_train_batch_end(self.trainer, self.module)
        self.callback.on_train_end()
        return self


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_written_every_log_steps_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("lightning_modules.training.callbacks.time.monotonic", lambda: next(clock))
    run = Run(tmp_path / "metrics.jsonl", 0, steps=7)
    run.loader.waited = 0.25
    run(range(1, 8))

    made = rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in made] == [2, 4, 6, 7]
    assert made[0] == {
        "step": 2,
        "loss_forward": 2.0,
        "perplexity_forward": math.exp(2),
        "loss_backward": 1.0,
        "perplexity_backward": math.exp(1),
        "learning_rate": 0.25,
        "gradient_norm": 0.5,
        "skipped_steps": 1,
        # two steps of 3 x 5 tokens in one second of the fake clock
        "tokens_per_second": 30.0,
        # 30 tokens/s x 1e6 FLOP a token / 1e9 FLOP/s
        "mfu": 0.03,
        "data_wait": 0.25,
    }
    assert made[1]["data_wait"] == 0, "only what was waited since the last line"
    assert [step for _, step in run.logger.rows] == [1, 3, 5, 6], "as Lightning counts"
    assert "step" not in run.logger.rows[0][0]
    assert run.bar.told[0] == (0, ""), "the bar begins where training does"
    # exp of the mean of both losses
    assert run.bar.told[-1][0] == 7
    assert run.bar.told[-1][1].endswith(" tokens/s  perplexity 4.5")


def test_the_bar_of_a_resumed_training_begins_at_its_step(tmp_path: Path) -> None:
    run = Run(tmp_path / "metrics.jsonl", 40, steps=50)(range(41, 43))

    assert [done for done, _ in run.bar.told] == [40, 42]


def test_a_resumed_training_rewrites_the_lines_after_its_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Run(path, 0, steps=99)(range(1, 9))
    kept = rows(path)[:2]
    Run(path, 4, steps=7)(range(5, 8))

    assert rows(path)[:2] == kept
    assert [row["step"] for row in rows(path)] == [2, 4, 6, 7]


def test_the_held_out_split_is_evaluated_every_evaluate_steps_and_at_the_end(
    tmp_path: Path,
) -> None:
    def evaluate(network: Any) -> dict[str, Any]:
        return {"nats": 1.5, "average_perplexity": 4.0, "bits_per_byte": None}

    run = Run(tmp_path / "metrics.jsonl", 0, evaluate, steps=7)(range(1, 8))

    made = rows(tmp_path / "metrics.jsonl")
    evaluations = [row for row in made if "valid_bits_per_byte" in row]
    assert [row["step"] for row in evaluations] == [3, 6, 7]
    assert evaluations[0] == {
        "step": 3,
        "valid_average_perplexity": 4.0,
        "valid_bits_per_byte": None,
        "averaged": False,
    }
    assert [row["step"] for row in made if "loss_forward" in row] == [2, 4, 6, 7]
    assert run.module.held_out_losses == [1.5] * 2, "a longer training has no evaluation at step 7"
    assert "(held-out 4.0)" in run.bar.told[-1][1]


def test_a_forward_model_shows_its_own_perplexity(tmp_path: Path) -> None:
    def evaluate(network: Any) -> dict[str, Any]:
        return {"nats": 1.0, "forward_perplexity": 9.0, "average_perplexity": None}

    run = Run(tmp_path / "metrics.jsonl", 0, evaluate, steps=3)(range(1, 5))

    assert run.bar.told[-1][1].endswith("(held-out 9.0)")


def test_ranks_other_than_0_write_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "metrics.jsonl", 0, steps=4)
    (tmp_path / "metrics.jsonl").unlink()
    run.trainer.is_global_zero = False
    run.callback._file = None
    run(range(1, 5))

    assert not (tmp_path / "metrics.jsonl").exists()
    assert run.logger.rows == []

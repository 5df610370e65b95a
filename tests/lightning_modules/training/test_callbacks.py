"""The metrics callback without a Trainer; tests of the train stage run it with one."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.training.callbacks import Compute, Metrics
from lightning_modules.training.datamodule import TokenShardDataModule
from lightning_modules.training.lit_bilm import LitBiLM


class Bar:
    def __init__(self) -> None:
        self.told: list[tuple[float, str]] = []

    def update(self, done: float, note: str = "", figures: Any = None) -> None:
        self.told.append((done, note))


class Data(TokenShardDataModule):
    """A data module that has waited for no batch."""

    def __init__(self) -> None:
        self.loader: Any = SimpleNamespace(waited=0.0)


class Module(LitBiLM):
    """A module that keeps what it logs."""

    def log_dict(self, metrics: Any, *arguments: Any, **options: Any) -> None:
        self.logged = {**getattr(self, "logged", {}), **metrics}


class Run:
    """A training with constant figures that calls the callback at the end of each step."""

    def __init__(
        self, path: Path, start: int, held_out: dict[str, Any] | None = None, steps: int = 99
    ) -> None:
        model = {"recurrent": {"kind": "lstm", "hidden": 8, "projection": 4}}
        settings = {"rows": 3, "unroll": 5, "evaluate_steps": 3}
        self.module, self.held_out = Module(model, settings, 30, (10,)), held_out
        figures = self.module.figures
        figures.losses = torch.tensor([2.0, 1.0])
        figures.restore({"skipped": 1, "skipped_in_a_row": 0})
        figures.gradient_norm, figures.learning_rate = torch.tensor(0.5), 0.25
        self.module.step = start
        self.bar, self.data = Bar(), Data()
        self.trainer: Any = SimpleNamespace(
            is_global_zero=True, datamodule=self.data, max_steps=steps, log_every_n_steps=2,
            should_stop=False,
        )  # fmt: skip
        self.callback = Metrics(str(path), self.bar, Compute(1e6, 1e9))
        self.callback.on_train_start(self.trainer, self.module)

    def __call__(self, steps: range) -> "Run":
        for step in steps:
            self.module.step = step
            self.callback.on_train_batch_end(self.trainer, self.module)
            if self.held_out and (step % 3 == 0 or self.trainer.should_stop):
                self.callback.on_validation_start(self.trainer, self.module)
                self.module.held_out = self.held_out
                self.callback.on_validation_end(self.trainer, self.module)
        self.callback.on_train_end()
        return self


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_written_at_each_logged_step_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("lightning_modules.training.callbacks.time.monotonic", lambda: next(clock))
    run = Run(tmp_path / "metrics.jsonl", 0, steps=7)
    run.data.loader.waited = 0.25
    run(range(1, 8))

    made = rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in made] == [2, 4, 6, 7]
    assert made[0] == {
        "step": 2,
        "loss_forward": 2.0,
        "perplexity_forward": math.exp(2),
        "loss_backward": 1.0,
        "perplexity_backward": math.exp(1),
        "train_loss": 1.5,
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
    assert set(run.module.logged) == {"tokens_per_second", "mfu", "data_wait"}
    assert run.bar.told[0] == (0, ""), "the bar begins where training does"
    # exp of the mean of both losses
    assert run.bar.told[-1][0] == 7
    assert run.bar.told[-1][1].endswith(" tokens/s  perplexity 4.5")


def test_the_bar_of_a_resumed_training_begins_at_its_step(tmp_path: Path) -> None:
    run = Run(tmp_path / "metrics.jsonl", 40, steps=50)(range(41, 43))

    assert [done for done, _ in run.bar.told] == [40, 42]


def test_a_resumed_training_rewrites_the_lines_after_its_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    Run(path, 0)(range(1, 9))
    kept = rows(path)[:2]
    Run(path, 4, steps=7)(range(5, 8))

    assert rows(path)[:2] == kept
    assert [row["step"] for row in rows(path)] == [2, 4, 6, 7]


def held_out(**figures: float | None) -> dict[str, Any]:
    names = ("loss", "forward_perplexity", "backward_perplexity", "average_perplexity")
    return {**dict.fromkeys((*names, "bits_per_byte")), **figures}


def test_a_line_is_written_after_each_validation(tmp_path: Path) -> None:
    figures = held_out(loss=1.5, average_perplexity=4.0)
    run = Run(tmp_path / "metrics.jsonl", 0, figures, steps=7)(range(1, 8))

    made = rows(tmp_path / "metrics.jsonl")
    evaluations = [row for row in made if "valid_bits_per_byte" in row]
    assert [row["step"] for row in evaluations] == [3, 6, 7]
    assert evaluations[0] == {
        "step": 3,
        "valid_loss": 1.5,
        "valid_forward_perplexity": None,
        "valid_backward_perplexity": None,
        "valid_average_perplexity": 4.0,
        "valid_bits_per_byte": None,
        "averaged": False,
    }
    assert [row["step"] for row in made if "loss_forward" in row] == [2, 4, 6, 7]
    assert "(held-out 4.0)" in run.bar.told[-1][1]


@pytest.mark.parametrize(("steps", "counts"), [(6, True), (7, False)])
def test_the_validation_of_the_last_step_counts_only_if_a_longer_training_has_it(
    tmp_path: Path, steps: int, counts: bool
) -> None:
    run = Run(tmp_path / "metrics.jsonl", 0, steps=steps)(range(1, steps + 1))

    assert run.trainer.should_stop, "so that Lightning validates once more"
    assert run.module.validation_counts is counts


def test_a_forward_model_shows_its_own_perplexity(tmp_path: Path) -> None:
    run = Run(tmp_path / "metrics.jsonl", 0, held_out(forward_perplexity=9.0))(range(1, 5))

    assert run.bar.told[-1][1].endswith("(held-out 9.0)")


def test_ranks_other_than_0_write_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "metrics.jsonl", 0)
    (tmp_path / "metrics.jsonl").unlink()
    run.callback._file = None
    run(range(1, 5))

    assert not (tmp_path / "metrics.jsonl").exists()

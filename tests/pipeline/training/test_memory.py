"""A training that cannot fit into memory is refused before anything is allocated."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.config import ModelConfig, SoftmaxConfig
from lightning_modules.recurrent_config import LSTMConfig
from lightning_modules.sizes import parameter_count
from lightning_modules.training.config import AdamConfig, SGDConfig, TrainConfig
from lightning_modules.training.ranks.distribution import Share
from pipeline.lifecycle.stage import StageFolder
from pipeline.training import memory
from pipeline.training.inputs import TrainingInputs
from pipeline.training.memory import check_memory, needed_bytes
from preprocess.errors import UserError

MODEL = ModelConfig(recurrent=LSTMConfig(layers=2, hidden=10, projection=4), head=SoftmaxConfig())
CPU = torch.device("cpu")


@pytest.mark.parametrize(("optimizer", "copies"), [(SGDConfig(), 1), (AdamConfig(), 2)])
def test_the_bound_counts_weights_optimiser_and_gates(optimizer: Any, copies: int) -> None:
    train = TrainConfig(rows=8, unroll=5, optimizer=optimizer)
    weights, gates = needed_bytes(MODEL, train, 30, (), Share(8, 0, 2, 2))
    assert weights == parameter_count(MODEL, 30) * 4 * copies
    assert gates == (8 // 4) * 5 * 2 * 2 * 3 * 10 * 2


def test_the_message_names_the_settings_of_the_larger_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, share = TrainConfig(rows=1000, unroll=1000), Share(1000)
    weights, gates = needed_bytes(MODEL, train, 30, (), share)
    monkeypatch.setattr(memory, "available_memory", lambda: weights + gates)
    check_memory(MODEL, train, 30, (), share, CPU)
    monkeypatch.setattr(memory, "available_memory", lambda: weights + gates - 1)
    with pytest.raises(UserError, match=r"needs at least 0\.2 GB .* lower train\.rows"):
        check_memory(MODEL, train, 30, (), share, CPU)
    small = TrainConfig(rows=1, unroll=1)
    with pytest.raises(UserError, match=r"parameters and .* lower model\.recurrent\.hidden"):
        check_memory(MODEL, small, 100_000_000, (), Share(1), CPU)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.recurrent.hidden=1000000", "model.recurrent.projection=1000000"),
        ("train.rows=1000000", "train.unroll=1000000"),
    ],
)
def test_a_training_of_the_largest_settings_is_refused(
    overrides: tuple[str, ...], tiny: Any, tmp_path: Path
) -> None:
    config = tiny.config(tmp_path, "train.device=cpu", "train.devices=1", *overrides)
    with pytest.raises(UserError, match="training needs at least"):
        TrainingInputs.of(config, StageFolder(str(tmp_path))).module(None)  # type: ignore[arg-type]

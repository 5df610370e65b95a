"""What a training starts from does not depend on the devices that it runs on."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console as RichConsole

from lightning_modules.nn.heads.cutoffs import choose_cutoffs
from lightning_modules.training.ranks.distribution import Share
from pipeline.console import Console
from pipeline.lifecycle.stage import StageFolder
from pipeline.training.forecast import zipf_counts
from pipeline.training.inputs import TrainingInputs

Tiny = Any  # of conftest.py


@pytest.fixture
def inputs(tiny: Tiny, tmp_path: Path) -> TrainingInputs:
    wide = ("model.recurrent.hidden=160", "model.recurrent.projection=128")
    long = ("train.rows=64", "train.unroll=20", "train.device=cpu")
    config = tiny.config(tmp_path, "model.head.cutoffs=auto", *wide, *long)
    return TrainingInputs.of(config, StageFolder(str(tmp_path)))


def cutoffs(inputs: TrainingInputs, share: Share, device: str) -> tuple[int, ...]:
    other = replace(inputs, share=share, device=torch.device(device))
    other.__dict__["counts"] = zipf_counts(16_000)
    return other.cutoffs


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("world", "passes"), [(1, 1), (1, 4), (2, 1), (8, 1), (8, 8)])
def test_one_config_has_one_architecture_on_all_devices(
    inputs: TrainingInputs, world: int, passes: int, device: str
) -> None:
    expected = cutoffs(inputs, Share(64), "cpu")
    width = inputs.config.model.recurrent.direction_width
    div = inputs.config.model.head.div  # type: ignore[union-attr]
    assert expected == choose_cutoffs(zipf_counts(16_000), width, div, 2 * 64 * 20)
    assert expected
    assert cutoffs(inputs, Share(64, 0, world, passes), device) == expected


@pytest.mark.parametrize("setting", ["rows", "unroll"])
def test_the_settings_of_the_fingerprint_decide(inputs: TrainingInputs, setting: str) -> None:
    train = inputs.config.train.model_copy(update={setting: 1})
    fewer = replace(inputs, config=inputs.config.model_copy(update={"train": train}))
    assert cutoffs(fewer, Share(64), "cpu") != cutoffs(inputs, Share(64), "cpu")


@pytest.mark.parametrize(("device", "is_told"), [("cpu", False), ("cuda", True)])
def test_cutoffs_that_slow_this_device_down_are_reported(
    inputs: TrainingInputs, device: str, is_told: bool
) -> None:
    train = inputs.config.train.model_copy(update={"rows": 4})
    config = inputs.config.model_copy(update={"train": train})
    other = replace(inputs, config=config, device=torch.device(device))
    other.__dict__["counts"] = zipf_counts(8000)
    printed = StringIO()
    other.show(Console(RichConsole(file=printed, width=200)))
    assert ("; model.head.cutoffs=[] is faster on this device" in printed.getvalue()) == is_told


def test_a_resumed_training_has_the_cutoffs_of_its_checkpoint(inputs: TrainingInputs) -> None:
    weights = {"network.head.ranks": torch.arange(inputs.output_vocabulary)}
    resumed = replace(inputs, checkpoint={"cutoffs": [3, 7], "state_dict": weights})
    assert cutoffs(resumed, Share(64, 0, 8), "cuda") == (3, 7)

"""A training with raised train.steps resumes from its last checkpoint."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import read_manifest
from preprocess.work import records

Tiny = Any  # of conftest.py
STILL = ("model.input.dropout=0", "model.recurrent.dropout=0", "train.schedule.kind=constant")


def losses(output: Path) -> list[tuple[float, float]]:
    rows = map(json.loads, (output / "train" / "metrics.jsonl").read_text().splitlines())
    return [(r["loss_forward"], r["loss_backward"]) for r in rows if "loss_forward" in r]


@contextmanager
def killed_at(name: str, ending: str) -> Iterator[None]:
    """Raise at the first call of a function of `storage` with a path of this ending.

    A checkpoint is written by another thread, so training notices at its next step.
    """

    class Killed(BaseException):
        pass

    real = getattr(storage, name)

    def call(*arguments: Any) -> Any:
        if str(arguments[0]).endswith(ending):
            raise Killed
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        for module in (storage, records):
            patched.setattr(module, name, call, raising=False)
        # However busy the disk is, no checkpoint is put off.
        patched.setattr("lightning_modules.training.checkpoints.PATIENCE_SECONDS", 60)
        with pytest.raises(Killed):
            yield


@pytest.mark.parametrize("finished", [True, False])
def test_raised_steps_resume_from_the_last_checkpoint(
    tiny: Tiny, tmp_path: Path, finished: bool
) -> None:
    short, long = ("train.steps=30",), ("train.steps=70",)
    tiny.run("train", tmp_path / "whole", *STILL, *long)
    grown = tmp_path / "grown"
    if finished:
        tiny.run("train", grown, *STILL, *short)
    else:
        with killed_at("atomic_writer", "step-000000020.ckpt"):
            tiny.run("train", grown, *STILL, *short)

    _, printed = tiny.run("train", grown, *STILL, *long)

    assert f"resuming from step {30 if finished else 10}" in printed
    assert (
        "train.steps is raised from 30 to 70: the constant schedule does not depend on it"
    ) in printed
    assert losses(grown) == losses(tmp_path / "whole")
    assert read_manifest(str(grown / "train")).details["steps"] == 70


def test_raised_steps_print_how_the_schedule_changes(tiny: Tiny, tmp_path: Path) -> None:
    tiny.run("train", tmp_path, "train.steps=30")
    _, printed = tiny.run("train", tmp_path, "train.steps=60")

    assert re.search(
        r"train\.steps is raised from 30 to 60: the cosine schedule now ends there, so the "
        r"next learning rate is 0\.01\d* \(0\.002 without the change\)\n",
        printed,
    )
    assert len(losses(tmp_path)) == 60


@pytest.mark.slow
def test_raised_steps_that_were_killed_at_any_write_are_resumed(tiny: Tiny, tmp_path: Path) -> None:
    tiny.run("train", tmp_path / "whole", *STILL, "train.steps=60")

    for name, ending in (
        ("copy", "checkpoint.ckpt"),
        ("write_bytes", "asked.json"),
        ("remove", "manifest.json"),
        ("atomic_writer", "step-000000040.ckpt"),
        ("copy", "step-000000060.ckpt"),
        ("write_bytes", "manifest.json"),
    ):
        output = tmp_path / f"{name}-{ending}"
        tiny.run("train", output, *STILL, "train.steps=30")
        with killed_at(name, ending):
            tiny.run("train", output, *STILL, "train.steps=60")
        tiny.run("train", output, *STILL, "train.steps=60")
        ours = read_manifest(str(output / "train"))
        whole = read_manifest(str(tmp_path / "whole" / "train"))
        assert ours.content == whole.content, (name, ending)


def test_fewer_steps_or_another_model_are_refused_with_the_setting(
    tiny: Tiny, tmp_path: Path
) -> None:
    tiny.run("train", tmp_path, "train.steps=30")

    with pytest.raises(UserError, match=r"train\.steps: .*30.*20"):
        tiny.run("train", tmp_path, "train.steps=20")
    with pytest.raises(UserError, match=r"model\.recurrent\.hidden"):
        tiny.run("train", tmp_path, "train.steps=40", "model.recurrent.hidden=9")


def test_raised_steps_that_cannot_be_trained_leave_the_finished_training_unchanged(
    tiny: Tiny, tmp_path: Path
) -> None:
    before, _ = tiny.run("train", tmp_path, "train.steps=30")

    with pytest.raises(UserError, match="cannot be divided evenly"):
        tiny.run("train", tmp_path, "train.steps=60", "train.devices=2")

    assert read_manifest(str(tmp_path / "train")).content == before.content
    _, printed = tiny.run("train", tmp_path, "train.steps=30")
    assert "already done" in printed

"""Training with a teacher: what is recorded, resumed, evaluated and exported, and what is refused."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.cli import main
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest

Tiny, Command = Any, Any  # of conftest.py
SPEED = ("tokens_per_second", "mfu", "data_wait")
SMALLER = ("model.recurrent.hidden=6", "model.recurrent.projection=3")
STILL = ("model.input.dropout=0", "model.recurrent.dropout=0")
TWO = ("train.rows=4", "train.devices=2", "train.steps=120", "train.checkpoint_steps=5")


@pytest.fixture
def teacher(trained: Path) -> str:
    return f"train.teacher.model={trained / 'export'}"


def metrics(output: Path) -> list[dict[str, Any]]:
    lines = (output / "train" / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in SPEED} for line in lines]


def test_a_student_is_trained_evaluated_and_exported(
    tiny: Tiny, trained: Path, teacher: str, tmp_path: Path
) -> None:
    manifest, printed = tiny.run("train", tmp_path, teacher, *SMALLER)
    rows = [row for row in metrics(tmp_path) if "train_loss" in row]
    assert rows[-1]["loss_layers"] < rows[0]["loss_layers"]
    assert all(row["loss_predictions"] > 0 for row in rows)
    mean = (rows[0]["loss_forward"] + rows[0]["loss_backward"]) / 2
    assert rows[0]["train_loss"] == pytest.approx(mean)
    content = read_manifest(str(trained / "export"), "export").content
    assert manifest.asked["train.teacher.model"] == content
    assert manifest.details["teacher"] == content
    assert f"with the teacher {trained / 'export'}, which has " in printed

    for stage in ("evaluate", "export"):
        tiny.run(stage, tmp_path, teacher, *SMALLER)
    names = set(load_file(tmp_path / "export" / "model.safetensors"))
    assert names == set(load_file(trained / "export" / "model.safetensors"))


def test_the_path_of_the_teacher_does_not_count_and_its_content_does(
    tiny: Tiny, trained: Path, teacher: str, tmp_path: Path
) -> None:
    tiny.run("train", tmp_path / "run", teacher, "train.steps=3")
    moved = tmp_path / "moved"
    shutil.copytree(trained / "export", moved)
    _, printed = tiny.run(
        "train", tmp_path / "run", f"train.teacher.model={moved}", "train.steps=3"
    )
    assert "already done" in printed

    tiny.run("export", tmp_path / "run", "export.weights=float16", "train.steps=3", teacher)
    with pytest.raises(
        UserError, match=r"(?s)made with other settings or inputs:.*train\.teacher\.model: "
    ):
        tiny.run(
            *("train", tmp_path / "run", "train.steps=3"),
            f"train.teacher.model={tmp_path / 'run' / 'export'}",
        )
    with pytest.raises(UserError, match=r"(?s)made with other settings.*train\.teacher"):
        tiny.run("train", tmp_path / "run", "train.steps=3")


def test_more_steps_continue_a_finished_training(tiny: Tiny, teacher: str, tmp_path: Path) -> None:
    constant = "train.schedule.kind=constant"
    tiny.run("train", tmp_path / "parts", teacher, constant, "train.steps=20")
    tiny.run("train", tmp_path / "parts", teacher, constant, "train.steps=40")
    tiny.run("train", tmp_path / "whole", teacher, constant, "train.steps=40")
    parts, whole = (
        [row for row in metrics(tmp_path / name) if "train_loss" in row]
        for name in ("parts", "whole")
    )
    assert parts == whole


def test_a_training_starts_from_a_student_with_the_state_of_its_optimiser(
    tiny: Tiny, teacher: str, tmp_path: Path
) -> None:
    tiny.run("train", tmp_path / "first", teacher, "train.steps=3")
    start = f"train.init_from={tmp_path / 'first' / 'train'}"
    for settings in ((), (teacher,)):
        _, printed = tiny.run("train", tmp_path / f"next{len(settings)}", start, *settings)
        assert "the optimiser continues with its moments" in printed


def test_clusters_of_the_teacher_are_used(tiny: Tiny, teacher: str, tmp_path: Path) -> None:
    manifest, _ = tiny.run("train", tmp_path, teacher, "model.head.cutoffs=auto", "train.steps=2")
    assert tuple(manifest.details["cutoffs"]) == (20, 50)


def test_a_student_that_is_not_smaller_is_reported(
    tiny: Tiny, teacher: str, tmp_path: Path
) -> None:
    _, printed = tiny.run("train", tmp_path / "equal", teacher, "train.steps=2")
    assert "the student has as many parameters as its teacher or more" in " ".join(printed.split())
    _, printed = tiny.run("train", tmp_path / "smaller", teacher, *SMALLER, "train.steps=2")
    assert "or more" not in printed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["train.teacher.layers=1"],
            "train.teacher.model is not set; name the model folder of the",
        ),
        (
            ["train.teacher.model=/nowhere"],
            "train.teacher.model: /nowhere holds no finished 'export'",
        ),
        (
            ["TEACHER", "train.teacher.layers=0", "train.teacher.predictions=0"],
            "layers and predictions are both 0, so that the teacher has no effect; set one of them",
        ),
        (["TEACHER", "model.recurrent.layers=3"], "model.recurrent.layers is 3, but the teacher "),
        (["TEACHER", "model.directions=forward"], "model.directions is forward, but the teacher "),
        (
            ["TEACHER", "model.output_vocabulary=60"],
            "the student predicts 60 ids, but the teacher ",
        ),
        (["TEACHER", "train.boundary=bos_eos"], "was trained with train.boundary=eos"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    tiny: Tiny,
    teacher: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    message: str,
) -> None:
    words = [teacher if word == "TEACHER" else word for word in overrides]
    assert main(["train", *tiny.arguments(tmp_path, *words)]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def train(tiny: Tiny, biloom: Command, output: Path, *overrides: str) -> None:
    done = biloom.run("train", *tiny.arguments(output, *TWO, *overrides))
    assert done.returncode == 0, done.stderr


def killed(tiny: Tiny, biloom: Command, output: Path, step: int, *overrides: str) -> None:
    """Kill a training in two processes after a checkpoint."""
    with biloom.start("train", *tiny.arguments(output, *TWO, *overrides)) as process:
        deadline = time.monotonic() + 300
        while not any(
            int(path.stem.removeprefix("step-")) >= step
            for path in output.glob("train/_work/*/step-*.ckpt")
        ):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no checkpoint appears"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=120)


@pytest.mark.slow
def test_two_processes_train_like_one_and_resume_after_a_kill_to_the_same_bits(
    tiny: Tiny, biloom: Command, teacher: str, tmp_path: Path
) -> None:
    settings = (teacher, *SMALLER, *STILL)
    train(tiny, biloom, tmp_path / "two", *settings)
    killed(tiny, biloom, tmp_path / "killed", 15, *settings)
    train(tiny, biloom, tmp_path / "killed", *settings)
    tiny.run("train", tmp_path / "one", *TWO, *settings, "train.devices=1")

    files = [tmp_path / name / "train" / "checkpoint.ckpt" for name in ("two", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert metrics(tmp_path / "two") == metrics(tmp_path / "killed")
    two, one = ([r for r in metrics(tmp_path / n) if "train_loss" in r] for n in ("two", "one"))
    for name in ("train_loss", "loss_layers", "loss_predictions"):
        ours, theirs = ([row[name] for row in rows] for rows in (two, one))
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, err_msg=name)
    saved = torch.load(files[0], weights_only=True)
    assert saved["teacher_state"].shape[2] == 4

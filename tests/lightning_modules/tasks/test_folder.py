"""The folder of a task holds any labels, and equal tasks have equal bytes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules.tasks.folder import LABELS, TaskError, write_task
from tests.lightning_modules.tasks.task_folders import LABELS_OF_ALL_KINDS, result, write_folder


def test_equal_tasks_have_equal_bytes(tmp_path: Path) -> None:
    one, other = write_folder(tmp_path / "one"), write_folder(tmp_path / "other")
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes()


def test_a_head_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    bad = replace(result(None), tensors={"weight": torch.tensor([float("nan")])})
    with pytest.raises(TaskError, match=r"the trained head holds NaN or infinity \('weight'\)"):
        write_task(str(tmp_path), bad, {}, "1.0")
    assert not [*tmp_path.iterdir()]


def test_the_labels_are_plain_json(tmp_path: Path) -> None:
    out = write_folder(tmp_path / "task")
    assert json.loads((out / LABELS).read_bytes()) == [*LABELS_OF_ALL_KINDS]

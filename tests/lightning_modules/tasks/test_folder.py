"""The folder of a task is verified, knows its language model, and holds any labels and texts."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lightning_modules.tasks.folder import (
    BUNDLE,
    HEAD,
    LABELS,
    PREDICTIONS,
    ModelReference,
    TaskError,
    TaskResult,
    read_task,
    write_task,
)
from lightning_modules.tasks.tables import read_table
from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import UserError
from preprocess.files.manifest import ManifestError, check_files, read_manifest
from preprocess.files.verified import DamagedResult

LABELS_OF_ALL_KINDS = ("a\tb", 'quote"', "новое", "\u2028", "", " spaces ", "\ud800")


def result(model: Path | None, bundle: bool = False) -> TaskResult:
    content = read_manifest(str(model)).content if model else "ab" * 32
    return TaskResult(
        kind="classify",
        config={"head": "pool"},
        labels=LABELS_OF_ALL_KINDS,
        tensors={"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)},
        metrics={"accuracy": 0.5, "low": float("nan")},
        columns=("text", "label"),
        predictions=[("a\nb", "a\tb"), ("\ud800", "")],
        model=ModelReference(content, str(model) if model else ""),
        card="# A task\n",
        bundle=bundle,
    )


def write(out: Path, model: Path | None = None, bundle: bool = False) -> Path:
    write_task(str(out), result(model, bundle), {"stage": "classify train"}, "1.0")
    return out


def test_a_task_is_read_as_it_was_written(tmp_path: Path) -> None:
    out = write(tmp_path / "task")
    task = read_task(str(out), "classify")
    assert task.labels == LABELS_OF_ALL_KINDS
    assert task.config == {"head": "pool"}
    assert task.metrics == {"accuracy": 0.5, "low": None}
    assert torch.equal(task.tensors["weight"], torch.arange(6.0).reshape(2, 3))
    assert read_table((out / PREDICTIONS).read_bytes())[1] == [["a\nb", "a\tb"], ["\ud800", ""]]
    assert check_files(str(out), task.manifest) == []


def test_equal_tasks_have_equal_bytes(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes()


@pytest.mark.parametrize("name", [HEAD, LABELS, "config.json", "metrics.json"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    out = write(tmp_path / "task")
    (out / name).write_bytes((out / name).read_bytes() + b" ")
    with pytest.raises(DamagedResult, match=f"{name} is damaged"):
        read_task(str(out), "classify")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (LABELS, b'{"a": 1}', "it is not a list of labels"),
        (LABELS, b'["a", "a"]', "a label is there twice"),
        (LABELS, b"[" * 100_000, "labels.json is damaged"),
        (HEAD, b"no tensors", "head.safetensors is damaged"),
    ],
)
def test_invalid_files_of_a_stranger_are_refused(
    tmp_path: Path, as_stranger: Callable[[Path], None], name: str, data: bytes, message: str
) -> None:
    out = write(tmp_path / "task")
    (out / name).write_bytes(data)
    as_stranger(out)
    with pytest.raises(UserError, match=re.escape(message)):
        read_task(str(out), "classify")


def test_a_head_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    bad = replace(result(None), tensors={"weight": torch.tensor([float("nan")])})
    with pytest.raises(TaskError, match=r"the trained head holds NaN or infinity \('weight'\)"):
        write_task(str(tmp_path), bad, {}, "1.0")
    assert not [*tmp_path.iterdir()]


def test_another_kind_is_refused(tmp_path: Path) -> None:
    out = write(tmp_path / "task")
    with pytest.raises(ManifestError, match="holds a finished 'classify train', not 'tag train'"):
        read_task(str(out), "tag")


def test_the_language_model_is_found_where_it_was(tmp_path: Path, trained: Path) -> None:
    task = read_task(str(write(tmp_path / "task", trained / "export")), "classify")
    assert isinstance(task.load_model(), BiLM)
    assert not task.bundled


def test_a_task_that_was_moved_with_its_model_finds_it(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained / "export", tmp_path / "old" / "model")
    write(tmp_path / "old" / "task", tmp_path / "old" / "model")
    (tmp_path / "old").rename(tmp_path / "new")
    task = read_task(str(tmp_path / "new" / "task"), "classify")
    assert task.load_model().content == task.model.content


def test_a_bundled_model_is_used_if_all_else_is_gone(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained / "export", tmp_path / "model")
    out = write(tmp_path / "task", tmp_path / "model", bundle=True)
    shutil.rmtree(tmp_path / "model")
    out = out.rename(tmp_path / "elsewhere")
    task = read_task(str(out), "classify")
    assert task.bundled
    assert task.load_model().content == task.model.content
    assert check_files(str(out), task.manifest) == []
    names = {file.name for file in task.manifest.files}
    assert f"{BUNDLE}/manifest.json" in names
    assert f"{BUNDLE}/model.safetensors" in names


def test_a_missing_model_is_asked_for(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained / "export", tmp_path / "model")
    out = write(tmp_path / "task", tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    task = read_task(str(out), "classify")
    with pytest.raises(TaskError, match=r"is no longer in .*; give its folder with --model"):
        task.load_model()
    assert task.load_model(str(trained / "export")).content == task.model.content


def test_a_task_of_a_cache_asks_for_the_model(tmp_path: Path) -> None:
    task = read_task(str(write(tmp_path / "task")), "classify")
    with pytest.raises(TaskError, match="was not recorded; give its folder with --model"):
        task.load_model()
    with pytest.raises(TaskError, match=r"bundle=true copies the language model, but only a"):
        write(tmp_path / "other", None, bundle=True)


def test_another_model_is_refused(tmp_path: Path, trained: Path) -> None:
    task = read_task(str(write(tmp_path / "task")), "classify")
    message = (
        r"this is another language model \(\w{12}\) than the one that .* was trained with \(abab"
    )
    with pytest.raises(TaskError, match=message):
        task.load_model(str(trained / "export"))


def test_a_task_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    out = write(tmp_path / "task")
    from preprocess.files.manifest import write_manifest

    write_manifest(str(out), replace(read_manifest(str(out)), stage_version=99))
    with pytest.raises(ManifestError, match="was written by a newer biloom"):
        read_task(str(out), "classify")


def test_the_labels_are_plain_json(tmp_path: Path) -> None:
    out = write(tmp_path / "task")
    assert json.loads((out / LABELS).read_bytes()) == [*LABELS_OF_ALL_KINDS]

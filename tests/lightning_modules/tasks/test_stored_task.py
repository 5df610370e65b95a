"""A task folder is verified, and knows its language model."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from lightning_modules.tasks.folder import (
    BUNDLE,
    CONFIG,
    HEAD,
    LABELS,
    METRICS,
    PREDICTIONS,
    TaskError,
)
from lightning_modules.tasks.stored_task import Task, read_task
from lightning_modules.tasks.tables import read_table
from lightning_modules.vectors.pretrained import BiLM
from preprocess.files.manifest import (
    ManifestError,
    check_files,
    read_manifest,
    write_manifest,
)
from preprocess.files.verified import DamagedResult
from tests.lightning_modules.tasks.task_folders import LABELS_OF_ALL_KINDS, write_folder


def read(folder: Path) -> Task[dict[str, Any]]:
    return read_task(str(folder), "classify", dict[str, Any])


def test_a_task_is_read_as_it_was_written(tmp_path: Path) -> None:
    out = write_folder(tmp_path / "task")
    task = read(out)
    assert task.labels == LABELS_OF_ALL_KINDS
    assert task.config == {"head": "pool"}
    assert task.metrics == {"accuracy": 0.5, "low": None}
    assert torch.equal(task.tensors["weight"], torch.arange(6.0).reshape(2, 3))
    assert read_table((out / PREDICTIONS).read_bytes())[1] == [["a\nb", "a\tb"], ["\ud800", ""]]
    assert check_files(str(out), task.manifest) == []


@pytest.mark.parametrize("name", [HEAD, LABELS, "config.json", "metrics.json"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    out = write_folder(tmp_path / "task")
    (out / name).write_bytes((out / name).read_bytes() + b" ")
    with pytest.raises(DamagedResult, match=f"{name} is damaged"):
        read(out)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (LABELS, b'{"a": 1}', "labels.json is damaged (Input should be a valid list); run `biloom"),
        (LABELS, b'["a", 1]', "labels.json is damaged ('1': Input should be a valid string)"),
        (LABELS, b'["a", "a"]', "a label is there twice"),
        (LABELS, b"[" * 100_000, "labels.json is damaged"),
        (LABELS, b'["a', "labels.json is damaged (Unterminated string"),
        (LABELS, b'["\xff"]', "labels.json is damaged ('utf-8' codec can't decode"),
        (CONFIG, b"", "config.json is damaged (Expecting value"),
        (CONFIG, b"[]", "config.json is damaged (Input should be a valid dictionary)"),
        (METRICS, b"null", "metrics.json is damaged (Input should be a valid dictionary)"),
        (HEAD, b"", "head.safetensors is damaged"),
        (HEAD, b"no tensors", "head.safetensors is damaged"),
        (HEAD, save({"a": torch.ones(9)})[:-4], "head.safetensors is damaged"),
        (HEAD, save({"a": torch.tensor(torch.inf)}), "damaged ('a' holds NaN or infinity)"),
    ],
)
def test_invalid_files_of_a_stranger_are_refused(
    tmp_path: Path, as_stranger: Callable[[Path], None], name: str, data: bytes, message: str
) -> None:
    out = write_folder(tmp_path / "task")
    (out / name).write_bytes(data)
    as_stranger(out)
    with pytest.raises(DamagedResult, match=re.escape(message)):
        read(out)


@pytest.mark.parametrize(
    ("details", "message"),
    [
        (
            {"bundled": "no"},
            r"manifest\.json is damaged \('bundled': Input should be a valid boolean\)",
        ),
        ({"model": None}, r"manifest\.json is damaged \('model': Input should be a valid string\)"),
        ({"model_path": ...}, r"manifest\.json is damaged \(no 'model_path'\); copy or make"),
    ],
)
def test_details_of_a_stranger_are_refused(
    tmp_path: Path, details: dict[str, Any], message: str
) -> None:
    out = write_folder(tmp_path / "task")
    manifest = read_manifest(str(out))
    changed = {**manifest.details, **details}
    changed = {name: value for name, value in changed.items() if value is not ...}
    write_manifest(str(out), replace(manifest, details=changed))
    with pytest.raises(ManifestError, match=message):
        read(out)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    out = write_folder(tmp_path / "task")
    with pytest.raises(ManifestError, match="holds a finished 'classify train', not 'tag train'"):
        read_task(str(out), "tag", dict[str, Any])


def test_the_language_model_is_found_where_it_was(tmp_path: Path, trained: Path) -> None:
    task = read(write_folder(tmp_path / "task", trained / "export"))
    assert isinstance(task.load_model(), BiLM)
    assert not task.bundled


def test_a_task_that_was_moved_with_its_model_finds_it(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained / "export", tmp_path / "old" / "model")
    write_folder(tmp_path / "old" / "task", tmp_path / "old" / "model")
    (tmp_path / "old").rename(tmp_path / "new")
    task = read(tmp_path / "new" / "task")
    assert task.load_model().content == task.model.content


def test_a_bundled_model_is_used_if_all_else_is_gone(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained / "export", tmp_path / "model")
    out = write_folder(tmp_path / "task", tmp_path / "model", bundle=True)
    shutil.rmtree(tmp_path / "model")
    out = out.rename(tmp_path / "elsewhere")
    task = read(out)
    assert task.bundled
    assert task.load_model().content == task.model.content
    assert check_files(str(out), task.manifest) == []
    names = {file.name for file in task.manifest.files}
    assert f"{BUNDLE}/manifest.json" in names
    assert f"{BUNDLE}/model.safetensors" in names


def test_a_missing_model_is_asked_for(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained / "export", tmp_path / "model")
    out = write_folder(tmp_path / "task", tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    task = read(out)
    with pytest.raises(TaskError, match=r"is no longer in .*; give its folder with --model"):
        task.load_model()
    assert task.load_model(str(trained / "export")).content == task.model.content


def test_a_task_of_a_cache_asks_for_the_model(tmp_path: Path) -> None:
    task = read(write_folder(tmp_path / "task"))
    with pytest.raises(TaskError, match="was not recorded; give its folder with --model"):
        task.load_model()
    with pytest.raises(TaskError, match=r"bundle=true copies the language model, but only a"):
        write_folder(tmp_path / "other", None, bundle=True)


def test_another_model_is_refused(tmp_path: Path, trained: Path) -> None:
    task = read(write_folder(tmp_path / "task"))
    message = (
        r"this is another language model \(\w{12}\) than the one that .* was trained with \(abab"
    )
    with pytest.raises(TaskError, match=message):
        task.load_model(str(trained / "export"))


def test_a_task_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    out = write_folder(tmp_path / "task")
    write_manifest(str(out), replace(read_manifest(str(out)), stage_version=99))
    with pytest.raises(ManifestError, match="was written by a newer biloom"):
        read(out)

"""What `train.init_from` may name, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lightning_modules.training.weights.initial_source import initial_source
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest


def test_a_model_folder_a_train_folder_and_a_checkpoint_are_found(trained: Path) -> None:
    model, folder = (initial_source(f"{trained}/{name}") for name in ("export", "train"))
    assert model.checkpoint is None
    assert model.content == read_manifest(f"{trained}/export").content
    assert folder.checkpoint == "checkpoint.ckpt"
    assert folder.content == folder.manifest.records["checkpoint.ckpt"].xxh128
    for path in (f"{trained}/train/", f"{trained}/train/checkpoint.ckpt"):
        assert initial_source(path) == folder


def test_a_relative_path_is_found(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained / "train")
    for path in (".", "checkpoint.ckpt", "../train"):
        assert initial_source(path).checkpoint == "checkpoint.ckpt"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "train.init_from: {0} is a run folder; name {0}/train or {0}/export"),
        (
            "missing",
            "train.init_from: {0}/missing holds no finished export or train stage (no manifest.json); "
            "finish it first, or check the path",
        ),
        ("missing.ckpt", "train.init_from: there is no file {0}/missing.ckpt; check the path"),
        (
            "evaluate",
            "train.init_from: {0}/evaluate holds a finished 'evaluate'; name the folder of an export or "
            "train stage, or a checkpoint in the latter",
        ),
        (
            "export/model.ckpt",
            "train.init_from: {0}/export holds a finished 'export'; name the folder of an export or "
            "train stage, or a checkpoint in the latter",
        ),
        (
            "train/other.ckpt",
            "train.init_from: {0}/train has no other.ckpt; it has best.ckpt, checkpoint.ckpt",
        ),
    ],
)
def test_other_folders_and_files_are_refused(trained: Path, path: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        initial_source(str(trained / path))
    assert str(raised.value) == told.format(trained)


def test_a_checkpoint_of_an_unfinished_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "step-000000010.ckpt"
    path.touch()
    with pytest.raises(UserError) as raised:
        initial_source(str(path))
    assert str(raised.value) == (
        f"train.init_from: {path} is not a checkpoint of a finished training (no manifest.json beside "
        "it); finish the training, then name its checkpoint"
    )


def test_a_damaged_manifest_is_told(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "train", tmp_path / "train")
    (tmp_path / "train" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        initial_source(str(tmp_path / "train"))


def test_a_checkpoint_of_version_0_1_is_found() -> None:
    folder: Any = Path(__file__).parents[3] / "fixtures" / "version-0.1" / "finished" / "train"
    assert initial_source(str(folder)).content == "0a4dd0dc9d4a68b7be498098ad3703b8"

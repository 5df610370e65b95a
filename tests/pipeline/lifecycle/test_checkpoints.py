"""Which checkpoint evaluate.checkpoint and export.checkpoint name, and mistakes in them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.lifecycle.checkpoints import Named, named_checkpoint, open_checkpoint
from pipeline.lifecycle.inputs import checkpoint_setting, trained_checkpoint
from pipeline.lifecycle.plan import inputs_of
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.stage import StageError
from preprocess.files.manifest import ManifestError, read_manifest, write_manifest

Tiny = Any  # of conftest.py
SETTING = "export.checkpoint"
CHOICES = "best, last, a train folder, or its best.ckpt or checkpoint.ckpt"


@pytest.fixture
def train(trained: Path, tmp_path: Path) -> Path:
    """A train folder whose best step is not the last."""
    folder = Path(shutil.copytree(trained / "train", tmp_path / "run" / "train"))
    manifest = read_manifest(str(folder))
    write_manifest(str(folder), replace(manifest, details={**manifest.details, "best_step": 20}))
    return folder


Without = Callable[..., Path]


@pytest.fixture
def without_best(train: Path) -> Without:
    """Make it a training without a best step, of this version or a former one."""

    def remove(is_former: bool) -> Path:
        manifest = read_manifest(str(train))
        details = {**manifest.details, "best_step": None, "best": None}
        if is_former:
            del details["best_step"], details["best"]
        files = tuple(file for file in manifest.files if file.name != "best.ckpt")
        write_manifest(str(train), replace(manifest, details=details, files=files))
        (train / "best.ckpt").unlink()
        return train

    return remove


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, Named(None, None)),
        ("best", Named(None, "best.ckpt")),
        ("last", Named(None, "checkpoint.ckpt")),
        ("runs/a/train", Named("runs/a/train", None)),
        ("runs/a/train/", Named("runs/a/train/", None)),
        ("runs/a/train/best.ckpt", Named("runs/a/train", "best.ckpt")),
        ("s3://bucket/a/checkpoint.ckpt", Named("s3://bucket/a", "checkpoint.ckpt")),
        ("best.ckpt", Named(".", "best.ckpt")),
        ("/best.ckpt", Named("/", "best.ckpt")),
        ("./best", Named("./best", None)),
    ],
)
def test_values_name_a_folder_and_a_file(value: str | None, named: Named) -> None:
    assert named_checkpoint(SETTING, value) == named


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("bset", f"there is no such folder; did you mean 'best'? Set {SETTING} to {CHOICES}"),
        ("Last", f"there is no such folder; did you mean 'last'? Set {SETTING} to {CHOICES}"),
        ("quickstart", f"there is no such folder; set {SETTING} to {CHOICES}"),
        (
            "runs/a/train/step-000000500.ckpt",
            f"this file is not a checkpoint of a finished training; set {SETTING} to {CHOICES}",
        ),
    ],
)
def test_mistakes_are_told(value: str, message: str) -> None:
    with pytest.raises(StageError) as caught:
        named_checkpoint(SETTING, value)
    assert str(caught.value) == f"{SETTING}={value}: {message}"


def test_a_folder_in_the_current_folder_needs_no_slash(
    train: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(train.parent)
    assert open_checkpoint(SETTING, "train", "/own").folder == str(train)
    monkeypatch.chdir(train)
    assert open_checkpoint(SETTING, "checkpoint.ckpt", "/own").step == 40


@pytest.mark.parametrize(
    ("value", "name", "step", "kind"),
    [
        (None, "best.ckpt", 20, "best"),
        ("best", "best.ckpt", 20, "best"),
        ("last", "checkpoint.ckpt", 40, "last"),
        ("{train}", "best.ckpt", 20, "best"),
        ("{train}/best.ckpt", "best.ckpt", 20, "best"),
        ("{train}/checkpoint.ckpt", "checkpoint.ckpt", 40, "last"),
    ],
)
def test_the_checkpoint_is_opened(
    train: Path, value: str | None, name: str, step: int, kind: str
) -> None:
    found = open_checkpoint(SETTING, value and value.format(train=train), str(train))
    assert (found.folder, found.name, found.step, found.kind) == (str(train), name, step, kind)


@pytest.mark.parametrize("is_former", [False, True])
@pytest.mark.parametrize("value", [None, "last", "{train}", "{train}/checkpoint.ckpt"])
def test_without_a_best_step_it_is_the_last(
    without_best: Without, is_former: bool, value: str | None
) -> None:
    train = without_best(is_former)
    found = open_checkpoint(SETTING, value and value.format(train=train), str(train))
    assert (found.name, found.step, found.kind) == ("checkpoint.ckpt", 40, "last")


def test_a_best_step_that_is_asked_for_must_exist(without_best: Without) -> None:
    train = without_best(is_former=False)
    why = (
        f"{train} has no best.ckpt, because no held-out text was evaluated in its training, or a former "
        f"version of biloom finished it; set {SETTING}="
    )
    for value, instead in (("best", "last"), (f"{train}/best.ckpt", f"{train}/checkpoint.ckpt")):
        with pytest.raises(StageError) as caught:
            open_checkpoint(SETTING, value, str(train))
        assert str(caught.value) == f"{SETTING}={value}: {why}{instead}"


def test_the_best_of_a_former_training_is_its_checkpoint(without_best: Without) -> None:
    train = without_best(is_former=True)
    assert open_checkpoint(SETTING, "best", str(train)).name == "checkpoint.ckpt"
    with pytest.raises(StageError, match=r"has no best\.ckpt"):
        open_checkpoint(SETTING, f"{train}/best.ckpt", str(train))


def test_a_run_folder_in_place_of_its_train_folder_is_told(train: Path) -> None:
    run = train.parent
    with pytest.raises(ManifestError, match=rf"Did you mean {SETTING}={run}/train\?"):
        open_checkpoint(SETTING, str(run), "/own")
    with pytest.raises(ManifestError) as caught:
        open_checkpoint(SETTING, f"{run}/other/best.ckpt", "/own")
    assert "Did you mean" not in str(caught.value)


def test_evaluate_follows_export(tiny: Tiny, tmp_path: Path) -> None:
    def setting(*overrides: str) -> tuple[str, str | None]:
        return checkpoint_setting(tiny.config(tmp_path, *overrides), "evaluate")

    assert setting() == ("evaluate.checkpoint", None)
    assert setting("export.checkpoint=last") == ("export.checkpoint", "last")
    both = ("export.checkpoint=last", "evaluate.checkpoint=best")
    assert setting(*both) == ("evaluate.checkpoint", "best")


@pytest.mark.parametrize(
    ("override", "reads"),
    [("best", True), ("last", True), ("null", True), ("runs/a/train", False)],
)
def test_a_keyword_means_the_training_of_this_run(
    tiny: Tiny, tmp_path: Path, override: str, reads: bool
) -> None:
    config = tiny.config(tmp_path, f"export.checkpoint={override}")
    for stage in ("evaluate", "export"):
        assert ("train" in inputs_of(STAGES[stage], config)) is reads


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["run"], ["evaluate"], ["export"]])
def test_a_misspelled_keyword_is_told_before_anything_is_made(
    tiny: Tiny, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = tiny.arguments(tmp_path / "run", "train.corpus=null", "export.checkpoint=bset")
    assert main([command[0], *arguments, *command[1:]]) == 2
    assert "export.checkpoint=bset: there is no such folder; did you mean 'best'?" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_the_tokenizer_is_found_beside_a_named_file(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "train", tmp_path / "a" / "train")
    shutil.copytree(tiny.root / "tokenizer", tmp_path / "a" / "tokenizer")
    named = f"export.checkpoint={tmp_path}/a/train/checkpoint.ckpt"
    tiny.run("export", tmp_path / "b", named, "prepare.tokenizer=null", "train.corpus=null")
    config = tiny.config(tmp_path / "b", named)
    assert trained_checkpoint(config, "export").name == "checkpoint.ckpt"

"""Evaluate and export take the same checkpoint, the best one by default."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from biloom import BiLM
from lightning_modules.models.model_folder import checkpoint_weights
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest
from tests.pipeline.stages.test_train_best import UNSTABLE

Tiny = Any  # of conftest.py


@pytest.fixture(scope="module")
def overfitted(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("overfitted")
    tiny.run("train", output, *UNSTABLE)
    return output


@pytest.fixture
def run(overfitted: Path, tmp_path: Path) -> Path:
    """A run folder with a finished training whose best step is 15 of 40."""
    shutil.copytree(overfitted / "train", tmp_path / "run" / "train")
    return tmp_path / "run"


def card(run: Path) -> str:
    return (run / "export" / "README.md").read_text()


def is_of(run: Path, name: str) -> bool:
    """Whether the exported weights are those of a checkpoint."""
    expected = checkpoint_weights(f"{run}/train", name)
    exported = BiLM.from_pretrained(run / "export").network.state_dict()
    return all(torch.equal(exported[key], weight) for key, weight in expected.items())


def test_the_best_step_is_evaluated_and_exported(tiny: Tiny, run: Path) -> None:
    evaluated, _ = tiny.run("evaluate", run, *UNSTABLE)
    _, printed = tiny.run("export", run, *UNSTABLE)

    assert is_of(run, "best.ckpt")
    assert "parameters of step 15 of 40, " in printed
    best = read_manifest(f"{run}/train").details["best"]
    perplexity = evaluated.details["average_perplexity"]
    assert perplexity == pytest.approx(best["average_perplexity"], rel=1e-5)
    assert f"{perplexity:,.2f} |\n" in card(run)
    assert (
        "The weights are those of step 15 of 40, at which perplexity of held-out text was"
        in card(run)
    )


def test_the_last_step_is_evaluated_and_exported_if_asked_for(tiny: Tiny, run: Path) -> None:
    last = (*UNSTABLE, "export.checkpoint=last")
    evaluated, _ = tiny.run("evaluate", run, *last)
    tiny.run("export", run, *last)

    assert is_of(run, "checkpoint.ckpt")
    best = read_manifest(f"{run}/train").details["best"]
    assert evaluated.details["average_perplexity"] > 1.5 * best["average_perplexity"]
    assert f"{evaluated.details['average_perplexity']:,.2f} |\n" in card(run)
    assert "The weights are those of the last step; perplexity of held-out text was" in card(run)


def test_a_card_shows_no_figures_of_the_other_checkpoint(tiny: Tiny, run: Path) -> None:
    tiny.run("evaluate", run, *UNSTABLE, "evaluate.checkpoint=best")
    _, printed = tiny.run("export", run, *UNSTABLE, "export.checkpoint=last")

    assert (
        "the model card shows no perplexity, because this run evaluated the best checkpoint and exports the "
        "last one; `biloom evaluate --overwrite` with the same settings, and without evaluate.checkpoint, adds it\n"
        in printed
    )
    assert "Not measured" in card(run)
    # Nor does a later evaluation of the best add its figures.
    shutil.rmtree(run / "evaluate")
    _, printed = tiny.run("evaluate", run, *UNSTABLE, "evaluate.checkpoint=best")
    assert "updated the model card" not in printed
    shutil.rmtree(run / "evaluate")
    _, printed = tiny.run("evaluate", run, *UNSTABLE, "evaluate.checkpoint=last")
    assert "updated the model card" in printed
    assert "Not measured" not in card(run)


@pytest.mark.parametrize("stage", ["evaluate", "export"])
def test_best_and_last_are_not_mixed_up(tiny: Tiny, run: Path, stage: str) -> None:
    best, _ = tiny.run(stage, run, *UNSTABLE)
    _, printed = tiny.run(stage, run, *UNSTABLE, f"{stage}.checkpoint={run}/train/best.ckpt")
    assert "already done" in printed
    with pytest.raises(UserError, match=rf'{stage}\.checkpoint: "best" -> "last"\n'):
        tiny.run(stage, run, *UNSTABLE, f"{stage}.checkpoint=last")
    shutil.rmtree(run / stage)
    last, _ = tiny.run(stage, run, *UNSTABLE, f"{stage}.checkpoint=last")
    assert last.content != best.content
    assert last.fingerprint != best.fingerprint


def test_best_and_last_are_one_if_the_last_step_is_the_best(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    for stage in ("evaluate", "export"):
        for value in ("best", "last", f"{run}/train/checkpoint.ckpt"):
            _, printed = tiny.run(stage, run, f"export.checkpoint={value}")
            assert "already done" in printed


def test_results_follow_a_training_whose_best_step_becomes_another(
    tiny: Tiny, tmp_path: Path
) -> None:
    """The training ends at its best step, and is then continued into overfitting."""
    for steps in ("train.steps=15", "train.steps=40"):
        for stage in ("train", "evaluate", "export"):
            made, _ = tiny.run(stage, tmp_path, *UNSTABLE, steps)
    assert made.asked["export.checkpoint"] == "best"
    assert is_of(tmp_path, "best.ckpt")
    assert "The weights are those of step 15 of 40" in card(tmp_path)
    assert "Not measured" not in card(tmp_path)

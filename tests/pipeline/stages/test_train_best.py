"""The best step of a training is kept, told and exported, and patience ends a training."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.evaluation.held_out import HeldOut
from lightning_modules.models.checkpoint_file import read_checkpoint
from lightning_modules.models.model_folder import checkpoint_weights
from pipeline.commands.inspection import check
from preprocess.errors import UserError
from preprocess.files.manifest import Manifest, read_manifest
from preprocess.shards.format import Corpus
from tests.pipeline.stages.test_train_raised_steps import killed_at

Tiny = Any  # of conftest.py

UNSTABLE = (
    *("train.learning_rate=20", "train.warmup_steps=1000", "train.evaluate_steps=5"),
    *("model.input.dropout=0", "model.recurrent.dropout=0"),
    *("train.order=mixed", "train.reset_state=0.5"),
)
"""The rate rises until training diverges: held-out loss is lowest at step 15 of 40, and rises after it."""
PATIENT = (*UNSTABLE, "train.patience=3")


def evaluations(output: Path) -> dict[int, dict[str, Any]]:
    rows = map(json.loads, (output / "train" / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row for row in rows if "valid_forward_perplexity" in row}


def bytes_of(output: Path) -> dict[str, bytes]:
    names = ("checkpoint.ckpt", "best.ckpt")
    return {name: (output / "train" / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def overfitted(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, str]:
    output = tmp_path_factory.mktemp("overfitted")
    manifest, printed = tiny.run("train", output, *UNSTABLE)
    return output, manifest, printed


@pytest.fixture(scope="module")
def stopped(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, str]:
    output = tmp_path_factory.mktemp("stopped")
    manifest, printed = tiny.run("train", output, *PATIENT)
    return output, manifest, printed


# The best step


def test_the_best_step_is_kept_beside_the_last(
    tiny: Tiny, overfitted: tuple[Path, Manifest, str], tmp_path: Path
) -> None:
    output, manifest, _ = overfitted
    rows = evaluations(output)
    lowest = min(rows, key=lambda step: rows[step]["valid_average_perplexity"])
    details = manifest.details

    assert (details["best_step"], details["steps"], details["planned_steps"]) == (15, 40, 40)
    assert lowest == 15
    assert details["stopped"] is None
    figures = details["best"]
    assert figures["average_perplexity"] == rows[15]["valid_average_perplexity"]
    assert math.exp(figures["loss"]) == pytest.approx(figures["average_perplexity"])
    assert [file.name for file in manifest.files] == [
        "checkpoint.ckpt",
        "metrics.jsonl",
        "best.ckpt",
    ]
    assert check(f"{output}/train") == 0
    # They are the weights that a training of so many steps ends with.
    tiny.run("train", tmp_path, *UNSTABLE, "train.steps=15")
    theirs = checkpoint_weights(f"{tmp_path}/train")
    ours = checkpoint_weights(f"{output}/train", "best.ckpt")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "optimizer" not in read_checkpoint(f"{output}/train/best.ckpt")


def test_the_content_depends_on_the_best_weights_too(
    overfitted: tuple[Path, Manifest, str], tiny: Tiny, tmp_path: Path
) -> None:
    other, _ = tiny.run("train", tmp_path, *UNSTABLE, "train.evaluate_steps=20")
    saved = [
        read_checkpoint(f"{o}/train/checkpoint.ckpt")["state_dict"]
        for o in (overfitted[0], tmp_path)
    ]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])
    assert other.details["best_step"] != 15
    assert other.content != overfitted[1].content


def test_the_best_step_is_told(overfitted: tuple[Path, Manifest, str]) -> None:
    _, _, printed = overfitted
    assert re.search(
        r"held-out perplexity was lowest at step 15: 39\.\d, against \d+\.\d at the last step, 40; no text "
        r"was read twice, so training became unstable \(try a lower train\.learning_rate\)\. evaluate and "
        r"export take step 15; to take the last step, set export\.checkpoint=last\n",
        printed,
    )


def test_a_training_that_is_best_at_its_end_tells_nothing(trained: Path, tiny: Tiny) -> None:
    details = read_manifest(f"{trained}/train").details
    assert details["best_step"] == details["steps"] == 40
    weights = [checkpoint_weights(f"{trained}/train", n) for n in ("best.ckpt", "checkpoint.ckpt")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_averaged_weights_are_the_best_weights(tiny: Tiny, tmp_path: Path) -> None:
    averaging = (
        "train.optimizer={kind: sgd, average_after: 1}", "train.learning_rate=3",
        "train.schedule.kind=constant", "train.evaluate_steps=4",
    )  # fmt: skip
    manifest, _ = tiny.run("train", tmp_path, *averaging)
    assert manifest.details["averaged"]
    assert manifest.details["best_step"] == 40
    saved = read_checkpoint(f"{tmp_path}/train/checkpoint.ckpt")
    best = read_checkpoint(f"{tmp_path}/train/best.ckpt")["state_dict"]
    assert all(torch.equal(best[f"network.{n}"], w) for n, w in saved["average"].items())
    assert not all(torch.equal(best[n], w) for n, w in saved["state_dict"].items())


def test_without_held_out_text_there_is_no_best_step(tiny: Tiny, tmp_path: Path) -> None:
    none = ("prepare.valid_fraction=0", f"train.corpus={tmp_path}/prepare")
    tiny.run("prepare", tmp_path, *none)
    manifest, _ = tiny.run("train", tmp_path, *none)
    assert [file.name for file in manifest.files] == ["checkpoint.ckpt", "metrics.jsonl"]
    assert manifest.details["best_step"] is manifest.details["best"] is None
    exported, printed = tiny.run("export", tmp_path, *none)
    assert exported.asked["export.checkpoint"] == "last"
    assert "parameters of step 40, " in printed
    assert "The weights are those" not in (tmp_path / "export" / "README.md").read_text()
    with pytest.raises(
        UserError,
        match=rf"export\.checkpoint=best: {tmp_path}/train has no best\.ckpt, because no held-out text was "
        r"evaluated in its training, or a former version of biloom finished it; set export\.checkpoint=last",
    ):
        tiny.run(
            "export", tmp_path / "other", *none, "export.checkpoint=best", f"run.output={tmp_path}"
        )


# Kills and resumes


@pytest.mark.parametrize(
    "ending",
    ["best-000000015.ckpt", "step-000000020.ckpt", "step-000000030.ckpt", "step-000000040.ckpt"],
)
def test_a_killed_training_ends_with_the_same_best_weights(
    tiny: Tiny, overfitted: tuple[Path, Manifest, str], tmp_path: Path, ending: str
) -> None:
    with killed_at("atomic_writer", ending):
        tiny.run("train", tmp_path, *UNSTABLE)
    manifest, _ = tiny.run("train", tmp_path, *UNSTABLE)
    assert bytes_of(tmp_path) == bytes_of(overfitted[0])
    assert manifest.content == overfitted[1].content


def test_a_training_resumed_from_the_checkpoint_before_the_newest_ends_with_the_same_best_weights(
    tiny: Tiny, overfitted: tuple[Path, Manifest, str], tmp_path: Path
) -> None:
    with killed_at("atomic_writer", "step-000000030.ckpt"):
        tiny.run("train", tmp_path, *UNSTABLE)
    [newest] = tmp_path.glob("train/_work/*/step-000000020.ckpt")
    newest.write_bytes(b"damaged")
    _, printed = tiny.run("train", tmp_path, *UNSTABLE)
    assert "resuming from step 10" in printed
    assert bytes_of(tmp_path) == bytes_of(overfitted[0])


def test_raised_steps_keep_the_best_step(
    tiny: Tiny, overfitted: tuple[Path, Manifest, str], tmp_path: Path
) -> None:
    tiny.run("train", tmp_path, *UNSTABLE, "train.steps=20")
    manifest, _ = tiny.run("train", tmp_path, *UNSTABLE)
    assert manifest.details["best_step"] == 15
    assert manifest.content == overfitted[1].content
    assert bytes_of(tmp_path)["best.ckpt"] == bytes_of(overfitted[0])["best.ckpt"]
    assert evaluations(tmp_path) == evaluations(overfitted[0])


# Patience


def test_patience_ends_a_training(stopped: tuple[Path, Manifest, str]) -> None:
    output, manifest, printed = stopped
    details = manifest.details
    assert (details["steps"], details["planned_steps"], details["best_step"]) == (30, 40, 15)
    assert details["tokens"] == 30 * 15
    assert [*evaluations(output)] == [5, 10, 15, 20, 25, 30]
    reason = "3 held-out evaluations in a row did not improve on the best one (train.patience=3)"
    assert details["stopped"] == reason
    assert (
        f"stopped at step 30 of 40, because {reason}; the same command with a larger train.patience trains "
        "further\n" in printed
    )


def test_a_stopped_training_is_done(tiny: Tiny, stopped: tuple[Path, Manifest, str]) -> None:
    _, printed = tiny.run("train", stopped[0], *PATIENT)
    assert "already done" in printed


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("atomic_writer", "step-000000030.ckpt"),
        ("copy", "step-000000030.ckpt"),
        ("copy", "best-000000015.ckpt"),
        ("write_bytes", "train/manifest.json"),
    ],
)
def test_a_training_killed_around_its_stop_ends_with_the_same_bytes(
    tiny: Tiny, stopped: tuple[Path, Manifest, str], tmp_path: Path, name: str, ending: str
) -> None:
    with killed_at(name, ending):
        tiny.run("train", tmp_path, *PATIENT)
    manifest, _ = tiny.run("train", tmp_path, *PATIENT)
    assert bytes_of(tmp_path) == bytes_of(stopped[0])
    assert manifest.content == stopped[1].content


@pytest.mark.parametrize("patience", ["99", "null"])
def test_more_patience_trains_further(
    tiny: Tiny, overfitted: tuple[Path, Manifest, str], tmp_path: Path, patience: str
) -> None:
    tiny.run("train", tmp_path, *PATIENT)
    manifest, printed = tiny.run("train", tmp_path, *UNSTABLE, f"train.patience={patience}")
    assert "resuming from step 30" in printed
    assert manifest.details["steps"] == 40
    assert bytes_of(tmp_path)["best.ckpt"] == bytes_of(overfitted[0])["best.ckpt"]
    assert manifest.content == overfitted[1].content


def test_more_patience_resumes_unfinished_work(
    tiny: Tiny, overfitted: tuple[Path, Manifest, str], tmp_path: Path
) -> None:
    with killed_at("atomic_writer", "step-000000030.ckpt"):
        tiny.run("train", tmp_path, *PATIENT)
    manifest, printed = tiny.run("train", tmp_path, *UNSTABLE)
    assert "resuming from step 20" in printed
    assert manifest.content == overfitted[1].content


def test_more_steps_without_more_patience_take_no_step(
    tiny: Tiny, stopped: tuple[Path, Manifest, str], tmp_path: Path
) -> None:
    tiny.run("train", tmp_path, *PATIENT)
    manifest, printed = tiny.run("train", tmp_path, *PATIENT, "train.steps=60")
    assert "stopped at step 30 of 60, because 3 held-out evaluations" in printed
    assert (manifest.details["steps"], manifest.details["planned_steps"]) == (30, 60)
    assert bytes_of(tmp_path)["best.ckpt"] == bytes_of(stopped[0])["best.ckpt"]


def test_less_patience_is_refused(tiny: Tiny, stopped: tuple[Path, Manifest, str]) -> None:
    with pytest.raises(UserError, match=r"train\.patience: 3 -> 2"):
        tiny.run("train", stopped[0], *UNSTABLE, "train.patience=2")
    with pytest.raises(UserError, match=r"train\.evaluate_steps: 5 -> 4"):
        tiny.run("train", stopped[0], *PATIENT, "train.evaluate_steps=4")
    with pytest.raises(UserError, match=r"train\.evaluate_rows: 256 -> 3"):
        tiny.run("train", stopped[0], *PATIENT, "train.evaluate_rows=3")


@pytest.mark.slow
def test_patience_ends_a_training_in_two_processes(tiny: Tiny, biloom: Any, tmp_path: Path) -> None:
    two = ("train.rows=4", "train.devices=2")
    done = biloom.run("train", *tiny.arguments(tmp_path, *PATIENT, *two))
    assert (done.returncode, done.stderr) == (0, "")
    details = read_manifest(f"{tmp_path}/train").details
    rows = evaluations(tmp_path)
    best = min(rows, key=lambda step: rows[step]["valid_loss"])
    assert details["best_step"] == best
    assert details["steps"] == max(rows) == best + 15 < 40
    assert read_checkpoint(f"{tmp_path}/train/best.ckpt")["step"] == best


# A sample of the held-out text


def test_a_sample_chooses_the_best_step_and_the_end_is_told_for_all_tokens(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a training that is killed before its last checkpoint."""
    monkeypatch.setattr("lightning_modules.training.validation.sample.LEAST_TOKENS", 200)
    manifest, printed = tiny.run("train", tmp_path / "one", *PATIENT)
    all_tokens = HeldOut.of(Corpus.open(f"{tiny.root}/prepare").shards("valid")).tokens
    assert (
        f"held-out evaluations read a fixed sample of at most 200 of {all_tokens} tokens, and all after the last step\n"
        in printed
    )
    details = manifest.details
    assert details["best"]["tokens"] <= 200
    assert details["last"]["tokens"] == all_tokens
    assert f"on all {all_tokens} tokens; the best step was chosen by a sample of" in printed
    rows = evaluations(tmp_path / "one")
    assert {row["valid_tokens"] for row in rows.values()} == {details["best"]["tokens"]}
    assert details["best_step"] == min(rows, key=lambda step: rows[step]["valid_loss"])

    with killed_at("atomic_writer", f"step-{details['steps']:09}.ckpt"):
        tiny.run("train", tmp_path / "two", *PATIENT)
    # The sample is that of the checkpoint, whatever the settings say now.
    monkeypatch.setattr("lightning_modules.training.validation.sample.LEAST_TOKENS", 300)
    other, printed = tiny.run("train", tmp_path / "two", *PATIENT)
    assert "the sample is that of the checkpoint, so that losses can be compared\n" in printed
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "one")
    assert other.content == manifest.content

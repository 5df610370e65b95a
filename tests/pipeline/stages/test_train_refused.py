"""Trainings that are refused, and the messages."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.cli import main
from preprocess.errors import UserError

Tiny = Any  # of conftest.py


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.head.cutoffs=[20,500]",
            r"model.head.cutoffs: \[20, 500\] must increase and lie between 0 and [\d,]+, ",
        ),
        ("train.rows=100000", r"fewer than train.rows = 100000; add text or lower"),
        ("train.device=cuda", "train.device is cuda, but torch finds no GPU; set it to auto"),
        ("prepare.tokenizer=/nowhere train.corpus=/nowhere", "holds no finished 'prepare'"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_with_one_message(
    tiny: Tiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = tiny.arguments(tmp_path, *override.split())

    with pytest.raises(UserError, match=message):
        tiny.run("train", tmp_path, *override.split())
    assert main(["train", *arguments]) == 2
    assert capsys.readouterr().err.startswith("biloom: ")


def test_a_required_compiler_that_is_missing_is_reported(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "")

    with pytest.raises(UserError, match=r"^train\.compile or .* is on, but .* no C\+\+ compiler"):
        tiny.run("train", tmp_path, "train.compile=on")


def test_cutoffs_beyond_the_vocabulary_are_refused_for_an_adaptive_input_too(
    tiny: Tiny, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"model\.head\.cutoffs: \[20000\] must increase and lie"):
        tiny.run("train", tmp_path, "model.input.kind=adaptive", "model.head.cutoffs=[20000]")


@pytest.mark.parametrize(
    ("deciding", "name"),
    [
        ("train.schedule={kind: plateau}", "train.schedule.kind=plateau"),
        ("train.optimizer={kind: sgd, average_after: 3}", "train.optimizer.average_after"),
        ("train.patience=2", "train.patience"),
    ],
)
def test_a_training_that_needs_held_out_text_is_refused_without_any(
    tiny: Tiny, tmp_path: Path, deciding: str, name: str
) -> None:
    none = ("prepare.valid_fraction=0", f"train.corpus={tmp_path}/prepare")
    tiny.run("prepare", tmp_path, *none)

    with pytest.raises(UserError, match=f"has no held-out text, which is needed for {name}; "):
        tiny.run("train", tmp_path, *none, deciding)


def test_a_damaged_shard_is_named_and_training_resumes_after_it_is_repaired(
    tiny: Tiny, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(tiny.root / "prepare", corpus)
    [shard] = corpus.glob("train-*.bin")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    for workers in (0, 1):
        with pytest.raises(UserError, match=rf"{shard.name} is damaged \(.*`biloom check"):
            tiny.run("train", tmp_path, f"train.corpus={corpus}", f"train.data_workers={workers}")
    shard.write_bytes(whole)

    tiny.run("train", tmp_path, f"train.corpus={corpus}")

    *_, last = (tmp_path / "train" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(last)["step"] == 40

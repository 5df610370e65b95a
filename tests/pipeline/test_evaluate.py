"""The evaluate stage."""

import json
from pathlib import Path
from typing import Any

import pytest

from preprocess.errors import UserError

Tiny = Any  # of conftest.py


def test_the_manifest_holds_the_figures_that_are_shown(tiny: Tiny, trained: Path) -> None:
    output = trained.parent / "evaluated"
    manifest, printed = tiny.run("evaluate", output, f"evaluate.checkpoint={trained}/train")
    figures = manifest.details

    lines = [line.strip() for line in printed.splitlines()]
    assert f"valid, {figures['tokens']:,} tokens:  | forward | backward | average" in lines
    for unit, key in (("token", "perplexity"), ("word", "word_perplexity")):
        shown = " | ".join(
            f"{figures[f'{way}_{key}']:,.1f}" for way in ("forward", "backward", "average")
        )
        assert f"perplexity a {unit} | {shown}" in lines
    assert f"{figures['bits_per_byte']:.3f} bits a byte of text" in lines
    assert figures["split"] == "valid"
    assert 1 < figures["average_perplexity"] < 103
    sums = json.loads((output / "evaluate" / "stats.json").read_text())
    assert sums["tokens"] == figures["tokens"]


def test_the_last_look_of_training_and_the_stage_agree(trained: Path) -> None:
    rows = (trained / "train" / "metrics.jsonl").read_text().splitlines()
    look = json.loads(rows[-1])["valid_average_perplexity"]
    figures = json.loads((trained / "evaluate" / "manifest.json").read_text())["details"]

    assert look == pytest.approx(figures["average_perplexity"], rel=1e-5)


def test_an_empty_split_is_told_and_is_no_mistake(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    manifest, printed = tiny.run(
        "evaluate", tmp_path, "evaluate.split=test", f"evaluate.checkpoint={trained}/train"
    )

    assert manifest.details == {"split": "test", "tokens": 0}
    assert (
        "nothing to evaluate: the test split is empty (more text, or a larger "
        "prepare.test_fraction, fills it)" in printed
    )


def test_a_corpus_of_another_tokenizer_is_refused(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    other = (
        f"prepare.tokenizer={tmp_path}/tokenizer",
        "tokenizer.min_count=20",
        f"evaluate.corpus={tmp_path}/prepare",
        f"evaluate.checkpoint={trained}/train",
    )
    for stage in ("tokenizer", "prepare"):
        tiny.run(stage, tmp_path, *other)

    with pytest.raises(UserError, match=r"another tokenizer than the model's; prepare it with"):
        tiny.run("evaluate", tmp_path, *other)


def test_a_folder_without_a_model_is_told(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished 'train'"):
        tiny.run("evaluate", tmp_path)


def test_a_checkpoint_that_is_gone_is_told(tiny: Tiny, tmp_path: Path) -> None:
    tiny.run("train", tmp_path, "train.steps=1")
    (tmp_path / "train" / "checkpoint.ckpt").unlink()

    with pytest.raises(UserError, match=r"checkpoint\.ckpt is missing or damaged"):
        tiny.run("evaluate", tmp_path)

"""`train.passes` and `train.recipe` are resolved when the corpus is prepared; then only the values count."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.load import load_config
from pipeline.lifecycle.inputs import one_pass, trained_config
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest

Tiny = Any  # of conftest.py
STILL = ("model.input.dropout=0", "model.recurrent.dropout=0", "train.schedule.kind=constant")


def passes_of(tiny: Tiny, steps: int) -> float:
    """Return the passes of this many steps of the tiny config's 15 tokens."""
    return steps * 15 / one_pass(read_manifest(str(tiny.root / "prepare")))


def test_passes_are_the_same_training_as_their_number_of_steps(tiny: Tiny, tmp_path: Path) -> None:
    passes = f"train.passes={passes_of(tiny, 30)}"
    made, _ = tiny.run("train", tmp_path, passes)
    assert made.details["steps"] == 30
    again, printed = tiny.run("train", tmp_path, "train.steps=30")
    assert "already done" in printed
    assert again.content == made.content
    assert "already done" in tiny.run("train", tmp_path, passes)[1]
    assert load_config([str(tmp_path / "train" / "config.yaml")], []).train.steps == 30


def test_raised_passes_continue_a_finished_training(tiny: Tiny, tmp_path: Path) -> None:
    whole, _ = tiny.run("train", tmp_path / "whole", *STILL, "train.steps=70")
    grown = tmp_path / "grown"
    tiny.run("train", grown, *STILL, f"train.passes={passes_of(tiny, 30)}")
    made, printed = tiny.run("train", grown, *STILL, f"train.passes={passes_of(tiny, 70)}")
    assert "resuming from step 30" in printed
    assert made.content == whole.content
    with pytest.raises(UserError, match=r"train\.steps: 70 -> 30"):
        tiny.run("train", grown, *STILL, f"train.passes={passes_of(tiny, 30)}")


def test_a_recipe_is_the_same_training_as_its_values_set_by_hand(
    tiny: Tiny, tmp_path: Path
) -> None:
    made, printed = tiny.run("train", tmp_path, "train.recipe=auto", "train.passes=0.1")
    assert re.search(r"\n  recipe for [\d.k,]+ tokens: LSTM 2 x ", printed)
    assert (
        "set in the config, in place of the recipe: model.recurrent.hidden=8 (recipe: " in printed
    )
    config = trained_config(tiny.config(tmp_path, "train.recipe=auto", "train.passes=0.1"))
    by_hand = [
        f"model.input.dropout={config.model.input.dropout}",
        f"model.recurrent.dropout={config.model.recurrent.dropout}",
        f"train.steps={config.train.steps}",
    ]
    again, printed = tiny.run("train", tmp_path, *by_hand)
    assert "already done" in printed
    assert again.content == made.content
    assert "recipe for" not in printed


def test_a_recipe_goes_on_if_its_passes_are_raised(tiny: Tiny, tmp_path: Path) -> None:
    recipe = ("train.recipe=auto", "train.schedule.kind=constant")
    tiny.run("train", tmp_path, *recipe, "train.passes=0.1")
    _, printed = tiny.run("train", tmp_path, *recipe, "train.passes=0.2")
    assert "resuming from step " in printed


def test_a_config_of_a_recipe_is_read_back_with_the_same_open_settings(
    tiny: Tiny, tmp_path: Path
) -> None:
    tiny.run("tokenizer", tmp_path, "train.recipe=auto", "train.passes=3")
    written = load_config([str(tmp_path / "tokenizer" / "config.yaml")], [])
    asked = tiny.config(tmp_path, "train.recipe=auto", "train.passes=3")
    assert written == asked
    assert trained_config(written) == trained_config(asked)

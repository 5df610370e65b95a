"""A config whose files set nothing of the model and its training gets a recipe."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.config.load import load_config
from pipeline.lifecycle.default_recipe import continued

Tiny = Any  # of conftest.py


@pytest.mark.parametrize(
    ("text", "overrides", "recipe"),
    [
        ("", (), "auto"),
        ("", ("train.steps=7", "model.recurrent.kind=gru", "model.input.dim=3"), "auto"),
        ("tokenizer: {vocabulary: 900}", (), "auto"),
        ("train: {devices: 2, passes: 3}", (), "auto"),
        ("model:", (), "auto"),
        ("train: {steps: 7}", (), None),
        ("train: {steps: 7}", ("train.steps=8",), None),
        ("model: {recurrent: {hidden: 512}}", ("train.steps=8",), None),
        ("train: {recipe: null}", (), None),
        ("", ("train.recipe=null",), None),
        ("train: {steps: 7, recipe: auto}", (), "auto"),
    ],
)
def test_only_a_file_that_sets_the_training_has_no_recipe(
    tmp_path: Path, text: str, overrides: tuple[str, ...], recipe: str | None
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"prepare: {{input: a.txt}}\nrun: {{output: {tmp_path}/out}}\n{text}\n")
    config = load_config([str(file)], overrides, default_recipe=True)
    assert config.train.recipe == recipe
    assert continued(config) == config
    plain = load_config([str(file)], overrides)
    assert plain.train.model_fields_set == config.train.model_fields_set


def recipe_of(overrides: list[str]) -> str | None:
    return continued(load_config([], overrides, default_recipe=True)).train.recipe


def overrides_of(tiny: Tiny, output: Path, *more: str) -> list[str]:
    root = tiny.root
    return [
        *(f"prepare.input={root}/corpus.txt", "prepare.valid_fraction=0.1", f"run.output={output}"),
        *(f"train.corpus={root}/prepare", "tracking.wandb=off", "train.device=cpu", *more),
    ]


def test_a_training_that_was_begun_without_a_recipe_goes_on_without(
    tiny: Tiny, tmp_path: Path
) -> None:
    small = ("train.steps=3", "model.recurrent.hidden=8", "train.compile=off")
    given = overrides_of(tiny, tmp_path, *small)
    assert main(["train", *given, "train.recipe=null"]) == 0
    assert recipe_of(given) is None
    assert main(["train", *given]) == 0
    other = overrides_of(tiny, tmp_path / "other", *small)
    assert main(["train", *other]) == 0
    assert recipe_of(other) == "auto"
    assert main(["train", *other]) == 0

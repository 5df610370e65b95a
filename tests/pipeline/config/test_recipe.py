"""Settings that are not set follow from the size of the corpus by one table."""

import math
from typing import Any

import pytest

from pipeline.config import recipe
from pipeline.config.load import ConfigError, dump_config, load_config
from pipeline.config.recipe import (
    RECIPES,
    open_settings,
    recipe_for,
    recipe_lines,
    resolve,
)
from pipeline.config.schema import Config
from pipeline.training.forecast import passes_warning


def config(*overrides: str) -> Config:
    return load_config([], ["prepare.input=a.txt", *overrides])


def auto(*overrides: str) -> Config:
    return config("train.recipe=auto", *overrides)


def test_without_a_recipe_nothing_changes() -> None:
    plain = config()
    assert resolve(plain, 1e6) == plain
    assert not open_settings(plain)


def test_recipes_are_in_the_order_of_their_size() -> None:
    bounds = [one.tokens for one in RECIPES]
    assert bounds == sorted(bounds)
    assert recipe_for(bounds[0]) is RECIPES[0]
    assert recipe_for(bounds[0] + 1) is RECIPES[1]
    assert recipe_for(1e15) is RECIPES[-1]


def test_less_text_gets_more_dropout_and_no_larger_model() -> None:
    dropouts = [one.dropout for one in RECIPES]
    sizes = [(one.hidden, one.projection) for one in RECIPES]
    assert dropouts == sorted(dropouts, reverse=True)
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("one", RECIPES)
def test_no_recipe_is_warned_of(one: recipe.Recipe) -> None:
    assert passes_warning(one.passes, 1000, one.dropout) is None


@pytest.mark.parametrize("one", RECIPES)
def test_a_recipe_sets_what_is_not_set(one: recipe.Recipe) -> None:
    tokens = min(one.tokens, 1e9)
    made = resolve(auto(), tokens)
    lstm, train = made.model.recurrent, made.train
    assert (lstm.hidden, lstm.dropout, made.model.input.dropout) == (
        one.hidden,
        one.dropout,
        one.dropout,
    )
    assert train.steps == math.ceil(one.passes * tokens / (train.rows * train.unroll))
    assert (train.learning_rate, train.rows, train.unroll) == (
        one.learning_rate,
        one.rows,
        one.unroll,
    )
    assert train.warmup_steps < train.steps
    assert 10 <= train.steps / train.evaluate_steps <= 30
    assert resolve(made, 7) == made, "a resolved config stays"
    assert not open_settings(made)


def test_what_is_set_wins_and_is_shown() -> None:
    mine = auto("model.recurrent.hidden=512", "train.learning_rate=1e-3", "train.steps=70")
    made = resolve(mine, 1e5)
    assert (made.train.steps, made.train.learning_rate) == (70, 1e-3)
    assert made.model.recurrent.hidden == 512
    chosen = recipe_for(1e5)
    assert made.model.recurrent.dropout == chosen.dropout
    assert recipe_lines(made, 1e5)[-1] == (
        f"set in the config, in place of the recipe: model.recurrent.hidden=512 (recipe: {chosen.hidden}), "
        f"train.learning_rate=0.001 (recipe: {chosen.learning_rate}), train.steps=70, 0.45 passes "
        f"(recipe: {math.ceil(chosen.passes * 1e5 / 640)}, {chosen.passes:g})"
    )


def test_a_default_that_is_written_is_set() -> None:
    made = resolve(auto("train.learning_rate=1e-3", "model.recurrent.hidden=512"), 1e5)
    assert (made.train.learning_rate, made.model.recurrent.hidden) == (1e-3, 512)


def test_a_narrow_layer_has_a_narrower_projection() -> None:
    made = resolve(auto("model.recurrent.hidden=20"), 1e5)
    assert made.model.recurrent.model_dump()["projection"] == 10
    none = resolve(auto("model.recurrent.projection=null"), 1e5)
    assert none.model.recurrent.model_dump()["projection"] is None


def test_other_kinds_get_what_suits_them() -> None:
    gru = resolve(auto("model.recurrent.kind=gru", "train.optimizer.kind=sgd"), 1e5)
    assert gru.model.recurrent.hidden == recipe_for(1e5).hidden // 2
    assert gru.train.learning_rate == config().train.learning_rate
    assert recipe_lines(gru, 1e5)[0].startswith("recipe for 100k tokens: GRU 2 x 128, dropout ")
    sru = resolve(auto("model.recurrent.kind=sru"), 1e5)
    assert recipe_lines(sru, 1e5)[0].startswith("recipe for 100k tokens: SRU 2 x 144, dropout ")
    hgrn2 = resolve(auto("model.recurrent.kind=hgrn2"), 1e5)
    assert recipe_lines(hgrn2, 1e5)[0].startswith("recipe for 100k tokens: HGRN2 2 x 256 / 128, ")
    cnn = resolve(auto("model.input.kind=char_cnn"), 1e5)
    assert cnn.model.input.dropout == recipe_for(1e5).dropout


@pytest.mark.parametrize(
    ("tokens", "passes"), [(1e5, 8), (6e5, 5), (1e6, 4), (9e6, 4), (4e7, 1), (1e9, 1)]
)
def test_an_sru_makes_four_passes_where_others_make_two(tokens: float, passes: float) -> None:
    sru = resolve(auto("model.recurrent.kind=sru"), tokens)
    assert sru.train.steps == math.ceil(passes * tokens / (sru.train.rows * sru.train.unroll))
    line = recipe_lines(sru, tokens)[0]
    assert f", {passes:g} pass{'es' if passes > 1 else ''}, because " in line
    assert ("because a small SRU can read this text four times" in line) == (passes == 4)


def test_raised_passes_change_nothing_but_the_steps() -> None:
    few, many = (resolve(auto(f"train.passes={passes}"), 1e6) for passes in (1, 7))
    assert many.train.steps > few.train.steps
    assert many.train.model_copy(update={"steps": few.train.steps}) == few.train
    assert many.model == few.model


@pytest.mark.parametrize("tokens", [641, 123_457, 999_999])
@pytest.mark.parametrize("steps", [1, 7, 1000, 123_457])
def test_steps_survive_a_conversion_to_passes(tokens: int, steps: int) -> None:
    passes = steps * 640 / tokens
    assert resolve(config(f"train.passes={passes!r}"), tokens).train.steps == steps


def test_one_pass_reads_all() -> None:
    assert resolve(config("train.passes=1"), 641).train.steps == 2


@pytest.mark.parametrize("tokens", [0, 1, 30, 500, 5_000])
def test_a_tiny_corpus_has_few_rows(tokens: int) -> None:
    train = resolve(auto(), tokens).train
    assert train.steps >= 1
    assert train.rows == 1 or train.rows * train.unroll * 10 <= tokens


def test_a_small_corpus_is_told_what_a_larger_one_would_get() -> None:
    lines = recipe_lines(resolve(auto(), 130_000), 130_000)
    assert lines[0].startswith("recipe for 130k tokens: LSTM 2 x ")
    assert ", because " in lines[0]
    assert lines[1].startswith("130k tokens are little: ")
    assert "; 1.3M tokens would get LSTM 2 x " in lines[1]
    assert "; 80k tokens would get " in recipe_lines(resolve(auto(), 30), 30)[1]
    assert len(recipe_lines(resolve(auto(), 1e9), 1e9)) == 1
    assert recipe_lines(resolve(config("train.passes=2"), 1e5), 1e5) == []


def test_open_settings_are_comments_in_a_dump(tmp_path: Any) -> None:
    mine = auto("train.rows=64", "train.passes=3")
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(mine))
    assert "\n  # steps: follows from the size of the corpus\n" in file.read_text()
    again = load_config([str(file)], [])
    assert (again, open_settings(again)) == (mine, open_settings(mine))
    assert resolve(again, 1e6) == resolve(mine, 1e6)


def test_steps_and_passes_in_one_file_are_a_mistake(tmp_path: Any) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("prepare: {input: a.txt}\ntrain:\n  steps: 10000\n  passes: 3\n")
    with pytest.raises(ConfigError) as error:
        load_config([str(file)], [])
    assert error.value.problems == [
        f"{file}:4: train: steps and passes both set the length of training; set one of them (see "
        f"also {file}:3)"
    ]
    both = ("train.steps=3", "train.passes=2")
    with pytest.raises(ConfigError, match=r"train\.passes=2': train: steps and passes both"):
        config(*both)


@pytest.mark.parametrize("order", [1, -1])
def test_a_later_length_replaces_an_earlier_one(tmp_path: Any, order: int) -> None:
    first, second = [("steps", 10), ("passes", 3)][::order]
    file = tmp_path / "a.yaml"
    file.write_text(f"prepare: {{input: a.txt}}\ntrain: {{{first[0]}: {first[1]}}}\n")
    notes: list[str] = []
    made = load_config([str(file)], [f"train.{second[0]}={second[1]}"], notes)
    assert getattr(made.train, second[0]) == second[1]
    assert notes == [f"train.{second[0]}={second[1]} replaces train.{first[0]}={first[1]}"]


@pytest.mark.parametrize("passes", ["0", "-1", "1e9", "many", ".inf"])
def test_passes_are_a_positive_number(passes: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.passes: must be "):
        config(f"train.passes={passes}")

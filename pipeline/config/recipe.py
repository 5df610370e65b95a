"""Settings that follow from the size of the corpus: `train.recipe` and `train.passes`.

A result is identified by the settings that `resolve` returns, so the same values written by hand give
the same fingerprint. Imports no torch.
"""

import math
from typing import Any, NamedTuple, TypeVar

from lightning_modules.recurrent_config import (
    HGRN2Config,
    LSTMConfig,
    RecurrentConfig,
    SRUConfig,
)
from lightning_modules.training.config import AdamConfig, AdamWConfig, TrainConfig
from pipeline.config.schema import Config
from pipeline.console import count
from preprocess.section import Section

OPEN = "follows from the size of the corpus"
"""Stands in a dumped config in place of the value of a setting that `resolve` gives."""
EVALUATIONS = 20
"""Held-out evaluations during the passes of a recipe."""
WARMUP_SHARE, LEAST_WARMUP, MOST_WARMUP = 0.025, 10, 1000
"""Share of a recipe's steps in which the learning rate rises, and the bounds of their number."""
LEAST_WINDOWS = 10
"""Windows of a row in a pass over a tiny corpus; with fewer, a recipe has fewer rows."""
SHARE = 2
"""Width of an LSTM's cells over the width of a GRU, and over the projection of HGRN2."""
SRU_SHARE = 9 / 16
"""Width of an SRU over that of an LSTM's cells."""
LITTLE_TOKENS = 10_000_000
"""Tokens below which a corpus is called small: its vectors fit its own subject and style only."""


S = TypeVar("S", bound=Section)


class Recipe(NamedTuple):
    """Settings for corpora of a size.

    Attributes:
        tokens: upper bound of the tokens and document ends of the train split.
        hidden, projection: sizes of the two LSTM layers. `_sizes` has those of other kinds.
        dropout: dropout of the input vectors and of the layers.
        passes: passes over the train split.
        learning_rate: peak learning rate of Adam.
        why: the reason, to be printed after "because".
        rows, unroll: size of a batch.
    """

    tokens: float
    hidden: int
    projection: int
    dropout: float
    passes: float
    learning_rate: float
    why: str
    rows: int = 32
    unroll: int = 20


FEW = "so little text is memorised in a few passes without dropout"
SOME = "this text can be read twice before a model memorises it, even without dropout"
SRU_SOME = "a small SRU can read this text four times before it memorises it, even without dropout"
MANY = (
    "a single pass over this much text memorises nothing, so that dropout would only slow it down"
)
RECIPES = (
    Recipe(80_000, 256, 96, 0.3, 8, 8e-3, FEW),
    Recipe(250_000, 256, 96, 0.2, 8, 8e-3, FEW),
    Recipe(700_000, 256, 96, 0.1, 5, 8e-3, FEW),
    Recipe(2_000_000, 256, 96, 0.0, 2, 8e-3, SOME),
    Recipe(10_000_000, 512, 128, 0.0, 2, 4e-3, SOME),
    Recipe(50_000_000, 512, 128, 0.0, 1, 4e-3, MANY),
    Recipe(250_000_000, 1024, 256, 0.0, 1, 2e-3, MANY, 128, 32),
    Recipe(math.inf, 2048, 512, 0.0, 1, 1e-3, MANY, 256, 32),
)
"""The recipe of a corpus is the first one whose bound is not exceeded (measured: docs/recipes.md)."""


def recipe_for(tokens: float, recurrent: RecurrentConfig | None = None) -> Recipe:
    """Return the recipe for a train split of this many tokens and document ends.

    An SRU makes four passes in less time than an LSTM makes two.

    Args:
        tokens: the number of tokens and document ends.
        recurrent: the recurrent layers; None means an LSTM.
    """
    recipe = next(recipe for recipe in RECIPES if tokens <= recipe.tokens)
    if isinstance(recurrent, SRUConfig) and recipe.passes == 2:
        return recipe._replace(passes=4, why=SRU_SOME)
    return recipe


def resolve(config: Config, tokens: float) -> Config:
    """Return the config with the settings that follow from the size of the corpus.

    With ``train.recipe``, every setting of `recipe_settings` that is not set gets its value from the
    recipe. Then ``train.passes`` becomes a number of ``train.steps``. A resolved config is returned
    unchanged.

    Args:
        config: the config; its ``model_fields_set`` tell which settings are set.
        tokens: number of tokens and document ends of the train split, exact or estimated.
    """
    model, train = config.model, config.train
    passes = train.passes
    if train.recipe:
        settings = recipe_settings(config, tokens)
        if "steps" not in train.model_fields_set and passes is None:
            passes = recipe_for(tokens, model.recurrent).passes
        model = _filled(model, "model.", settings)
        train = _filled(train, "train.", settings)
    if passes is not None:
        steps = steps_of(passes, tokens, train)
        train = train.model_copy(update={"passes": None, "steps": steps})
    return config.model_copy(update={"model": model, "train": train})


def recipe_settings(config: Config, tokens: float) -> dict[str, Any]:
    """Return the settings of the recipe for a corpus by dotted keys, except for the number of steps.

    They depend on the kinds in the config, and on no setting that can be raised later, so that a
    finished training can be continued.

    Args:
        config: the config.
        tokens: number of tokens and document ends of the train split.
    """
    recipe = recipe_for(tokens, config.model.recurrent)
    fitting = max(1, int(tokens / (recipe.unroll * LEAST_WINDOWS)))
    settings: dict[str, Any] = {"model.input.dropout": recipe.dropout}
    sizes = _sizes(config.model.recurrent, recipe)
    settings |= {f"model.recurrent.{name}": size for name, size in sizes.items()}
    settings |= {
        "model.recurrent.dropout": recipe.dropout,
        "train.rows": min(recipe.rows, 1 << fitting.bit_length() - 1),
        "train.unroll": recipe.unroll,
    }
    if isinstance(config.train.optimizer, AdamConfig | AdamWConfig):
        settings["train.learning_rate"] = recipe.learning_rate
    steps = steps_of(recipe.passes, tokens, _filled(config.train, "train.", settings))
    warmup = min(max(round(steps * WARMUP_SHARE), LEAST_WARMUP), MOST_WARMUP)
    settings["train.warmup_steps"] = warmup
    settings["train.evaluate_steps"] = max(1, steps // EVALUATIONS)
    return settings


def _sizes(recurrent: RecurrentConfig, recipe: Recipe) -> dict[str, int]:
    """Return the sizes of a layer of a kind under a recipe.

    Layers of HGRN2 have about as many weights as those of an LSTM, layers of a GRU and an SRU fewer. The
    recipe is that of the kind.
    """
    match recurrent:
        case LSTMConfig():
            hidden = recurrent.hidden if "hidden" in recurrent.model_fields_set else recipe.hidden
            return {
                "hidden": recipe.hidden,
                "projection": min(recipe.projection, max(1, hidden // 2)),
            }
        case HGRN2Config():
            return {"hidden": recipe.hidden, "projection": recipe.hidden // SHARE}
        case SRUConfig():
            return {"hidden": round(recipe.hidden * SRU_SHARE)}
        case _:
            return {"hidden": recipe.hidden // SHARE}


def recipe_lines(config: Config, tokens: float) -> list[str]:
    """Return what the recipe chose and why, and which settings of the config differ from it.

    Args:
        config: a resolved config.
        tokens: number of tokens and document ends of the train split.
    """
    if not config.train.recipe:
        return []
    recurrent = config.model.recurrent
    recipe, size = recipe_for(tokens, recurrent), count(tokens)
    lines = [f"recipe for {size} tokens: {_described(recipe, config)}, because {recipe.why}"]
    if tokens < LITTLE_TOKENS:
        more = max(10 * tokens, recipe.tokens + 1)
        lines.append(
            f"{size} tokens are little: the model learns the words and the style of this text only; "
            f"{count(more)} tokens would get {_described(recipe_for(more, recurrent), config)}"
        )
    settings = recipe_settings(config, tokens)
    own = [
        f"{key}={_value(config, key)} (recipe: {value})"
        for key, value in settings.items()
        if _value(config, key) != value
    ]
    steps, train = steps_of(recipe.passes, tokens, config.train), config.train
    if train.steps != steps:
        passes = train.steps * train.tokens_a_step / tokens
        own.append(
            f"train.steps={train.steps}, {passes:.2f} passes (recipe: {steps}, {recipe.passes:g})"
        )
    if own:
        lines.append(f"set in the config, in place of the recipe: {', '.join(own)}")
    return lines


def _described(recipe: Recipe, config: Config) -> str:
    recurrent = config.model.recurrent
    width = f"{recipe.hidden} / {recipe.projection}"
    if not isinstance(recurrent, LSTMConfig):
        width = " / ".join(map(str, _sizes(recurrent, recipe).values()))
    passes = "1 pass" if recipe.passes == 1 else f"{recipe.passes:g} passes"
    kind = recurrent.kind.upper()
    return f"{kind} {recurrent.layers} x {width}, dropout {recipe.dropout:g}, {passes}"


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name, None)
    return value


def steps_of(passes: float, tokens: float, train: TrainConfig) -> int:
    """Return the fewest steps that make this many passes over a train split, at least 1."""
    steps = passes * tokens / train.tokens_a_step
    # A number of steps that was converted to passes and back must not grow by rounding.
    return max(1, math.ceil(steps * (1 - 1e-9)))


def open_settings(config: Config) -> frozenset[str]:
    """Return the dotted keys of the settings that are not known before `resolve`.

    Their values in ``config`` are defaults that do not count.
    """
    train = config.train
    keys = {"train.steps"} if train.passes is not None else set()
    if train.recipe:
        keys |= recipe_settings(config, 1).keys() | {"train.steps"}
    return frozenset(key for key in keys if not _is_set(config, key))


def with_default_recipe(config: Config) -> Config:
    """Return the config with ``train.recipe=auto``, which does not count as set."""
    values = {**dict(config.train), "recipe": "auto"}
    train = TrainConfig.model_construct(config.train.model_fields_set, **values)
    return config.model_copy(update={"train": train})


def has_default_recipe(config: Config) -> bool:
    """Return True if the recipe of the config is from `with_default_recipe`."""
    return bool(config.train.recipe) and "recipe" not in config.train.model_fields_set


def _is_set(config: Config, key: str) -> bool:
    above, _, name = key.rpartition(".")
    section: Section = _value(config, above)
    return name in section.model_fields_set


def _filled(section: S, prefix: str, settings: dict[str, Any]) -> S:
    """Return the section with values for the settings that it has and that are not set."""
    update: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            update[name] = _filled(value, f"{prefix}{name}.", settings)
        elif prefix + name in settings and name not in section.model_fields_set:
            update[name] = settings[prefix + name]
    return section.model_copy(update=update)

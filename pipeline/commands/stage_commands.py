"""The commands that run stages: `biloom run`, and one for each stage."""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from pipeline.commands.command import Command
from pipeline.lifecycle.order import STAGE_ORDER

ARGUMENTS = {
    "config": {
        "nargs": "+",
        "metavar": "CONFIG|KEY=VALUE",
        "help": "YAML file, name of a shipped config, or a setting that overrides both",
    },
    "--overwrite": {"action": "store_true", "help": "move results made with other settings aside"},
    "--print-config": {
        "action": "store_true",
        "help": "print the merged config with every setting explained, and exit",
    },
    "--dry-run": {
        "action": "store_true",
        "help": "print the plan with estimates, and exit; writes nothing",
    },
}
RESUME = "A finished stage is not run again; an interrupted one is resumed."


def _run(command: str, options: Namespace) -> int:
    from pipeline.config.load import load_config
    from pipeline.lifecycle.default_recipe import continued
    from pipeline.training.processes import is_further_process

    files, overrides = files_and_overrides(options.config)
    notes: list[str] = []
    config = continued(load_config(files, overrides, notes, default_recipe=True))
    if options.print_config:
        from pipeline.config.annotated import annotated_config

        print(annotated_config(config, notes), end="")
        return 0
    if command in ("run", "train") and is_further_process(config.train):
        if options.dry_run:
            return 0  # the first process prints the plan, and trains nothing
        from pipeline.stages.train import join

        return join(config, command == "run", options.overwrite)
    from pipeline.console import Console

    console = Console()
    for note in notes:
        console.warn(note)
    if options.dry_run:
        from pipeline.commands.dry_run import dry_run

        dry_run(config, command, console, options.overwrite)
        return 0
    from pipeline.stages.run import run

    run(config, command, console, overwrite=options.overwrite)
    return 0


def files_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of a command that name configs, and those that set a key.

    Raises:
        ConfigError: a word that is no config follows a setting, because the shell split the setting.
    """
    _check_split_values(words)
    overrides = [word for word in words if _is_override(word)]
    return [word for word in words if word not in overrides], overrides


def _check_split_values(words: Sequence[str]) -> None:
    """Refuse a word that is no config and follows a setting, because the shell split the setting."""
    from pipeline.config.load import ConfigError, find_config

    for before, word in pairwise(words):
        if _is_override(before) and not _is_override(word):
            try:
                find_config(word)
            except ConfigError as error:
                raise ConfigError(
                    [
                        f"{error}; if it belongs to the value before it, quote both: '{before} {word}'"
                    ]
                ) from error


def _is_override(word: str) -> bool:
    """Return True if ``word`` sets a key.

    ``./a=b.yaml`` is a file, and so is the name of an existing file that does not begin with the
    name of a section.
    """
    from pathlib import Path

    from pipeline.config.schema import Config

    key, equals, _ = word.partition("=")
    section = key.partition(".")[0]
    return bool(equals) and (section in Config.model_fields or not Path(word).exists())


def _command(name: str, help_: str, examples: tuple[str, str], settings: dict[str, str]) -> Command:
    return Command(help_, partial(_run, name), ARGUMENTS, examples, settings, RESUME)


_STAGES = {
    "tokenizer": _command(
        "tokenizer",
        "learn a tokenizer from a sample of the corpus",
        (
            "biloom tokenizer quickstart",
            "biloom tokenizer base 'prepare.input=text/*.txt' run.output=runs/mine",
        ),
        {
            "tokenizer.kind": "sentencepiece (subwords), char, word or huggingface (a tokenizer.json)",
            "tokenizer.vocabulary": "number of subwords",
            "tokenizer.file": "a SentencePiece model, or a tokenizer.json, to use instead of learning one",
            "tokenizer.min_count": "kind word: rarer words become the unknown word",
            "prepare.input": "raw text: path, folder, glob, URL or a list",
        },
    ),
    "prepare": _command(
        "prepare",
        "clean, deduplicate and tokenise raw text into token shards",
        (
            "biloom prepare quickstart",
            "biloom prepare quickstart 'prepare.input=text/*.txt' run.output=runs/mine "
            "prepare.tokenizer=runs/quickstart/tokenizer",
        ),
        {
            "prepare.input": "raw text: path, folder, glob, URL or a list",
            "prepare.cleaning.unicode": "Unicode normalisation form",
            "prepare.filters": "drop by length, script or language",
            "prepare.deduplicate": "drop repeated documents",
            "prepare.near_duplicates.similarity": "drop near-duplicate documents",
            "prepare.valid_fraction": "share of documents held out",
            "runner.kind": "direct (this machine), flink, spark, ...",
        },
    ),
    "train": _command(
        "train",
        "train a language model on token shards",
        (
            "biloom train quickstart train.passes=4",
            "biloom train quickstart train.corpus=runs/quickstart/prepare "
            "run.output=runs/wider model.recurrent.hidden=512",
        ),
        {
            "train.passes": "passes over the corpus; may be raised later",
            "train.steps": "optimiser steps, in place of passes",
            "train.recipe": "auto: what is not set follows from the size of the corpus",
            "train.patience": "evaluations without improvement after which training stops",
            "train.rows": "rows of a batch, over all devices",
            "train.unroll": "tokens that a row reads in a step",
            "train.learning_rate": "peak learning rate",
            "train.optimizer.kind": "adam, adamw, adagrad or sgd",
            "model.input.kind": "embedding, adaptive or char_cnn",
            "model.recurrent.kind": "lstm, gru, hgrn2 or sru",
            "model.recurrent.hidden": "width of the cell state",
            "model.recurrent.layers": "layers of each direction",
            "model.head.kind": "adaptive_softmax, softmax or sampled_softmax",
            "train.devices": "GPUs or CPU processes of each machine",
            "train.corpus": "corpus folder, if it is not this run's own",
        },
    ),
    "evaluate": _command(
        "evaluate",
        "measure the perplexity of held-out text",
        (
            "biloom evaluate quickstart",
            "biloom evaluate quickstart --overwrite",
        ),
        {
            "evaluate.split": "split to read: valid, test or train",
            "evaluate.corpus": "corpus folder, if it is not the one that was trained on",
            "evaluate.checkpoint": "best (default) or last step, or another train folder",
        },
    ),
    "export": _command(
        "export",
        "write a model folder from a checkpoint",
        (
            "biloom export quickstart",
            "biloom export quickstart export.checkpoint=runs/quickstart/train "
            "prepare.tokenizer=runs/quickstart/tokenizer run.output=runs/small "
            "export.weights=float16",
        ),
        {
            "export.weights": "type of the stored weights: float32, float16 or int8",
            "export.head": "keep the output layer, which scoring and training need",
            "export.checkpoint": "best (default) or last step, or another train folder",
        },
    ),
    "embed": _command(
        "embed",
        "write the contextual vectors of texts into a vector cache",
        (
            "biloom embed quickstart",
            "biloom embed quickstart 'embed.input=text/*.txt' embed.append=true",
        ),
        {
            "embed.input": "texts to embed; without it, a sample of the corpus",
            "embed.model": "model folder, if it is not this run's own",
            "embed.layers": "layers to store: all, top, mean, mix, concat or their numbers",
            "embed.unit": "what has a vector: token, word or sentence",
            "embed.dtype": "type of the stored values: float32, float16 or int8",
            "embed.append": "add the texts to a finished cache",
        },
    ),
}

STAGE_COMMANDS = {
    "run": _command(
        "run",
        "run all stages: raw text to contextual vectors and a report",
        (
            "biloom run quickstart",
            "biloom run quickstart 'prepare.input=text/*.txt' run.output=runs/mine "
            "report.words=null",
        ),
        {
            "run.output": "folder or URL of all results",
            "prepare.input": "raw text: path, folder, glob, URL or a list",
            "tokenizer.kind": "sentencepiece (subwords), char, word or huggingface (a tokenizer.json)",
            "model.recurrent.hidden": "width of the cell state",
            "train.passes": "passes over the corpus",
            "report.words": "words whose uses the report shows",
            "tracking.wandb": "auto, offline or off",
        },
    ),
    **{name: _STAGES[name] for name in STAGE_ORDER},
}

"""``--dry-run``: the plan of a run, on one screen.

It reads manifests, the names and sizes of files, and a small sample of the text, from which it estimates
the time, memory and disk of the tokenizer and prepare stages.
"""

from collections.abc import Mapping, Sequence
from textwrap import shorten

from lightning_modules.config import AdaptiveSoftmaxConfig
from lightning_modules.nn.heads.cutoffs import check_cutoffs
from lightning_modules.sizes import parameter_count
from pipeline.commands.look.sampled import (
    QUICK,
    QUICK_TRIAL_BYTES,
    estimate_stages,
    take_sample,
)
from pipeline.commands.look.tables import estimate_line
from pipeline.commands.training_plan import (
    Vocabulary,
    contents_of,
    known_vocabulary,
    show_training,
)
from pipeline.config.recipe import open_settings, resolve
from pipeline.config.schema import Config
from pipeline.console import Console, count
from pipeline.lifecycle.inputs import show_left_out, survey_all
from pipeline.lifecycle.plan import Plan, plan_of
from pipeline.stages.checks import check_config
from pipeline.stages.run import stages_of_command
from preprocess.config import Source
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.search.found import FileInfo
from preprocess.reading.units import plan_units

SEED = 1
"""Seed of the sample for the estimates."""
SHOWN_SOURCES = 8
SHOWN_STATE = 300


def dry_run(config: Config, command: str, console: Console, overwrite: bool = False) -> None:
    """Print the inputs, the size of the model, the length of training and the plan of each stage.

    Raises:
        StorageError: an input is not found.
        UserError: a stage cannot finish with these settings.
    """
    console.stage(f"plan of {command}", storage.absolute(config.run.output))
    stages = stages_of_command(config, command)
    check_config(config, stages)
    names = {stage.name for stage in stages}
    embedded = config.embed.sources if "embed" in names else None
    files: list[list[FileInfo]] = []
    if names & {"tokenizer", "prepare"} or ("embed" in names and not embedded):
        files = _inputs("inputs", config.prepare.sources, config.prepare.unit_bytes, console)
    if embedded:
        _inputs("inputs of embed", embedded, None, console)
    plans: dict[str, Plan] = {}
    for stage in stages:
        plans[stage.name] = plan_of(stage, config, plans, overwrite)
    _show_estimates(config, files, plans, console)
    if "train" in names:
        replaced = {name for name, plan in plans.items() if plan.action == "replace"}
        corpus = contents_of(config, bool(replaced & {"tokenizer", "prepare"}))
        config = resolve(config, corpus.one_pass) if corpus else config
        vocabulary = known_vocabulary(config, "tokenizer" in replaced)
        console.line(_model(config, vocabulary))
        if warning := _cutoffs_warning(config, vocabulary):
            console.warn(warning)
        show_training(config, vocabulary, corpus, plans["train"].action, console)
    rows = [
        [name, shorten(plan.text, SHOWN_STATE, placeholder=" ...)")] for name, plan in plans.items()
    ]
    console.table("stages", ["stage", "state"], rows)


def _inputs(
    title: str, sources: Sequence[Source], unit_bytes: int | None, console: Console
) -> list[list[FileInfo]]:
    """Print a row for each source, and return its files."""
    files, left_out = survey_all(sources)
    units = plan_units(sources, files, unit_bytes)
    rows = []
    total = 0
    for number, (source, found) in enumerate(zip(sources, files, strict=True)):
        size = sum(file.bytes for file in found)
        own = sum(unit.source == number for unit in units)
        total += size
        rows.append([source.name, f"{len(found):,}", f"{count(size)}B", f"{own:,}"])
    if len(rows) > SHOWN_SOURCES:
        more = sum(map(len, files[SHOWN_SOURCES - 1 :]))
        rows[SHOWN_SOURCES - 1 :] = [
            [f"{len(rows) - SHOWN_SOURCES + 1:,} more", f"{more:,}", "", ""]
        ]
        rows.append(["all", f"{sum(map(len, files)):,}", f"{count(total)}B", f"{len(units):,}"])
    console.table(title, ["source", "files", "size", "units"], rows)
    show_left_out(left_out, console)
    return files


def _show_estimates(
    config: Config,
    files: Sequence[Sequence[FileInfo]],
    plans: Mapping[str, Plan],
    console: Console,
) -> None:
    """Print what the tokenizer and prepare stages need, if they are to be made."""
    made = [name for name in ("tokenizer", "prepare") if _is_made(plans.get(name))]
    if not made:
        return
    is_stale = "tokenizer" in plans and plans["tokenizer"].action != "keep"
    try:
        sample = take_sample(config, files, QUICK, SEED)
        estimates = estimate_stages(sample, made, QUICK_TRIAL_BYTES, is_stale)
    except UserError as error:
        console.warn(f"no estimate of time, memory and disk: {error}")
        return
    for one in sample.samples:
        if one.problem:
            console.warn(f"this file cannot be read: {one.problem}")
            break
    for name, estimate in estimates.items():
        console.line(estimate_line(name, estimate))


def _is_made(plan: Plan | None) -> bool:
    return plan is not None and plan.action in ("make", "replace", "resume", "unknown")


def _cutoffs_warning(config: Config, vocabulary: Vocabulary) -> str | None:
    """Return a warning if training will refuse the cutoffs of the config, else None."""
    head = config.model.head
    if not isinstance(head, AdaptiveSoftmaxConfig) or head.cutoffs == "auto" or not vocabulary.size:
        return None
    try:
        check_cutoffs(head.cutoffs, config.model.predictable_ids(vocabulary.size))
    except UserError as error:
        return f"training will refuse this: {error}"
    return None


def _model(config: Config, vocabulary: Vocabulary) -> str:
    if any(key.startswith("model.") for key in open_settings(config)):
        return "model: its size depends on the number of tokens in the corpus (train.recipe)"
    if vocabulary.size is None:
        kinds = {"word": "words", "char": "characters"}[config.tokenizer.kind]
        return f"model: its size depends on the number of {kinds} in the corpus"
    head = config.model.head
    cutoffs: tuple[int, ...] = ()
    is_known = vocabulary.is_known
    if isinstance(head, AdaptiveSoftmaxConfig):
        is_known &= head.cutoffs != "auto"
        cutoffs = () if head.cutoffs == "auto" else head.cutoffs
    number = parameter_count(config.model, vocabulary.size, cutoffs)
    at_most = "" if is_known else "at most "
    return f"model: {at_most}{number:,} parameters, for a vocabulary of {vocabulary.size:,}"

"""The whole pipeline in order, or one stage of it."""

import logging
from collections.abc import Callable, Iterable
from functools import partial

from lightning_modules.training.distillation.source import teacher_folder
from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.checkpoints import named_checkpoint
from pipeline.lifecycle.inputs import checkpoint_setting, content_of, known_folders
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.running import run_stage
from pipeline.lifecycle.stage import Stage, StageWork, require
from pipeline.training.tracking_requirements import check_tracking
from preprocess.files.temporary import temporary_root


def _tokenizer() -> StageWork:
    from pipeline.stages import tokenizer

    return StageWork(tokenizer.make)


def _prepare() -> StageWork:
    from pipeline.stages import prepare

    return StageWork(prepare.make, restate=prepare.restate)


def _train() -> StageWork:
    temporary_root()  # Lightning needs one already when it is imported
    from pipeline.stages import train

    return StageWork(train.make, train.reopen)


def _evaluate() -> StageWork:
    from pipeline.stages import evaluate

    return StageWork(evaluate.make)


def _export() -> StageWork:
    from pipeline.stages import export

    return StageWork(export.make)


def _embed() -> StageWork:
    from pipeline.stages import embed

    return StageWork(embed.make)


LOAD_WORK: dict[str, Callable[[], StageWork]] = {
    "tokenizer": _tokenizer,
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "embed": _embed,
}
"""For each stage, a function that imports its module, which may load Beam or torch."""


def run(config: Config, command: str, console: Console, overwrite: bool = False) -> None:
    """Run the stage named ``command``; for "run", run all stages and write the report."""
    # Beam and Lightning log warnings about themselves; biloom raises or shows what matters.
    logging.getLogger().setLevel(logging.ERROR)
    for name in ("apache_beam", "grpc"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    stages = stages_of_command(config, command)
    check_config(config, stages)
    if command != "run":
        run_stage(STAGES[command], LOAD_WORK[command], config, console, overwrite)
        return
    for stage in stages:
        require("run", stage.needs)
    for stage in stages:
        run_stage(stage, LOAD_WORK[stage.name], config, console, overwrite)
    from pipeline.reports.run_report import report

    report(config, console)


def _check_checkpoint(stage: str, config: Config) -> None:
    named_checkpoint(*checkpoint_setting(config, stage))


def _check_train(config: Config) -> None:
    check_tracking(config)
    if config.train.teacher:
        teacher_folder(config.train.teacher)


def _check_known(config: Config) -> None:
    for folder in known_folders(config):
        content_of(folder, "prepare")


CHECKS: dict[str, Callable[[Config], None]] = {
    "prepare": _check_known,
    "train": _check_train,
    **{stage: partial(_check_checkpoint, stage) for stage in ("evaluate", "export")},
}
"""For a stage, a function that raises a `UserError` if the stage cannot finish with the settings."""


def check_config(config: Config, stages: Iterable[Stage]) -> None:
    """Check what can be checked of all stages before the first one, which may take days.

    Raises:
        UserError: a stage cannot finish with these settings.
    """
    for stage in stages:
        if check := CHECKS.get(stage.name):
            check(config)


def stages_of_command(config: Config, command: str) -> list[Stage]:
    """Return the stages that a command runs, in order.

    `biloom run` leaves out the stages whose result the config names in another folder.
    """
    if command != "run":
        return [STAGES[command]]
    elsewhere = {
        "tokenizer": config.prepare.tokenizer or config.train.corpus,
        "prepare": config.train.corpus,
    }
    return [stage for name, stage in STAGES.items() if not elsewhere.get(name)]

"""The whole pipeline in order, or one stage of it."""

import logging
from collections.abc import Callable, Sequence

from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.running import run_stage
from pipeline.lifecycle.stage import Stage, StageWork, require
from pipeline.stages.checks import check_config
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
    stages = stages_of_command(config, command)
    check_config(config, stages)
    run_stages(config, stages, command, console, overwrite)
    if command != "run":
        return
    from pipeline.reports.run_report import report

    report(config, console)


def run_stages(
    config: Config, stages: Sequence[Stage], command: str, console: Console, overwrite: bool
) -> None:
    """Run stages in order, after `check_config`. What any of them needs is missed before the first begins.

    Args:
        config: the config.
        stages: the stages.
        command: the command, for messages.
        console: where progress is shown.
        overwrite: whether results made with other settings are moved aside.
    """
    # Beam and Lightning log warnings about themselves; biloom raises or shows what matters.
    logging.getLogger().setLevel(logging.ERROR)
    for name in ("apache_beam", "grpc"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # A single stage that is finished needs nothing.
    for stage in stages if len(stages) > 1 else ():
        require(command, stage.needs)
    for stage in stages:
        run_stage(stage, LOAD_WORK[stage.name], config, console, overwrite)


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

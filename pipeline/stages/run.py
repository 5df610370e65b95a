"""The whole pipeline in order, or one stage of it."""

import logging

from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.stage import Stage, require, run_stage


def run(config: Config, command: str, console: Console, overwrite: bool = False) -> None:
    """Run the stage named ``command``, or all of them for "run", and the report after all."""
    # Beam and Lightning tell of themselves in warnings; what matters here is raised or shown.
    logging.getLogger().setLevel(logging.ERROR)
    for told_by_us in ("apache_beam", "grpc"):
        logging.getLogger(told_by_us).setLevel(logging.CRITICAL)
    if command != "run":
        run_stage(STAGES[command], config, console, overwrite)
        return
    stages = stages_of_run(config)
    for stage in stages:
        require("run", stage.needs)
    for stage in stages:
        run_stage(stage, config, console, overwrite)
    from pipeline.reports.run_report import report

    report(config, console)


def stages_of_run(config: Config) -> list[Stage]:
    """The stages in order, without those whose result the config names in another folder."""
    elsewhere = {
        "tokenizer": config.prepare.tokenizer or config.train.corpus,
        "prepare": config.train.corpus,
    }
    return [stage for name, stage in STAGES.items() if not elsewhere.get(name)]

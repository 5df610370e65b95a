"""The whole pipeline in order, or one stage of it."""

import logging

from pipeline.config import Config
from pipeline.console import Console
from pipeline.stage import require, run_stage
from pipeline.stages import STAGES


def run(config: Config, command: str, console: Console, overwrite: bool = False) -> None:
    """Run the stage named ``command``, or all of them for "run", and the report after all."""
    # Beam and Lightning tell of themselves in warnings; what matters here is raised or shown.
    logging.getLogger().setLevel(logging.ERROR)
    for told_by_us in ("apache_beam", "grpc"):
        logging.getLogger(told_by_us).setLevel(logging.CRITICAL)
    if command != "run":
        run_stage(STAGES[command], config, console, overwrite)
        return
    for stage in STAGES.values():
        require("run", stage.needs)
    for stage in STAGES.values():
        run_stage(stage, config, console, overwrite)
    from pipeline.report import report

    report(config, console)

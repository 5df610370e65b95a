"""Which engine runs a Beam job: one function a runner."""

import os
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.config import RunnerConfig

IN_MEMORY_BYTES = 150 << 20
"""Input below which starting worker processes (some 5 s) costs more than they gain."""


def make_pipeline(config: RunnerConfig, input_bytes: int) -> beam.Pipeline:
    """An empty Beam pipeline on the engine that ``config`` names."""
    return RUNNERS[config.kind](config, input_bytes)


def _direct(config: RunnerConfig, input_bytes: int) -> beam.Pipeline:
    workers = config.workers or os.cpu_count() or 1
    mode = config.mode
    if mode == "auto":
        mode = "in_memory" if input_bytes < IN_MEMORY_BYTES or workers == 1 else "multi_processing"
    flags: dict[str, Any] = {"direct_running_mode": mode, "direct_num_workers": workers}
    if mode == "in_memory":
        flags["direct_num_workers"] = 1
    else:
        # Workers start as `python -m`, which would import a `pipeline` of the current folder.
        os.environ["PYTHONSAFEPATH"] = "1"
    # By its own name: `DirectRunner` first tries to fetch another engine from the network.
    return beam.Pipeline(
        runner="apache_beam.runners.portability.fn_api_runner.FnApiRunner",
        options=PipelineOptions(**flags),
    )


RUNNERS: dict[str, Callable[[RunnerConfig, int], beam.Pipeline]] = {"direct": _direct}

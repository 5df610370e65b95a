"""Which engine runs a Beam job: one function a runner."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.config import RunnerConfig
from pipeline.worker_process import told_deaths

IN_MEMORY_BYTES = 150 << 20
"""Input below which starting worker processes (some 5 s) costs more than they gain."""


def make_pipeline(config: RunnerConfig, input_bytes: int) -> AbstractContextManager[beam.Pipeline]:
    """An empty Beam pipeline on the engine that ``config`` names, run when its block ends.

    Raises:
        WorkerDied: at the block's end, where a worker process ended before its work.
    """
    return RUNNERS[config.kind](config, input_bytes)


@contextmanager
def _direct(config: RunnerConfig, input_bytes: int) -> Iterator[beam.Pipeline]:
    workers = config.workers or os.cpu_count() or 1
    mode = config.mode
    if mode == "auto":
        mode = "in_memory" if input_bytes < IN_MEMORY_BYTES or workers == 1 else "multi_processing"
    # The empty list: without it, Beam takes our own command line for its options.
    options = PipelineOptions(
        [],
        direct_running_mode=mode,
        direct_num_workers=1 if mode == "in_memory" else workers,
    )
    # By its own name: `DirectRunner` first tries to fetch another engine from the network.
    runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    with told_deaths(), beam.Pipeline(runner=runner, options=options) as pipeline:
        yield pipeline


RUNNERS: dict[str, Callable[[RunnerConfig, int], AbstractContextManager[beam.Pipeline]]] = {
    "direct": _direct
}

"""Which engine a job gets, and that it is nobody's command line."""

import os
import sys

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.config import RunnerConfig
from pipeline.runners import IN_MEMORY_BYTES, RUNNERS, make_pipeline

SMALL, LARGE = IN_MEMORY_BYTES - 1, IN_MEMORY_BYTES


@pytest.mark.parametrize(
    ("config", "size", "mode", "workers"),
    [
        (RunnerConfig(workers=4), SMALL, "in_memory", 1),
        (RunnerConfig(workers=4), LARGE, "multi_processing", 4),
        (RunnerConfig(workers=1), LARGE, "in_memory", 1),
        (RunnerConfig(mode="in_memory", workers=4), LARGE, "in_memory", 1),
        (RunnerConfig(mode="multi_processing", workers=1), SMALL, "multi_processing", 1),
        (RunnerConfig(mode="multi_processing"), SMALL, "multi_processing", os.cpu_count()),
    ],
)
def test_workers_are_started_where_they_gain_more_than_they_cost(
    config: RunnerConfig, size: int, mode: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beam.Pipeline, "run", lambda pipeline: None)
    monkeypatch.setattr(beam.Pipeline, "__exit__", lambda *_: None)
    with make_pipeline(config, size) as pipeline:
        options = pipeline.options.view_as(DirectOptions)
        assert isinstance(pipeline.runner, FnApiRunner)
    assert (options.direct_running_mode, options.direct_num_workers) == (mode, workers)


def test_the_command_line_of_biloom_is_not_read_as_options_of_beam(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["biloom", "--direct_runner_bundle_repeat=7"])
    with make_pipeline(RunnerConfig(), 0) as pipeline:
        assert pipeline.options.view_as(DirectOptions).direct_runner_bundle_repeat == 0
        _ = pipeline | beam.Create([1])


def test_every_kind_of_the_config_has_its_runner() -> None:
    assert list(RUNNERS) == ["direct"]
    assert "'direct'" in str(RunnerConfig.model_fields["kind"].annotation)

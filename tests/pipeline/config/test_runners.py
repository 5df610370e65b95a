"""Each kind of engine has its own settings, and incomplete settings are refused."""

import pytest

from pipeline.config.load import ConfigError, dump_config, load_config
from pipeline.config.runners import DirectRunner, FlinkRunner
from preprocess.section import result_fields

POOL = ("runner.options.environment_type=EXTERNAL", "runner.options.environment_config=h:50000")
CLOUD = (
    "runner.kind=dataflow",
    "runner.options.project=p",
    "runner.options.region=r",
    "runner.options.temp_location=gs://t",
)


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config([], ["prepare.input=x", *overrides])
    return str(caught.value)


def test_the_direct_runner_is_the_default_and_a_kind_alone_is_enough() -> None:
    assert load_config([], ["prepare.input=x"]).runner == DirectRunner()
    assert load_config([], ["prepare.input=x", "runner.kind=flink"]).runner == FlinkRunner()


def test_every_kind_prints_its_own_options() -> None:
    config = load_config([], ["prepare.input=x", "runner.kind=dask"])
    printed = dump_config(config).partition("\nrunner:")[2].partition("\n\n")[0]
    keys = [line.split(":")[0].strip() for line in printed.splitlines()[1:]]
    assert keys == ["kind", "stall_seconds", "options", "scheduler", "partition_size"]


@pytest.mark.parametrize("kind", ["direct", "portable", "flink", "spark", "dask"])
def test_no_setting_of_an_engine_changes_a_result(kind: str) -> None:
    runner = load_config([], ["prepare.input=x", f"runner.kind={kind}"]).runner
    assert result_fields(runner, "runner").keys() <= {"runner.kind"}


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ("runner.kind=flnk",),
            "runner.kind: must be one of 'direct', 'portable', 'flink', 'spark', 'dataflow', "
            "'dask', not 'flnk'; did you mean 'flink'?",
        ),
        (
            ("runner.kind=flink", "runner.options.paralelism=3"),
            "unknown key 'runner.options.paralelism'; did you mean 'parallelism'?",
        ),
        (
            ("runner.options.parallelism=3",),
            "unknown key 'runner.options.parallelism': runner.kind 'portable' and 'flink' have it",
        ),
        (
            ("runner.options.scheduler=tcp://a:1",),
            "unknown key 'runner.options.scheduler': runner.kind 'dask' has it",
        ),
        (
            ("runner.kind=dask", "runner.options.paralelism=3"),
            "unknown key 'runner.options.paralelism'; the keys here are scheduler, partition_size",
        ),
        (("runner.mode=auto",), "unknown key 'runner.mode'; did you mean 'runner.options.mode'?"),
        (
            ("runner=flink",),
            "runner: must be a section with keys, not 'flink'; did you mean 'runner.kind'?",
        ),
        (
            ("runner.stall_seconds=0",),
            "runner.stall_seconds: must be a number of at least 1, not 0",
        ),
        (
            ("runner.kind=flink", "runner.options.master=h:8081"),
            "runner.options: environment_type is missing: an engine that is not embedded must know "
            "where its workers run; usually EXTERNAL, with environment_config=host:port of a Beam "
            "worker pool",
        ),
        (
            ("runner.kind=spark", "runner.options.environment_type=DOCKER"),
            "runner.options: environment_config is missing: DOCKER needs one",
        ),
        (
            ("runner.kind=dataflow",),
            "runner: Dataflow needs options.project, options.region, options.temp_location",
        ),
        (
            CLOUD,
            "runner: Dataflow's workers need biloom: set options.sdk_container_image, or "
            "options.extra_packages with its wheel",
        ),
    ],
)
def test_a_mistake_is_reported_where_it_was_made(overrides: tuple[str, ...], problem: str) -> None:
    assert refused(*overrides) == f"override '{overrides[-1]}': {problem}"


@pytest.mark.parametrize(
    "overrides",
    [
        ("runner.kind=flink", "runner.options.master=h:8081", *POOL),
        ("runner.kind=flink", "runner.options.master='[auto]'"),
        ("runner.kind=spark", "runner.options.master=spark://h:7077", *POOL),
        ("runner.kind=portable",),
        (*CLOUD, "runner.options.sdk_container_image=image"),
    ],
)
def test_complete_options_are_accepted(overrides: tuple[str, ...]) -> None:
    load_config([], ["prepare.input=x", *overrides])

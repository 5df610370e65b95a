"""Options reach the engine, and missing requirements are refused."""

import http.server
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions as BeamDirectOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.beam import engines, requirements
from pipeline.beam.engines import IN_MEMORY_BYTES, RUNNERS, make_pipeline
from pipeline.beam.requirements import RunnerError
from pipeline.config.runners import (
    DaskOptions,
    DaskRunner,
    DataflowOptions,
    DirectOptions,
    DirectRunner,
    FlinkOptions,
    FlinkRunner,
    PortableOptions,
    PortableRunner,
    RunnerConfig,
    SparkOptions,
)

SMALL, LARGE = IN_MEMORY_BYTES - 1, IN_MEMORY_BYTES
FLINK_HERE = {"master": "localhost:1", "environment_type": "LOOPBACK"}


def options_of(kind: str, options: object) -> dict[str, object]:
    """Return Beam's options of a pipeline that is not run."""
    with ExitStack() as cleanup:
        pipeline = RUNNERS[kind](options, 0, cleanup)
        found: dict[str, object] = pipeline.options.get_all_options()
    return found


@pytest.mark.parametrize(
    ("options", "size", "mode", "workers"),
    [
        (DirectOptions(workers=4), SMALL, "in_memory", 1),
        (DirectOptions(workers=4), LARGE, "multi_processing", 4),
        (DirectOptions(workers=1), LARGE, "in_memory", 1),
        (DirectOptions(mode="in_memory", workers=4), LARGE, "in_memory", 1),
        (DirectOptions(mode="multi_processing", workers=1), SMALL, "multi_processing", 1),
        (DirectOptions(mode="multi_threading", workers=3), SMALL, "multi_threading", 3),
        (DirectOptions(mode="multi_processing"), SMALL, "multi_processing", os.cpu_count()),
    ],
)
def test_worker_processes_are_started_for_large_inputs_only(
    options: DirectOptions, size: int, mode: str, workers: int
) -> None:
    with ExitStack() as cleanup:
        pipeline = RUNNERS["direct"](options, size, cleanup)
    chosen = pipeline.options.view_as(BeamDirectOptions)
    assert isinstance(pipeline.runner, FnApiRunner)
    assert (chosen.direct_running_mode, chosen.direct_num_workers) == (mode, workers)


def test_beam_does_not_parse_the_command_line_of_biloom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["biloom", "--direct_runner_bundle_repeat=7"])
    with make_pipeline(DirectRunner(), 0) as pipeline:
        assert pipeline.options.view_as(BeamDirectOptions).direct_runner_bundle_repeat == 0
        _ = pipeline | beam.Create([1])


def test_every_kind_of_engine_has_a_function() -> None:
    union = get_args(get_args(RunnerConfig)[0])
    assert [section.model_fields["kind"].default for section in union] == list(RUNNERS)


def test_an_option_that_beam_would_drop_fails() -> None:
    with pytest.raises(AssertionError, match="Beam would drop no_such_option"):
        engines._pipeline("PortableRunner", no_such_option=1)


# Options of the engines


@pytest.fixture
def flink_rest() -> Iterator[str]:
    """A server for the part of Flink's REST API that returns the slots."""

    class Overview(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"slots-total": 6}')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("localhost", 0), Overview) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The jar of a job server, with Java installed."""
    monkeypatch.setattr(engines, "java_command", lambda kind: "java")
    monkeypatch.delenv(engines.FLINK_JAR, raising=False)
    file = tmp_path / "job-server.jar"
    file.touch()
    return file


def test_embedded_flink_uses_all_cores_and_the_jar_of_the_environment(
    jar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(engines.FLINK_JAR, str(jar))
    found = options_of("flink", FlinkOptions(version="1.20"))
    assert found["flink_master"] == "[auto]"
    assert found["flink_job_server_jar"] == str(jar)
    assert found["flink_version"] == "1.20"
    assert found["parallelism"] == os.cpu_count()
    assert found["environment_type"] is None, "Beam then uses LOOPBACK"


def test_a_flink_cluster_processes_as_many_units_in_parallel_as_it_has_slots(
    jar: Path, flink_rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(engines.FLINK_JAR, "/no/other.jar")
    options = FlinkOptions(
        master=flink_rest,
        job_server_jar=str(jar),
        environment_type="EXTERNAL",
        environment_config="localhost:50000",
        sdk_worker_parallelism=2,
    )
    found = options_of("flink", options)
    assert found["flink_master"] == flink_rest
    assert found["parallelism"] == 6
    assert found["environment_config"] == "localhost:50000"
    assert found["sdk_worker_parallelism"] == 2


def test_a_long_job_is_not_ended_by_the_time_limit_of_requests(jar: Path, flink_rest: str) -> None:
    options = PortableOptions(job_endpoint=flink_rest, parallelism=3)
    found = options_of("portable", options)
    assert found["job_endpoint"] == flink_rest
    assert found["parallelism"] == 3
    assert found["job_server_timeout"] == engines.REQUEST_SECONDS > 86_400


def test_spark_gets_its_master_and_its_jar(jar: Path) -> None:
    found = options_of("spark", SparkOptions(job_server_jar=str(jar)))
    assert found["spark_master_url"] == "local[*]"
    assert found["spark_job_server_jar"] == str(jar)


def test_dataflow_gets_all_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "check_installed", lambda *_: None)
    given: dict[str, object] = {}

    def pipeline(runner: str, **options: object) -> beam.Pipeline:
        given.update(options)
        # DataflowRunner needs Google's packages; another runner knows the same options.
        return made("apache_beam.runners.portability.fn_api_runner.FnApiRunner", **options)

    made = engines._pipeline
    monkeypatch.setattr(engines, "_pipeline", pipeline)
    options = DataflowOptions(
        project="p",
        region="r",
        temp_location="gs://t",
        extra_packages=("biloom.whl",),
        machine_type="n2-standard-4",
        max_workers=7,
        disk_gb=50,
        service_account="a@b",
        subnetwork="s",
        public_ips=False,
    )
    found = options_of("dataflow", options)
    assert {name: found[name] for name, value in given.items() if value is not None} == {
        name: value for name, value in given.items() if value is not None
    }
    assert (found["max_num_workers"], found["use_public_ips"]) == (7, False)


# Missing requirements


def refused(config: RunnerConfig) -> str:
    with pytest.raises(RunnerError) as caught, make_pipeline(config, 0):
        pass
    return str(caught.value)


def test_missing_java_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert refused(FlinkRunner()) == (
        "runner.kind=flink needs Java to start Beam's job server, but 'java' is not found; install "
        "Java 11 or 17 or set JAVA_HOME, or use a running job server with runner.kind=portable"
    )


def test_a_missing_jar_is_refused(jar: Path) -> None:
    jar.unlink()
    message = f"runner.options.job_server_jar: no such file: {jar}"
    assert refused(FlinkRunner(options=FlinkOptions(job_server_jar=str(jar)))) == message


def test_a_jar_that_cannot_be_downloaded_is_refused(
    jar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(engines.FlinkJarJobServer, "local_jar", fail)
    assert refused(FlinkRunner()) == (
        "Beam's job server cannot be downloaded (no network); download it on another machine, and "
        "set runner.options.job_server_jar to the file, or the environment variable "
        "BILOOM_FLINK_JOB_SERVER_JAR"
    )


def test_a_flink_version_without_a_job_server_is_refused(jar: Path) -> None:
    message = refused(FlinkRunner(options=FlinkOptions(version="1.2")))
    assert message.startswith("runner.options.version: Beam has no job server for Flink 1.2, ")


@pytest.mark.parametrize(
    ("config", "start"),
    [
        (
            PortableRunner(options=PortableOptions(job_endpoint="localhost:1")),
            "runner.options.job_endpoint: nothing answers at localhost:1 (",
        ),
        (
            PortableRunner(options=PortableOptions(job_endpoint="localhost")),
            "runner.options.job_endpoint: must be host:port, not 'localhost'",
        ),
        (
            DaskRunner(options=DaskOptions(scheduler="tcp://localhost:1")),
            "runner.options.scheduler: nothing answers at tcp://localhost:1 (",
        ),
        (
            FlinkRunner(options=FlinkOptions(**FLINK_HERE)),  # type: ignore[arg-type]
            "runner.options.master: no Flink answers at localhost:1 (",
        ),
    ],
)
def test_an_address_that_does_not_answer_is_refused(
    config: RunnerConfig, start: str, jar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(engines.FLINK_JAR, str(jar))
    assert refused(config).startswith(start)


def test_a_missing_package_is_refused_with_the_extra_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    assert refused(DaskRunner()) == (
        "runner.kind=dask needs dask and distributed, and dask is not installed; "
        "pip install 'biloom[dask]'"
    )

"""Options reach the engine, and missing requirements are refused."""

import http.server
import json
import re
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DirectOptions as BeamDirectOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipeline.beam import engines, requirements
from pipeline.beam.engines import RUNNERS, make_pipeline
from pipeline.beam.flink_cluster import jar_version
from pipeline.beam.requirements import RunnerError
from pipeline.config.runners import (
    IN_MEMORY_BYTES,
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
from preprocess.work.resources import usable_cores

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
        (DirectOptions(mode="multi_processing"), SMALL, "multi_processing", usable_cores()),
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


def test_beam_leaves_no_temporary_folder_even_if_the_process_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with make_pipeline(DirectRunner(), 0) as pipeline:
        assert Path(pipeline.local_tempdir).parent == tmp_path
        assert not [*tmp_path.iterdir()]
        _ = pipeline | beam.Create([1])
    assert not [*tmp_path.iterdir()]


# Options of the engines


class FlinkRest(http.server.ThreadingHTTPServer):
    """A server for the part of Flink's REST API that describes a cluster."""

    def __init__(self) -> None:
        super().__init__(("localhost", 0), FlinkAnswers)
        self.version, self.slots = "1.20.1", [2, 2, 2]

    @property
    def address(self) -> str:
        return f"localhost:{self.server_port}"

    @property
    def paths(self) -> dict[str, Any]:
        overview = {"slots-total": sum(self.slots), "taskmanagers": len(self.slots)}
        return {
            "/overview": {**overview, "flink-version": self.version},
            "/config": {"flink-version": self.version},
            "/taskmanagers": {"taskmanagers": [{"slotsNumber": number} for number in self.slots]},
        }


class FlinkAnswers(http.server.BaseHTTPRequestHandler):
    server: FlinkRest

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.paths[self.path]).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def flink_rest() -> Iterator[FlinkRest]:
    with FlinkRest() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
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
    assert found["parallelism"] == usable_cores()
    assert found["environment_type"] is None, "Beam then uses LOOPBACK"


def on_cluster(server: FlinkRest, **options: Any) -> FlinkOptions:
    return FlinkOptions(
        master=server.address,
        environment_type="EXTERNAL",
        environment_config="localhost:50000",
        sdk_worker_parallelism=2,
        **options,
    )


def test_a_job_leaves_a_flink_cluster_room_for_a_lost_task_manager(
    jar: Path, flink_rest: FlinkRest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(engines.FLINK_JAR, "/no/other.jar")
    options = on_cluster(flink_rest, job_server_jar=str(jar))
    found = options_of("flink", options)
    assert found["flink_master"] == flink_rest.address
    assert found["environment_config"] == "localhost:50000"
    assert found["sdk_worker_parallelism"] == 2
    assert found["parallelism"] == 4
    for slots, parallelism in (([1, 4], 1), ([4], 4), ([2, 2], 2), ([1, 1, 1], 2)):
        flink_rest.slots = slots
        assert options_of("flink", options)["parallelism"] == parallelism
    assert options_of("flink", options.model_copy(update={"parallelism": 3}))["parallelism"] == 3


@pytest.mark.parametrize(
    ("version", "expected"), [("1.20.1", "1.20"), ("2.0-SNAPSHOT", "2.0"), ("9.9.0", None)]
)
def test_the_version_of_flink_is_the_cluster_s(
    version: str, expected: str | None, jar: Path, flink_rest: FlinkRest
) -> None:
    flink_rest.version = version
    found = options_of("flink", on_cluster(flink_rest, job_server_jar=str(jar)))
    assert found.get("flink_version") in (expected, expected or "2.2"), "Beam's default"


def test_a_version_other_than_the_cluster_s_is_refused(
    jar: Path, flink_rest: FlinkRest, tmp_path: Path
) -> None:
    where = (
        f", but the cluster at {flink_rest.address} runs Flink 1.20; leave runner.options.version "
        "unset and use a job server for the cluster's version"
    )
    options = on_cluster(flink_rest, job_server_jar=str(jar), version="1.19")
    with pytest.raises(
        RunnerError, match="^runner.options.version is Flink 1.19" + re.escape(where)
    ):
        options_of("flink", options)
    other = tmp_path / "beam-runners-flink-1.19-job-server-2.77.0.jar"
    other.touch()
    with pytest.raises(RunnerError, match=f"^the job server {other} is for Flink 1.19"):
        options_of("flink", on_cluster(flink_rest, job_server_jar=str(other)))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("9.9.0", "Beam has no job server for Flink 9.9 of the cluster at .*, only for 1.19"),
        (
            "<unknown>",
            "runner.options.version is missing: the cluster at .* does not report its version",
        ),
    ],
)
def test_a_cluster_whose_version_needs_a_setting_is_reported(
    version: str, message: str, jar: Path, flink_rest: FlinkRest
) -> None:
    flink_rest.version = version
    with pytest.raises(RunnerError, match=message):
        options_of("flink", on_cluster(flink_rest))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("META-INF/maven/org.apache.flink/flink-core/pom.properties", "version=1.19.0\n"),
        ("META-INF/MANIFEST.MF", "Class-Path: lib/a.jar lib/flink-co\r\n re-1.19.0.jar\r\n"),
    ],
)
def test_a_jar_tells_its_version_of_flink(file: str, content: str, tmp_path: Path) -> None:
    jar = tmp_path / "server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr(file, content)
    assert jar_version(str(jar)) == "1.19"
    jar.write_bytes(b"no archive")
    assert jar_version(str(jar)) == ""


def test_a_long_job_is_not_ended_by_the_time_limit_of_requests(
    jar: Path, flink_rest: FlinkRest
) -> None:
    options = PortableOptions(job_endpoint=flink_rest.address, parallelism=3)
    found = options_of("portable", options)
    assert found["job_endpoint"] == flink_rest.address
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

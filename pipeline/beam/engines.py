"""Which engine runs a Beam job: one function a kind, from its options to an empty pipeline.

What an engine lacks (a package, Java, an address that answers) is told before anything is sent.
"""

import importlib
import json
import logging
import os
import shutil
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
from apache_beam.runners.portability.job_server import JavaJarJobServer
from apache_beam.runners.portability.spark_runner import SparkJarJobServer
from apache_beam.utils.subprocess_server import JavaHelper

from pipeline.beam.direct_worker import told_deaths
from pipeline.config.runners import (
    DaskOptions,
    DataflowOptions,
    DirectOptions,
    FlinkOptions,
    PortableOptions,
    RunnerConfig,
    SparkOptions,
)
from preprocess.errors import UserError

IN_MEMORY_BYTES = 150 << 20
"""Input below which starting worker processes (some 5 s) costs more than they gain."""
CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 30 * 24 * 3600
"""Beam ends the stream of a job's states after this time, and the job with it."""
DASK_WORKERS = {
    "DASK_LOGGING__DISTRIBUTED": "critical",
    "DASK_LOGGING__ROOT": "error",
    "PYTHONSAFEPATH": "1",
}
"""Environment of the workers of a cluster for the job: they share our standard error, and without
the last a `pipeline` of the current folder is imported."""
FLINK_JAR = "BILOOM_FLINK_JOB_SERVER_JAR"


class RunnerError(UserError):
    """An engine that cannot run a job as asked; the message says what to do."""


@contextmanager
def make_pipeline(config: RunnerConfig, input_bytes: int) -> Iterator[beam.Pipeline]:
    """An empty Beam pipeline on the engine that ``config`` names, run when its block ends.

    Raises:
        RunnerError: the engine lacks something.
        WorkerDied: at the block's end, where a worker process ended before its work.
    """
    with ExitStack() as ends, told_deaths():
        pipeline = RUNNERS[config.kind](config.options, input_bytes, ends)
        yield pipeline
        result = pipeline.run()
        if config.kind == "dask":
            ends.callback(result.client.close)
        try:
            result.wait_until_finish()
        except BaseException:
            # An engine elsewhere would go on without us.
            with suppress(Exception):
                result.cancel()
            raise


def _direct(options: DirectOptions, input_bytes: int, ends: ExitStack) -> beam.Pipeline:
    workers = options.workers or os.cpu_count() or 1
    mode = options.mode
    if mode == "auto":
        mode = "in_memory" if input_bytes < IN_MEMORY_BYTES or workers == 1 else "multi_processing"
    # By its own name: `DirectRunner` first tries to fetch another engine from the network.
    return _pipeline(
        "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
        direct_running_mode=mode,
        direct_num_workers=1 if mode == "in_memory" else workers,
    )


def _portable(options: PortableOptions, input_bytes: int, ends: ExitStack) -> beam.Pipeline:
    _answers("job_endpoint", options.job_endpoint)
    return _pipeline(
        "PortableRunner",
        job_endpoint=options.job_endpoint,
        artifact_endpoint=options.artifact_endpoint,
        parallelism=options.parallelism,
        **_workers(options),
    )


def _flink(options: FlinkOptions, input_bytes: int, ends: ExitStack) -> beam.Pipeline:
    java = _java("flink")
    known = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    if options.version not in (None, *known):
        raise RunnerError(
            f"runner.options.version: this Beam has no job server for Flink {options.version}, "
            f"only for {', '.join(known)}"
        )
    jar = options.job_server_jar or os.environ.get(FLINK_JAR)
    chosen = {"flink_version": options.version} if options.version else {}
    parallelism = options.parallelism or (
        _flink_slots(options.cluster) if options.cluster else os.cpu_count()
    )
    return _pipeline(
        "FlinkRunner",
        flink_master=options.cluster or "[auto]",
        flink_job_server_jar=_jar(FlinkJarJobServer, FLINK_JAR, flink_job_server_jar=jar, **chosen),
        parallelism=parallelism,
        job_server_java_launcher=java,
        **_workers(options),
        **chosen,
    )


def _spark(options: SparkOptions, input_bytes: int, ends: ExitStack) -> beam.Pipeline:
    java = _java("spark")
    jar = _jar(SparkJarJobServer, None, spark_job_server_jar=options.job_server_jar)
    return _pipeline(
        "SparkRunner",
        spark_master_url=options.master,
        spark_job_server_jar=jar,
        job_server_java_launcher=java,
        **_workers(options),
    )


def _dataflow(options: DataflowOptions, input_bytes: int, ends: ExitStack) -> beam.Pipeline:
    _installed("dataflow", "apache-beam[gcp]", "apitools", "google.cloud.storage")
    return _pipeline(
        "DataflowRunner",
        project=options.project,
        region=options.region,
        temp_location=options.temp_location,
        staging_location=options.staging_location,
        sdk_container_image=options.sdk_container_image,
        extra_packages=list(options.extra_packages) or None,
        machine_type=options.machine_type,
        max_num_workers=options.max_workers,
        disk_size_gb=options.disk_gb,
        service_account_email=options.service_account,
        subnetwork=options.subnetwork,
        use_public_ips=options.public_ips,
    )


def _dask(options: DaskOptions, input_bytes: int, ends: ExitStack) -> beam.Pipeline:
    _installed("dask", "dask and distributed", "dask", "distributed")
    distributed = importlib.import_module("distributed")
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = options.scheduler
    if address:
        _answers("scheduler", address)
    else:
        with _inherited_by_workers():
            address = ends.enter_context(distributed.LocalCluster()).scheduler_address
    # By its full name: Beam's list of runners does not have it.
    return _pipeline(
        "apache_beam.runners.dask.dask_runner.DaskRunner",
        address=address,
        partition_size=options.partition_size,
    )


RUNNERS: dict[str, Callable[[Any, int, ExitStack], beam.Pipeline]] = {
    "direct": _direct,
    "portable": _portable,
    "flink": _flink,
    "spark": _spark,
    "dataflow": _dataflow,
    "dask": _dask,
}


@contextmanager
def _inherited_by_workers() -> Iterator[None]:
    """Processes that start here log nothing but what is fatal, and leave Ctrl-C to us."""
    former = {name: os.environ.get(name) for name in DASK_WORKERS}
    os.environ.update(DASK_WORKERS)
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _pipeline(runner: str, **options: Any) -> beam.Pipeline:
    # Made first, since its module may bring options of its own.
    engine = beam.runners.create_runner(runner)
    given = {name: value for name, value in options.items() if value is not None}
    # The empty list: without it, Beam takes our own command line for its options.
    made = PipelineOptions([], **given)
    unknown = given.keys() - PipelineOptions([]).get_all_options().keys()
    assert not unknown, f"Beam would drop {', '.join(sorted(unknown))}"
    return beam.Pipeline(runner=engine, options=made)


def _workers(options: Any) -> dict[str, Any]:
    return {
        "environment_type": options.environment_type,
        "environment_config": options.environment_config,
        "sdk_worker_parallelism": options.sdk_worker_parallelism,
        "job_server_timeout": REQUEST_SECONDS,
    }


def _installed(kind: str, what: str, *modules: str) -> None:
    for module in modules:
        try:
            found = find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise RunnerError(
                f"runner.kind={kind} needs {what}, and {module} is not installed; "
                f"pip install 'biloom[{kind}]'"
            )


def _java(kind: str) -> str:
    java = JavaHelper.get_java()
    if shutil.which(java) is None:
        raise RunnerError(
            f"runner.kind={kind} needs Java to start Beam's job server, and there is no '{java}'; "
            "install Java 11 or 17, or set JAVA_HOME; a job server that is up already is "
            "runner.kind=portable"
        )
    return str(java)


def _jar(server: type[JavaJarJobServer], variable: str | None, **options: Any) -> str:
    """The local file of a job server; fetched here, where what goes wrong can be told."""
    path = next((value for name, value in options.items() if name.endswith("_jar")), None)
    if path and "://" not in path and not Path(path).is_file():
        raise RunnerError(f"{path}: no such file; runner.options.job_server_jar names it")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        jar = server.local_jar(server(PipelineOptions([], **given)).path_to_jar())
    except Exception as error:
        raise RunnerError(
            f"Beam's job server cannot be fetched ({error}); fetch it where the network allows and "
            "name the file as runner.options.job_server_jar"
            + (f" or in the environment as {variable}" if variable else "")
        ) from error
    return str(jar)


def _answers(key: str, address: str) -> None:
    """Refuse an address at which nothing listens: Beam would wait for it, without a word."""
    host, _, port = address.rpartition("://")[2].rstrip("/").rpartition(":")
    if not host or not port.isdecimal():
        raise RunnerError(f"runner.options.{key}: must be host:port, not '{address}'")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS):
            return
    except OSError as error:
        raise RunnerError(
            f"runner.options.{key}: nothing answers at {address} ({error}); start it, or correct "
            "the address"
        ) from error


def _flink_slots(master: str) -> int:
    """The slots of a cluster, over Flink's REST interface (`/overview`)."""
    url = master if "://" in master else f"http://{master}"
    try:
        with urllib.request.urlopen(f"{url}/overview", timeout=CONNECT_SECONDS) as answer:
            slots = int(json.load(answer)["slots-total"])
    except (OSError, ValueError, KeyError, urllib.error.URLError) as error:
        raise RunnerError(
            f"runner.options.master: no Flink answers at {master} ({error}); start it, or correct "
            "the address"
        ) from error
    if not slots:
        raise RunnerError(f"runner.options.master: {master} has no TaskManager; start one")
    return slots

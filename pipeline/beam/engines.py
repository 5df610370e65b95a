"""The engines that run Beam jobs: for each kind, a function from its options to an empty pipeline.

Missing requirements (a package, Java, an address that answers) are reported before the job is sent.
"""

import importlib
import logging
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
from apache_beam.runners.portability.job_server import JavaJarJobServer
from apache_beam.runners.portability.spark_runner import SparkJarJobServer

from pipeline.beam.direct_worker import check_room, raise_worker_deaths
from pipeline.beam.flink_cluster import cancel_flink_job_on_error, check_version, flink_cluster
from pipeline.beam.job_page import job_page
from pipeline.beam.job_server import job_server
from pipeline.beam.proxies import HERE, bypass_proxies
from pipeline.beam.remote_job import run_remote_job
from pipeline.beam.requirements import (
    RunnerError,
    check_installed,
    check_reachable,
    java_command,
    job_server_jar,
)
from pipeline.config.runners import (
    DaskOptions,
    DataflowOptions,
    DirectOptions,
    FlinkOptions,
    PortableOptions,
    RunnerConfig,
    SparkOptions,
)
from preprocess.files.temporary import temporary_root
from preprocess.work.resources import usable_cores

REQUEST_SECONDS = 30 * 24 * 3600
"""After this time Beam closes the stream of a job's states, and with it the job."""
DASK_WORKERS = {
    "DASK_LOGGING__DISTRIBUTED": "critical",
    "DASK_LOGGING__ROOT": "error",
    "PYTHONSAFEPATH": "1",
}
"""Environment of the workers of a local cluster.

They share our standard error, so they log little. PYTHONSAFEPATH keeps them from importing a folder
`pipeline` in the current folder.
"""
FLINK_JAR = "BILOOM_FLINK_JOB_SERVER_JAR"
"""Environment variable that names the jar of Flink's job server."""


@contextmanager
def make_pipeline(
    config: RunnerConfig, input_bytes: int, found: Callable[[str], None] = lambda _: None
) -> Iterator[beam.Pipeline]:
    """Yield an empty Beam pipeline on the engine that ``config`` names; run it when the block ends.

    Args:
        config: the engine and its options.
        input_bytes: size of the input, multiplied by the effort per byte. It decides the mode of the
            direct runner.
        found: called in a thread with the URL of the job's page, if the engine has one.

    Raises:
        RunnerError: a requirement of the engine is missing.
        StorageError: there is no usable folder for temporary files.
        WorkerDied: a worker process of the direct runner ended before its work was done.
    """
    bypass_proxies(*HERE)
    temporary_root()  # Beam needs one
    with ExitStack() as cleanup, raise_worker_deaths():
        pipeline = RUNNERS[config.kind](config.options, input_bytes, cleanup)
        yield pipeline
        if config.kind == "direct":
            pipeline.run().wait_until_finish()
            return
        if config.kind in JOB_SERVERS:
            cleanup.enter_context(job_server(JOB_SERVERS[config.kind], pipeline))
        name = pipeline.options.view_as(GoogleCloudOptions).job_name or ""

        def begun(result: Any, ended: threading.Event) -> None:
            if page := job_page(config, name, result, ended):
                found(page)

        run_remote_job(pipeline, cleanup, begun)


def _direct(options: DirectOptions, input_bytes: int, cleanup: ExitStack) -> beam.Pipeline:
    mode, workers = options.workers_for(input_bytes)
    check_room(mode, workers)
    # By its full name, because `DirectRunner` first tries to download another engine.
    return _pipeline(
        "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
        direct_running_mode=mode,
        direct_num_workers=workers,
    )


def _portable(options: PortableOptions, input_bytes: int, cleanup: ExitStack) -> beam.Pipeline:
    bypass_proxies(check_reachable("job_endpoint", options.job_endpoint))
    return _pipeline(
        "PortableRunner",
        job_endpoint=options.job_endpoint,
        artifact_endpoint=options.artifact_endpoint,
        parallelism=options.parallelism,
        **_workers(options),
    )


def _flink(options: FlinkOptions, input_bytes: int, cleanup: ExitStack) -> beam.Pipeline:
    java = java_command("flink")
    known = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    if options.version not in (None, *known):
        raise RunnerError(
            f"runner.options.version: Beam has no job server for Flink {options.version}, only for "
            f"{', '.join(known)}"
        )
    jar = options.job_server_jar or os.environ.get(FLINK_JAR)
    version, parallelism = options.version, options.parallelism or usable_cores()
    if options.cluster:
        cluster = flink_cluster(options.cluster)
        check_version(options.version, jar, cluster, options.cluster)
        version = version or cluster.version or None
        parallelism = options.parallelism or cluster.parallelism
    if version and version not in known:
        if not jar:
            raise RunnerError(
                f"runner.options.master: Beam has no job server for Flink {version} of the cluster at "
                f"{options.cluster}, only for {', '.join(known)}; set runner.options.job_server_jar"
            )
        version = None
    if options.cluster and not (version or jar):
        raise RunnerError(
            f"runner.options.version is missing: the cluster at {options.cluster} does not report its "
            f"version; set it to one of {', '.join(known)}"
        )
    chosen = {"flink_version": version} if version else {}
    if options.cluster:
        chosen["job_name"] = f"biloom-{uuid.uuid4().hex}"
        cleanup.enter_context(cancel_flink_job_on_error(options.cluster, chosen["job_name"]))
    return _pipeline(
        "FlinkRunner",
        flink_master=options.cluster or "[auto]",
        flink_job_server_jar=job_server_jar(
            FlinkJarJobServer, FLINK_JAR, flink_job_server_jar=jar, **chosen
        ),
        parallelism=parallelism,
        job_server_java_launcher=java,
        **_workers(options),
        **chosen,
    )


def _spark(options: SparkOptions, input_bytes: int, cleanup: ExitStack) -> beam.Pipeline:
    java = java_command("spark")
    jar = job_server_jar(SparkJarJobServer, None, spark_job_server_jar=options.job_server_jar)
    return _pipeline(
        "SparkRunner",
        spark_master_url=options.master,
        spark_job_server_jar=jar,
        job_server_java_launcher=java,
        **_workers(options),
    )


def _dataflow(options: DataflowOptions, input_bytes: int, cleanup: ExitStack) -> beam.Pipeline:
    check_installed("dataflow", "apache-beam[gcp]", "apitools", "google.cloud.storage")
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


def _dask(options: DaskOptions, input_bytes: int, cleanup: ExitStack) -> beam.Pipeline:
    check_installed("dask", "dask and distributed", "dask", "distributed")
    distributed = importlib.import_module("distributed")
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    address = options.scheduler
    if address:
        check_reachable("scheduler", address)
    else:
        with _worker_environment():
            address = cleanup.enter_context(distributed.LocalCluster()).scheduler_address
    # By its full name, because Beam's list of runners lacks it.
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

JOB_SERVERS: dict[str, type[JavaJarJobServer]] = {
    "flink": FlinkJarJobServer,
    "spark": SparkJarJobServer,
}
"""Job servers that this process starts."""


@contextmanager
def _worker_environment() -> Iterator[None]:
    """Let processes that start in the block log little and ignore Ctrl-C."""
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
    # Created first, because its module may register further options.
    engine = beam.runners.create_runner(runner)
    options = {name: value for name, value in options.items() if value is not None}
    # Without the empty list, Beam parses our command line.
    pipeline_options = PipelineOptions([], **options)
    unknown = options.keys() - PipelineOptions([]).get_all_options().keys()
    assert not unknown, f"Beam would drop {', '.join(sorted(unknown))}"
    pipeline = beam.Pipeline(runner=engine, options=pipeline_options)
    # Only transforms of other languages use this folder. Beam removes it when the job ends, so a killed
    # process would leave it.
    shutil.rmtree(pipeline.local_tempdir, ignore_errors=True)
    return pipeline


def _workers(options: Any) -> dict[str, Any]:
    return {
        "environment_type": options.environment_type,
        "environment_config": options.environment_config,
        "sdk_worker_parallelism": options.sdk_worker_parallelism,
        "job_server_timeout": REQUEST_SECONDS,
    }

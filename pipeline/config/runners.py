"""Settings of the engine that runs the Beam jobs, with a section for each kind of engine.

The engine does not change a result, so fingerprints do not contain it: a job started on one engine
can be resumed on another. Restarts, memory and credentials are configured in the engine itself.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from preprocess.section import Section, runtime
from preprocess.work.resources import usable_cores

IN_MEMORY_BYTES = 150 << 20
"""Input size below which worker processes take longer to start (some 5 s) than they save."""

Environment = Literal["LOOPBACK", "EXTERNAL", "PROCESS", "DOCKER"]
ENVIRONMENT_TYPE = runtime(
    None,
    "where workers run: LOOPBACK in this process, EXTERNAL in a worker pool, PROCESS, DOCKER; "
    "null: LOOPBACK, for an embedded engine only",
)
ENVIRONMENT_CONFIG = runtime(
    None,
    "EXTERNAL: host:port of the pool; PROCESS: JSON as in Beam's docs; DOCKER: image with biloom",
)
SDK_WORKERS = runtime(1, "Python workers per machine of the engine", ge=1, le=4096)


class DirectWorkers(NamedTuple):
    """How many workers the direct runner has, and where they run."""

    mode: Literal["in_memory", "multi_processing", "multi_threading"]
    workers: int


class DirectOptions(Section):
    """Options of Beam's direct runner."""

    mode: Literal["auto", "in_memory", "multi_processing", "multi_threading"] = runtime(
        "auto", "how workers run; auto: in_memory below 150 MB of input, else multi_processing"
    )
    workers: int | None = runtime(
        None, "worker processes or threads; null: one per usable core", ge=1, le=4096
    )

    @property
    def own_process_only(self) -> bool:
        """Whether all workers certainly run in this process."""
        return self.mode in ("in_memory", "multi_threading")

    def workers_for(self, input_bytes: int) -> DirectWorkers:
        """Return the workers for an input of this size, multiplied by the effort per byte."""
        workers = self.workers or usable_cores()
        mode = self.mode
        if mode == "auto":
            small = input_bytes < IN_MEMORY_BYTES or workers == 1
            mode = "in_memory" if small else "multi_processing"
        return DirectWorkers(mode, 1 if mode == "in_memory" else workers)


class _WorkerOptions(Section):
    """Options of the Python workers of a portable engine."""

    environment_type: Environment | None = ENVIRONMENT_TYPE
    environment_config: str | None = ENVIRONMENT_CONFIG
    sdk_worker_parallelism: int = SDK_WORKERS

    @model_validator(mode="after")
    def _workers_have_a_place(self) -> "_WorkerOptions":
        if self.environment_type is None and not self._embedded:
            raise ValueError(
                "environment_type is missing: an engine that is not embedded must know where its "
                "workers run; usually EXTERNAL, with environment_config=host:port of a Beam worker pool"
            )
        if self.environment_type not in (None, "LOOPBACK") and self.environment_config is None:
            raise ValueError(f"environment_config is missing: {self.environment_type} needs one")
        return self

    @property
    def _embedded(self) -> bool:
        return False


class PortableOptions(_WorkerOptions):
    """Options of a Beam job service."""

    job_endpoint: str = runtime("localhost:8099", "host:port of the job service")
    artifact_endpoint: str | None = runtime(
        None, "host:port of its artifact service; null: the one that the job service names"
    )
    environment_type: Environment | None = runtime(
        "EXTERNAL",
        "where workers run: LOOPBACK in this process, EXTERNAL in a worker pool, PROCESS, DOCKER",
    )
    environment_config: str | None = runtime(
        "localhost:50000",
        "EXTERNAL: host:port of the pool; PROCESS: JSON as in Beam's docs; DOCKER: image with biloom",
    )
    parallelism: int | None = runtime(
        None, "parallelism of the job, for a job service of Flink; null: its default", ge=1
    )
    web_page: str | None = runtime(
        None,
        "URL of the engine's web page, as your browser reaches it, to print as the job's page; null: none",
    )


class FlinkOptions(_WorkerOptions):
    """Options of Apache Flink; biloom starts Beam's job server for the job, which needs Java."""

    master: str | None = runtime(None, "host:port of a cluster's REST API; null: embedded Flink")
    version: str | None = runtime(
        None,
        "Flink version, such as 1.20, of the job server; null: the cluster's, or Beam's newest if "
        "embedded",
    )
    job_server_jar: str | None = runtime(
        None,
        "jar of Beam's job server; null: the one in BILOOM_FLINK_JOB_SERVER_JAR, else downloaded",
    )
    parallelism: int | None = runtime(
        None,
        "units processed in parallel; null: all slots of the cluster except those of its largest "
        "TaskManager, so that the job continues if one is lost; usable cores if embedded",
        ge=1,
    )

    @property
    def _embedded(self) -> bool:
        return self.master in (None, "[auto]", "[local]")

    @property
    def cluster(self) -> str | None:
        """The address of the cluster's REST API, or None if Flink is embedded."""
        return None if self._embedded else self.master


class SparkOptions(_WorkerOptions):
    """Options of Apache Spark; biloom starts Beam's job server for the job, which needs Java."""

    master: str = runtime(
        "local[*]", "spark://host:port of a cluster, or local[N] for embedded Spark with N cores"
    )
    job_server_jar: str | None = runtime(None, "jar of Beam's job server; null: downloaded by Beam")

    @property
    def _embedded(self) -> bool:
        return self.master.startswith("local")


class DataflowOptions(Section):
    """Options of Google Cloud Dataflow; input, model and output must be on gs://."""

    project: str | None = runtime(None, "Google Cloud project; required")
    region: str | None = runtime(None, "Google Cloud region; required")
    temp_location: str | None = runtime(None, "gs:// folder for temporary files; required")
    staging_location: str | None = runtime(
        None, "gs:// folder for the staged job; null: chosen by Beam"
    )
    sdk_container_image: str | None = runtime(
        None, "container image of the workers, with the same versions of biloom and Beam"
    )
    extra_packages: tuple[str, ...] = runtime(
        (), "wheels to install on every worker instead of an image, biloom's among them"
    )
    machine_type: str | None = runtime(
        None, "machine type of a worker, such as n2-standard-4; null: Dataflow's default"
    )
    max_workers: int | None = runtime(
        None, "largest number of workers; null: Dataflow's limit", ge=1
    )
    disk_gb: int | None = runtime(None, "disk of a worker, in GB; null: Dataflow's default", ge=10)
    service_account: str | None = runtime(
        None, "e-mail of the workers' service account; null: the project's default"
    )
    subnetwork: str | None = runtime(None, "subnetwork of the workers; null: the project's default")
    public_ips: bool = runtime(True, "give the workers public IP addresses")


class DaskOptions(Section):
    """Options of a Dask cluster."""

    scheduler: str | None = runtime(
        None, "address of a scheduler, such as tcp://host:8786; null: a local cluster for this job"
    )
    partition_size: int = runtime(
        1, "units per Dask task; larger values mean fewer tasks to schedule", ge=1
    )


class _Runner(Section):
    """Settings of every engine."""

    kind: str
    stall_seconds: float = runtime(
        900.0, "stop the job after this many seconds without progress", ge=1
    )


class DirectRunner(_Runner):
    """Beam's direct runner, on this machine."""

    kind: Literal["direct"] = "direct"
    options: DirectOptions = runtime(DirectOptions(), "options of this engine")


class PortableRunner(_Runner):
    """A Beam job service that is already running."""

    kind: Literal["portable"] = "portable"
    options: PortableOptions = runtime(PortableOptions(), "options of this engine")


class FlinkRunner(_Runner):
    """Apache Flink, embedded or a cluster."""

    kind: Literal["flink"] = "flink"
    options: FlinkOptions = runtime(FlinkOptions(), "options of this engine")


class SparkRunner(_Runner):
    """Apache Spark, embedded or a cluster."""

    kind: Literal["spark"] = "spark"
    options: SparkOptions = runtime(SparkOptions(), "options of this engine")


class DataflowRunner(_Runner):
    """Google Cloud Dataflow."""

    kind: Literal["dataflow"] = "dataflow"
    options: DataflowOptions = runtime(DataflowOptions(), "options of this engine")

    @model_validator(mode="after")
    def _job_can_be_sent(self) -> "DataflowRunner":
        options = self.options
        needed = ("project", "region", "temp_location")
        missing = [f"options.{name}" for name in needed if getattr(options, name) is None]
        if missing:
            raise ValueError(f"Dataflow needs {', '.join(missing)}")
        if not options.sdk_container_image and not options.extra_packages:
            raise ValueError(
                "Dataflow's workers need biloom: set options.sdk_container_image, or "
                "options.extra_packages with its wheel"
            )
        return self


class DaskRunner(_Runner):
    """Dask, on a cluster or on this machine."""

    kind: Literal["dask"] = "dask"
    options: DaskOptions = runtime(DaskOptions(), "options of this engine")


RunnerConfig = Annotated[
    DirectRunner | PortableRunner | FlinkRunner | SparkRunner | DataflowRunner | DaskRunner,
    Field(discriminator="kind"),
]

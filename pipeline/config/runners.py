"""Config of the engine that runs the Beam jobs: one section a kind, holding what users of it need.

None of it changes a result, so no fingerprint holds it, and a job begun on one engine can go on on
another. What an engine reads from its own configuration (restarts, memory, credentials) stays there.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from preprocess.section import Section, runtime

Environment = Literal["LOOPBACK", "EXTERNAL", "PROCESS", "DOCKER"]
ENVIRONMENT_TYPE = runtime(
    None,
    "where workers run: LOOPBACK in this process, EXTERNAL a worker pool, PROCESS, DOCKER; "
    "none: LOOPBACK where the engine is embedded",
)
ENVIRONMENT_CONFIG = runtime(
    None, "EXTERNAL: host:port of the pool; PROCESS: Beam's JSON; DOCKER: an image with biloom"
)
SDK_WORKERS = runtime(1, "Python workers on each of the engine's machines", ge=1)


class DirectOptions(Section):
    """This machine alone, nothing to install."""

    mode: Literal["auto", "in_memory", "multi_processing", "multi_threading"] = runtime(
        "auto", "auto: one process below 150 MB of input, else multi_processing"
    )
    workers: int | None = runtime(None, "processes or threads; none: one a core", ge=1)

    @property
    def own_process_only(self) -> bool:
        return self.mode in ("in_memory", "multi_threading")


class _WorkerOptions(Section):
    """Where the Python workers of a portable engine run."""

    environment_type: Environment | None = ENVIRONMENT_TYPE
    environment_config: str | None = ENVIRONMENT_CONFIG
    sdk_worker_parallelism: int = SDK_WORKERS

    @model_validator(mode="after")
    def _workers_have_a_place(self) -> "_WorkerOptions":
        if self.environment_type is None and not self._embedded:
            raise ValueError(
                "environment_type: an engine elsewhere must be told where its workers run; "
                "EXTERNAL with environment_config=host:port of a Beam worker pool is the usual way"
            )
        if self.environment_type not in (None, "LOOPBACK") and self.environment_config is None:
            raise ValueError(f"environment_config is missing: {self.environment_type} needs one")
        return self

    @property
    def _embedded(self) -> bool:
        return False


class PortableOptions(_WorkerOptions):
    """Any engine behind a Beam job service."""

    job_endpoint: str = runtime("localhost:8099", "host:port of the job service")
    artifact_endpoint: str | None = runtime(
        None, "host:port of its artifact service; none: as the job service tells"
    )
    environment_type: Environment | None = runtime(
        "EXTERNAL", "where workers run: LOOPBACK in this process, EXTERNAL a pool, PROCESS, DOCKER"
    )
    environment_config: str | None = runtime(
        "localhost:50000",
        "EXTERNAL: host:port of the pool; PROCESS: Beam's JSON; DOCKER: an image with biloom",
    )
    parallelism: int | None = runtime(
        None, "what a job service of Flink runs at once; none: its own default", ge=1
    )


class FlinkOptions(_WorkerOptions):
    """Apache Flink through Beam's job server, which is started for the job; needs Java."""

    master: str | None = runtime(None, "host:port of a cluster's REST; none: embedded in the job")
    version: str | None = runtime(
        None, "Flink version, as 1.20, of the job server to fetch; none: Beam's newest"
    )
    job_server_jar: str | None = runtime(
        None,
        "Beam's job server; none: BILOOM_FLINK_JOB_SERVER_JAR, else Beam fetches that of version",
    )
    parallelism: int | None = runtime(
        None, "units at once; none: the cluster's slots, embedded: the cores", ge=1
    )

    @property
    def _embedded(self) -> bool:
        return self.master in (None, "[auto]", "[local]")

    @property
    def cluster(self) -> str | None:
        """The cluster's REST address, or None where Flink runs embedded."""
        return None if self._embedded else self.master


class SparkOptions(_WorkerOptions):
    """Apache Spark through Beam's job server, which is started for the job; needs Java."""

    master: str = runtime("local[*]", "spark://host:port of a cluster, or local[N]: embedded")
    job_server_jar: str | None = runtime(None, "Beam's job server; none: Beam fetches it")

    @property
    def _embedded(self) -> bool:
        return self.master.startswith("local")


class DataflowOptions(Section):
    """Google Cloud Dataflow; input, model and output must be on gs://."""

    project: str | None = runtime(None, "Google Cloud project; must be given")
    region: str | None = runtime(None, "Google Cloud region; must be given")
    temp_location: str | None = runtime(None, "gs:// folder of its own files; must be given")
    staging_location: str | None = runtime(None, "gs:// folder of the staged job; none: by Beam")
    sdk_container_image: str | None = runtime(
        None, "image of the workers, with biloom and Beam of this version"
    )
    extra_packages: tuple[str, ...] = runtime(
        (), "wheels to install on every worker, as biloom's own; instead of an image"
    )
    machine_type: str | None = runtime(None, "of a worker, as n2-standard-4; none: Dataflow's")
    max_workers: int | None = runtime(None, "none: Dataflow's own limit", ge=1)
    disk_gb: int | None = runtime(None, "disk of a worker, in GB; none: Dataflow's", ge=10)
    service_account: str | None = runtime(None, "e-mail the workers run as; none: the project's")
    subnetwork: str | None = runtime(None, "the workers' subnetwork; none: the project's default")
    public_ips: bool = runtime(True, "whether workers have public addresses")


class DaskOptions(Section):
    """A Dask cluster."""

    scheduler: str | None = runtime(
        None, "address, as tcp://host:8786; none: a cluster of this machine's cores, for the job"
    )
    partition_size: int = runtime(
        1, "units a Dask task holds; more are fewer tasks for the scheduler", ge=1
    )


class _Runner(Section):
    """What every engine has beside options of its own."""

    kind: str
    stall_seconds: float = runtime(
        900.0, "a job in which nothing moves for so long is ended with what was seen", ge=1
    )


class DirectRunner(_Runner):
    """Beam's own engine on this machine."""

    kind: Literal["direct"] = "direct"
    options: DirectOptions = runtime(DirectOptions(), "options of this engine")


class PortableRunner(_Runner):
    """A Beam job service that is up already."""

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
                "Dataflow's workers need biloom: give options.sdk_container_image, or "
                "options.extra_packages with its wheel"
            )
        return self


class DaskRunner(_Runner):
    """A Dask cluster, yours or one for the job."""

    kind: Literal["dask"] = "dask"
    options: DaskOptions = runtime(DaskOptions(), "options of this engine")


RunnerConfig = Annotated[
    DirectRunner | PortableRunner | FlinkRunner | SparkRunner | DataflowRunner | DaskRunner,
    Field(discriminator="kind"),
]

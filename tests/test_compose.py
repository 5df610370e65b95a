"""The versions, ports and folders of the shipped cluster match; checked without Docker."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.load import load_config
from pipeline.config.runners import PortableRunner

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "biloom"}


@pytest.fixture
def runner(tmp_path: Path) -> PortableRunner:
    """The engine that the client's config sets."""
    file = tmp_path / "flink.yaml"
    file.write_text(COMPOSE["configs"]["flink"]["content"])
    config = load_config([str(file)], ["prepare.input=x"]).runner
    assert isinstance(config, PortableRunner)
    return config


def test_every_service_has_the_same_beam_and_the_same_flink() -> None:
    beam = re.findall(r"^apache-beam==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    server = re.fullmatch(r"apache/beam_flink(.+)_job_server:(.+)", SERVICES["jobserver"]["image"])
    assert server
    assert [server[2]] == beam
    flinks = [s["image"] for s in SERVICES.values() if s["image"].startswith("flink:")]
    assert set(flinks) == {f"flink:{server[1]}-java17"}


def test_the_client_connects_to_the_open_ports(runner: PortableRunner) -> None:
    server = SERVICES["jobserver"]["command"]
    options = runner.options
    assert "--job-host=jobserver " in server
    jobs, artifacts = re.findall(r"--(?:job|artifact)-port=(\d+)", server)
    assert options.job_endpoint == f"jobserver:{jobs}"
    assert options.artifact_endpoint == f"jobserver:{artifacts}"
    for pool in ("pool-1", "pool-2"):
        port = options.environment_config.rpartition(":")[2] if options.environment_config else ""
        assert SERVICES[pool]["command"].endswith(f"--service_port={port}")


def test_every_task_manager_has_its_own_worker_pool(runner: PortableRunner) -> None:
    managers = [name for name in SERVICES if name.startswith("taskmanager")]
    pools = [s["network_mode"] for s in SERVICES.values() if "network_mode" in s]
    assert sorted(pools) == [f"service:{name}" for name in managers]
    properties = [SERVICES[name]["environment"]["FLINK_PROPERTIES"] for name in managers]
    slots = [int(re.findall(r"numberOfTaskSlots: (\d+)", one)[0]) for one in properties]
    assert runner.options.parallelism == sum(slots)


def test_the_workers_and_the_client_share_a_folder_and_an_image() -> None:
    assert sorted(OURS) == ["biloom", "pool-1", "pool-2"]
    assert len({str(service["volumes"]) for service in OURS.values()}) == 1
    assert len({str(service["build"]) for service in OURS.values()}) == 1


def test_the_image_has_every_file_that_the_installation_needs() -> None:
    dockerfile = OURS["biloom"]["build"]["dockerfile_inline"]
    copied = [
        name
        for line in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)
        for name in line.split()
    ]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert packages | {"configs", "pyproject.toml", "constraints.txt", "biloom.py"} <= set(copied)
    assert "ENV PYTHONSAFEPATH=1" in dockerfile

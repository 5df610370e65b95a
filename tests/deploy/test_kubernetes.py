"""The files of deploy/kubernetes agree with one another and with biloom."""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import DESCRIPTION, EPILOG
from pipeline.commands.parser import make_parser
from pipeline.commands.registry import COMMANDS
from pipeline.config.load import load_config
from pipeline.config.runners import PortableRunner
from pipeline.config.schema import Config
from pipeline.exit_codes import ExitCode
from tests.deploy.files import stage
from tests.deploy.manifests import FOLDER, Resource, containers, one, pods, resources, words

ROOT = FOLDER.parents[1]
CONFIG = "/etc/biloom/biloom.yaml"
SECRET = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL")
PODS = dict(pods())
OURS = {
    f"{name} {container['name']}": container
    for name, pod in PODS.items()
    for container in containers(pod)
    if re.search(r"(^|/)biloom:", container.get("image", ""))
}


def command_of_biloom(container: Resource) -> list[str]:
    """The arguments of the biloom command in a container, or none if it runs something else."""
    line = (
        words(container) if "command" in container else [*entry_point(container), *words(container)]
    )
    return line[line.index("biloom") + 1 :] if "biloom" in line else []


def entry_point(container: Resource) -> list[str]:
    """The entry point of the image of a container."""
    lines = stage(container["image"].rpartition(":")[2])
    (found,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    line: list[str] = json.loads(found.removeprefix("ENTRYPOINT"))
    return line


COMMAND_LINES = {name: line for name, c in OURS.items() if (line := command_of_biloom(c))}


def config_of(line: list[str]) -> Config:
    """The config of a command line, whose options are parsed as biloom does."""
    here = [str(FOLDER / "biloom.yaml") if word == CONFIG else word for word in line]
    options = make_parser(COMMANDS, DESCRIPTION, EPILOG).parse(here)
    values: list[str] = options.config
    overrides = [value for value in values if "=" in value]
    return load_config([value for value in values if "=" not in value], overrides)


@pytest.fixture(scope="module")
def config() -> Config:
    return config_of(["prepare", "base", CONFIG])


def test_every_image_of_biloom_runs_biloom_or_the_pool() -> None:
    assert len(OURS) == 7
    assert {container["image"].rpartition(":")[2] for container in OURS.values()} == {"cpu", "cuda"}
    assert set(OURS) - set(COMMAND_LINES) == {"FlinkDeployment biloom-flink taskmanager pool"}


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_a_command_is_one_of_biloom_and_its_config_loads(name: str) -> None:
    assert config_of(COMMAND_LINES[name]).run.output == "s3://biloom/run"


@pytest.mark.parametrize("kind", ["JobSet", "TrainJob"])
def test_torchrun_starts_a_process_for_each_gpu_of_all_nodes(kind: str) -> None:
    (container,) = PODS[f"{kind} biloom-train"]["spec"]["containers"]
    train = config_of(command_of_biloom(container)).train
    spec = one(kind, "biloom-train")["spec"]
    line = words(container)
    given = dict(w[2:].split("=", 1) for w in line[: line.index("--no-python")] if "=" in w)
    assert line[:2] == ["python", "/etc/biloom/torchrun.py"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == train.devices
    grace = PODS[f"{kind} biloom-train"]["spec"]["terminationGracePeriodSeconds"]
    assert int(given["shutdown-timeout"]) < grace
    if kind == "TrainJob":
        shape = (spec["trainer"]["numNodes"], spec["trainer"]["numProcPerNode"])
    else:
        job = spec["replicatedJobs"][0]
        assert given["master-addr"] == f"biloom-train-{job['name']}-0-0.biloom-train"
        assert given["node-rank"] == "$(JOB_COMPLETION_INDEX)"
        shape = (int(given["nnodes"]), int(given["nproc-per-node"]))
        inner = job["template"]["spec"]
        assert inner["completions"] == inner["parallelism"] == train.num_nodes
    assert shape == (train.num_nodes, train.devices)
    assert train.rows % (train.num_nodes * (train.devices or 1)) == 0


def test_the_options_of_torchrun_exist() -> None:
    from torch.distributed.run import parse_args

    for kind in ("JobSet", "TrainJob"):
        (container,) = PODS[f"{kind} biloom-train"]["spec"]["containers"]
        line = [re.sub(r"\$\(\w+\)", "0", word) for word in words(container)[2:]]
        assert parse_args(line).no_python


def test_clients_find_the_job_server_and_workers_their_pool(config: Config) -> None:
    assert isinstance(config.runner, PortableRunner)
    options = config.runner.options
    service = one("Service", "biloom-job-server")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert options.job_endpoint == f"{service['metadata']['name']}:{ports['jobs']}"
    server = one("Deployment", "biloom-job-server")["spec"]["template"]
    assert server["metadata"]["labels"] == service["spec"]["selector"]
    (container,) = server["spec"]["containers"]
    line = words(container)
    assert f"--job-port={ports['jobs']}" in line
    assert f"--artifact-port={ports['artifacts']}" in line
    assert "--flink-master=biloom-flink-rest:8081" in line  # Flink names it so

    flink = one("FlinkDeployment", "biloom-flink")["spec"]
    (pool,) = flink["taskManager"]["podTemplate"]["spec"]["initContainers"]
    port = options.environment_config.rpartition(":")[2] if options.environment_config else ""
    # As process 1, the pool would ignore SIGTERM.
    assert (
        words(pool)[:4]
        == [*entry_point(pool)[:2], "python", "-m"]
        == ["tini", "--", "python", "-m"]
    )
    module, *arguments = words(pool)[4:]
    assert importlib.util.find_spec(module)
    assert module == "apache_beam.runners.worker.worker_pool_main"
    assert arguments == [f"--service_port={port}"]
    assert pool["restartPolicy"] == "Always"
    assert pool["startupProbe"]["tcpSocket"]["port"] == int(port)
    slots = int(flink["flinkConfiguration"]["taskmanager.numberOfTaskSlots"])
    assert options.sdk_worker_parallelism == slots == int(pool["resources"]["requests"]["cpu"])
    assert options.parallelism
    assert options.parallelism % slots == 0
    assert options.web_page == "http://localhost:8081/#/overview"


def test_versions_of_flink_and_beam_are_the_same_everywhere() -> None:
    (beam,) = re.findall(r"^apache-beam==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    (container,) = one("Deployment", "biloom-job-server")["spec"]["template"]["spec"]["containers"]
    server = re.fullmatch(r"apache/beam_flink(.+)_job_server:(.+)", container["image"])
    assert server
    assert server[2] == beam
    flink = one("FlinkDeployment", "biloom-flink")["spec"]
    assert flink["image"].startswith(f"flink:{server[1]}-")
    assert flink["flinkVersion"] == "v" + server[1].replace(".", "_")


def test_policies_open_the_ports_that_are_used_and_not_that_of_the_pool() -> None:
    flink = one("FlinkDeployment", "biloom-flink")["spec"]["flinkConfiguration"]
    ports = {int(value) for key, value in flink.items() if key.endswith(".port")}
    assert len(ports) == 5
    allowed = {
        port
        for name in ("biloom-flink", "biloom-job-server")
        for rule in one("NetworkPolicy", name)["spec"]["ingress"]
        for opened in rule["ports"]
        for port in range(opened["port"], opened.get("endPort", opened["port"]) + 1)
    }
    assert allowed == {*ports, 8081, 8098, 8099}
    assert one("NetworkPolicy", "biloom-none")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
    }
    rest, own = one("NetworkPolicy", "biloom-flink")["spec"]["ingress"]
    assert [rest["ports"], own["from"]] == [[{"port": 8081}], [selector("flink")]]
    assert rest["from"][0] == selector("job-server"), "nothing else in the namespace calls Flink"
    assert "namespaceSelector" in rest["from"][1]
    labels = {name: pod["metadata"]["labels"]["biloom/part"] for name, pod in PODS.items()}
    assert {label for name, label in labels.items() if name.startswith("Job ")} == {"client"}
    assert {labels["JobSet biloom-train"], labels["TrainJob biloom-train"]} == {"trainer"}


def selector(part: str) -> Resource:
    return {"podSelector": {"matchLabels": {"biloom/part": part}}}


def test_both_ways_to_train_get_the_address_and_the_key_of_wandb() -> None:
    (container,) = PODS["JobSet biloom-train"]["spec"]["containers"]
    assert {"secretRef": {"name": "biloom-wandb", "optional": True}} in container["envFrom"]
    (container,) = PODS["TrainJob biloom-train"]["spec"]["containers"]
    found = {one["name"]: one.get("valueFrom", {}) for one in container["env"]}
    for key in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        assert found[key] == {
            "secretKeyRef": {"name": "biloom-wandb", "key": key, "optional": True}
        }


@pytest.mark.parametrize("name", PODS)
def test_pods_are_restricted_and_bounded(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    if not name.startswith("FlinkDeployment"):
        assert spec["automountServiceAccountToken"] is False
    for container in containers(PODS[name]):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        if container["name"] != "flink-main-container":  # Flink's settings bound it
            assert own["readOnlyRootFilesystem"] is True
            assert "memory" in container["resources"]["limits"]
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    for volume in spec["volumes"]:
        assert "configMap" in volume or volume["emptyDir"]["sizeLimit"]


def test_no_file_holds_a_secret() -> None:
    for name, pod in PODS.items():
        for container in containers(pod):
            for variable in container.get("env", ()):
                assert not (SECRET.search(variable["name"]) and "value" in variable), name
    for file in FOLDER.rglob("*.yaml"):
        for line in re.sub(r"(^| )#.*$", "", file.read_text(), flags=re.M).splitlines():
            assert not re.search(rf"({SECRET.pattern})\w*[=:] *[^\s,}}]", line), (file, line)
    assert "Secret" not in {resource["kind"] for _, resource in resources()}


def test_retries_tell_a_stop_from_a_mistake() -> None:
    never = [ExitCode.USER_ERROR, ExitCode.BUG]
    for name in ("biloom-prepare", "biloom-embed"):
        evicted, stopped, wrong = one("Job", name)["spec"]["podFailurePolicy"]["rules"]
        assert evicted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert (stopped["action"], wrong["action"]) == ("Ignore", "FailJob")
        assert stopped["onExitCodes"]["values"] == [ExitCode.STOPPED]
        assert wrong["onExitCodes"]["values"] == never

    spec = one("JobSet", "biloom-train")["spec"]
    rules = spec["replicatedJobs"][0]["template"]["spec"]["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert rules[1]["onExitCodes"]["values"] == [ExitCode.STOPPED]
    assert rules[2]["onExitCodes"]["values"] == never
    # The message is that of Kubernetes' job controller.
    message = "Container trainer for pod biloom/x failed with exit code 1 matching FailJob rule at index {}"
    stopped, wrong = spec["failurePolicy"]["rules"]
    (pattern,) = stopped["onJobFailureMessagePatterns"]
    assert [bool(re.search(pattern, message.format(index))) for index in range(3)] == [1, 1, 0]
    actions = (stopped["action"], wrong["action"])
    assert actions == ("RestartJobSetAndIgnoreMaxRestarts", "FailJobSet")


def test_kustomization_names_every_file_and_image() -> None:
    top: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    files = {file for file, _ in resources() if "/" not in file}
    assert set(top["resources"]) == files
    assert [image["name"] for image in top["images"]] == ["biloom"]
    generated = {one["name"]: one for one in top["configMapGenerator"]}
    assert all((FOLDER / name).is_file() for name in generated["biloom-config"]["files"])
    used = {
        source["configMapRef"]["name"]
        for container in OURS.values()
        for source in container.get("envFrom", ())
        if "configMapRef" in source
    }
    assert used == {"biloom-environment"}
    (registry,) = {image["newName"] for image in top["images"]}
    assert one("TrainJob", "biloom-train")["spec"]["trainer"]["image"] == f"{registry}:cuda"


def test_the_commands_of_the_slurm_scripts_are_those_of_biloom() -> None:
    found = []
    for script in sorted((ROOT / "deploy" / "slurm").glob("*.sbatch")):
        text = Path(script).read_text().replace("\\\n", " ")
        for line in re.findall(r"^run_or_requeue srun .*?biloom (.*)$", text, re.M):
            line = line.replace('"$@"', "base prepare.input=x").replace("$SLURM_JOB_NUM_NODES", "2")
            found.append(shlex.split(line.replace("$SLURM_NTASKS_PER_NODE", "8")))
    assert [line[0] for line in found] == ["embed", "tokenizer", "prepare", "train"]
    for line in found:
        config_of(line)

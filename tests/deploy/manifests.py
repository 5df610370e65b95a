"""The files of deploy/kubernetes as the tests read them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUSTOMIZE = ("kustomization.yaml", "biloom.yaml")
"""Names of files that are no resources."""
Resource = dict[str, Any]


def resources() -> list[tuple[str, Resource]]:
    """Return each resource with the path of its file below the folder."""
    files = [file for file in sorted(FOLDER.rglob("*.yaml")) if file.name not in KUSTOMIZE]
    return [
        (str(file.relative_to(FOLDER)), resource)
        for file in files
        for resource in yaml.safe_load_all(file.read_text())
    ]


def one(kind: str, name: str) -> Resource:
    """Return the resource of a kind and name."""
    (found,) = [r for _, r in resources() if (r["kind"], r["metadata"]["name"]) == (kind, name)]
    return found


def pods() -> Iterator[tuple[str, Resource]]:
    """Yield each pod, as its metadata and spec, with its resource's kind and name."""
    for _, resource in resources():
        name, spec = f"{resource['kind']} {resource['metadata']['name']}", resource.get("spec", {})
        match resource["kind"]:
            case "Deployment" | "Job":
                yield name, spec["template"]
            case "JobSet":
                yield from (
                    (name, job["template"]["spec"]["template"]) for job in spec["replicatedJobs"]
                )
            case "FlinkDeployment":
                yield f"{name} jobmanager", spec["podTemplate"]
                own = spec["taskManager"]["podTemplate"]["spec"]
                whole = {**spec["podTemplate"]["spec"], **own}
                yield f"{name} taskmanager", {**spec["podTemplate"], "spec": whole}
            case "TrainJob":
                yield name, _pod_of_train_job(spec)


def containers(pod: Resource) -> list[Resource]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


def words(container: Resource) -> list[str]:
    """Return the command line of a container."""
    return [*container.get("command", ()), *container.get("args", ())]


def _pod_of_train_job(spec: Resource) -> Resource:
    """Return the pod that Kubeflow Trainer makes: its runtime's, with the patch and the trainer."""
    (patch,) = spec["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    own = {key: spec["trainer"][key] for key in ("image", "command", "args", "env")}
    whole = {**container, **own, "resources": spec["trainer"]["resourcesPerNode"]}
    settings = {"automountServiceAccountToken": False, "restartPolicy": "Never"}
    return {**pod, "spec": {**settings, **pod["spec"], "containers": [whole]}}

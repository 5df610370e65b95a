"""The files of deploy/kubernetes fit the schemas that their heads name; unknown fields are refused."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import FOLDER, Resource, one, pods, resources

CRDS = {
    "FlinkDeployment": "flinkdeployments.yaml",
    "JobSet": "jobsets.yaml",
    "TrainJob": "trainjobs.yaml",
}
CORE = [(file, resource) for file, resource in resources() if resource["kind"] not in CRDS]
CUSTOM = [(file, resource) for file, resource in resources() if resource["kind"] in CRDS]


def strict(schema: Any) -> Any:
    """A schema that refuses the fields that it does not list, where it lists any."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(part) for key, part in schema.items()}
    lists_fields = made.get("type") == "object" and isinstance(made.get("properties"), dict)
    if lists_fields and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def crd(resource: Resource) -> Any:
    """The strict schema of a custom resource."""
    folder = os.environ.get("BILOOM_TEST_CRDS")
    if folder is None:
        pytest.skip("BILOOM_TEST_CRDS names no folder with the definitions of custom resources")
    definition = yaml.safe_load((Path(folder) / CRDS[resource["kind"]]).read_text())
    assert definition["spec"]["names"]["kind"] == resource["kind"]
    version = resource["apiVersion"].rpartition("/")[2]
    (schema,) = [
        served["schema"]["openAPIV3Schema"]
        for served in definition["spec"]["versions"]
        if served["name"] == version
    ]
    # Every resource has these fields; some definitions do not list them.
    common = {"apiVersion": {}, "kind": {}, "metadata": {}}
    return strict({**schema, "properties": {**common, **schema["properties"]}})


@pytest.mark.parametrize(("file", "resource"), CUSTOM, ids=lambda value: str(value)[:30])
def test_a_custom_resource_fits_its_definition(file: str, resource: Resource) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    checked = jsonschema.Draft202012Validator(crd(resource))
    assert [error.message for error in checked.iter_errors(resource)] == []


def test_a_misspelt_field_of_a_custom_resource_is_found() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    wrong = one("FlinkDeployment", "biloom-flink")
    wrong["spec"]["taskManager"]["podTemplate"]["spec"]["initContainers"][0]["restart"] = "Always"
    errors = list(jsonschema.Draft202012Validator(crd(wrong)).iter_errors(wrong))
    assert ["'restart' was unexpected" in error.message for error in errors] == [True]


@pytest.mark.parametrize(("file", "resource"), CORE, ids=lambda value: str(value)[:30])
def test_a_resource_fits_the_schema_of_kubernetes(file: str, resource: Resource) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(resource, "1.37", strict=True)


def test_pods_of_custom_resources_fit_the_schema_of_kubernetes() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    found = dict(pods())
    assert len(found) == 7
    for name, pod in found.items():
        whole = {"apiVersion": "v1", "kind": "Pod", **pod}
        whole["metadata"] = {"name": "test", **pod.get("metadata", {})}
        kubernetes_validate.validate(whole, "1.37", strict=True), name


def test_the_head_of_each_file_says_what_it_was_held_against_and_that_it_was_not_run() -> None:
    for file in {file for file, _ in resources()}:
        head = (FOLDER / file).read_text().split("\napiVersion")[0]
        said = " ".join(head.replace("\n#", " ").split())
        assert "Held against the" in said, file
        assert "ot run on a cluster" in said, file


def test_kustomize_renders_all_resources_with_the_name_of_the_registry() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    done = subprocess.run(
        ["kubectl", "kustomize", FOLDER], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rendered = [*yaml.safe_load_all(done.stdout)]
    made = {(r["kind"], r["metadata"]["name"]) for r in rendered}
    assert {(r["kind"], r["metadata"]["name"]) for _, r in resources()} - made == {
        ("TrainJob", "biloom-train")
    }
    assert {r["metadata"]["namespace"] for r in rendered} == {"biloom"}
    assert "image: biloom:" not in done.stdout
    assert done.stdout.count("image: registry.example/biloom:") == 6
    assert all("biloom/step" in r["metadata"]["labels"] for r in rendered)

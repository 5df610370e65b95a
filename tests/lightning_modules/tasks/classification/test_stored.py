"""A classifier is loaded from its folder, or the message names the file that is not valid."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_modules.tasks.classification.config import ClassifyConfig
from lightning_modules.tasks.classification.heads import TextHead
from lightning_modules.tasks.classification.network_config import NetworkConfig
from lightning_modules.tasks.classification.network_head import network_tensors
from lightning_modules.tasks.classification.stored import load_classifier, read_classifier
from lightning_modules.tasks.folder import (
    CONFIG,
    HEAD,
    LABELS,
    ModelReference,
    TaskResult,
    write_task,
)
from lightning_modules.tasks.stored_task import Task
from preprocess.files.verified import DamagedResult

DEPTH, DIM, OUTPUTS = 3, 4, 2
POOL = {"kind": "pool", "layers": [0, 2], "mean": False, "strength": 1.0, "method": "ridge"}
NETWORK = {"kind": "gru", "network": {"kind": "gru", "hidden": 5}, "finetuned": False}
DO = r"; run `biloom check \S+`, and copy the folder again or make it again with `biloom classify train"


class FakeModel:
    depth, dim = DEPTH, DIM

    def to(self, device: str) -> "FakeModel":
        return self


@pytest.fixture(autouse=True)
def _fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "load_model", lambda *_: FakeModel())


@pytest.fixture(params=["pool", "gru"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    is_pool = request.param == "pool"
    if is_pool:
        tensors = {"weight": torch.ones(OUTPUTS, 2 * DIM).double(), "bias": torch.ones(2).double()}
    else:
        network = NetworkConfig.model_validate(NETWORK["network"])
        tensors = network_tensors(TextHead(network, DEPTH, DIM, OUTPUTS).state_dict())
    settings = ClassifyConfig(head=request.param)
    result = TaskResult(
        kind="classify",
        config={
            "settings": settings.model_dump(mode="json", exclude={"network": {"kind"}}),
            "target": "single",
            "pairs": False,
            "unit": "token",
            "pooling": "mean",
            "text_pooling": "mean",
            "head": POOL if is_pool else NETWORK,
        },
        labels=("a", "b"),
        tensors={**tensors, "prior": torch.ones(OUTPUTS).double()},
        metrics={},
        columns=(),
        predictions=(),
        model=ModelReference("c"),
        card="",
    )
    write_task(str(tmp_path / "task"), result, {}, "1.0")
    return tmp_path / "task"


def load(folder: Path) -> Any:
    return load_classifier(read_classifier(str(folder)))


def test_a_classifier_is_loaded(folder: Path) -> None:
    classifier = load(folder)
    assert classifier.problem.labels == ("a", "b")
    assert classifier.prior.tolist() == [1, 1]
    if hasattr(classifier.head, "linear"):
        assert classifier.head.linear.weight.shape == (OUTPUTS, 2 * DIM)
        assert classifier.head.layers == (0, 2)
    else:
        assert not classifier.head.head.training
        stored = load_file(folder / HEAD)["network.output.weight"]
        assert torch.equal(classifier.head.head.output.weight, stored)


def test_a_setting_that_is_missing_or_of_another_type_is_named(
    folder: Path, as_stranger: Callable[[Path], None]
) -> None:
    whole = json.loads((folder / CONFIG).read_bytes())
    for place in (whole, whole["head"]):
        for key in [*place]:
            kept = place.pop(key)
            for wrong in (None, {"not": ["it"]}):
                if wrong is not None:
                    place[key] = wrong
                (folder / CONFIG).write_text(json.dumps(whole))
                as_stranger(folder)
                with pytest.raises(
                    DamagedResult, match=rf"config\.json is damaged \(.*{DO}"
                ) as caught:
                    load(folder)
                assert (key if key != "kind" else "head") in str(caught.value)
            place[key] = kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.pop("prior"), "no tensor 'prior'"),
        (lambda one: one.update(more=torch.ones(1)), "unknown tensor 'more'"),
        (
            lambda one: one.update(prior=torch.ones(3).double()),
            "'prior' is float64 (3,), and must be float64 (2,) by the settings, the labels and",
        ),
        (
            lambda one: one.update(prior=torch.ones(2, dtype=torch.int64)),
            "'prior' is int64 (2,), and",
        ),
    ],
)
def test_other_tensors_are_refused(
    folder: Path, as_stranger: Callable[[Path], None], change: Any, message: str
) -> None:
    tensors = load_file(folder / HEAD)
    change(tensors)
    save_file(tensors, folder / HEAD)
    as_stranger(folder)
    match = rf"head\.safetensors is damaged \({re.escape(message)}.*{DO}"
    with pytest.raises(DamagedResult, match=match):
        load(folder)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "target single and 0 labels"),
        (["a", "b", "c"], r"float\d\d \(2,.*must be float\d\d \(3,"),
    ],
)
def test_other_labels_are_refused(
    folder: Path, as_stranger: Callable[[Path], None], labels: list[str], message: str
) -> None:
    (folder / LABELS).write_text(json.dumps(labels))
    as_stranger(folder)
    with pytest.raises(DamagedResult, match=message + ".*" + DO):
        load(folder)


@pytest.mark.parametrize("folder", ["pool"], indirect=True)
def test_a_layer_that_the_model_lacks_is_refused(
    folder: Path, as_stranger: Callable[[Path], None]
) -> None:
    config = json.loads((folder / CONFIG).read_bytes())
    config["head"]["layers"] = [0, 3]
    (folder / CONFIG).write_text(json.dumps(config))
    as_stranger(folder)
    with pytest.raises(
        DamagedResult, match=r"a layer that the language model does not have\)" + DO
    ):
        load(folder)


@pytest.mark.parametrize("folder", ["gru"], indirect=True)
@pytest.mark.parametrize("hidden", [6, 60_000])
def test_a_network_of_another_size_is_refused(
    folder: Path, as_stranger: Callable[[Path], None], hidden: int
) -> None:
    config = json.loads((folder / CONFIG).read_bytes())
    config["head"]["network"]["hidden"] = hidden
    (folder / CONFIG).write_text(json.dumps(config))
    as_stranger(folder)
    with pytest.raises(DamagedResult, match=r"head\.safetensors is damaged \('network\..*" + DO):
        load(folder)

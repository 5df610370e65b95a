"""Initial weights from a trained model, and models that are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.config import ModelConfig
from lightning_modules.models.checkpoint_file import read_checkpoint
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.training.initial_weights import InitialWeights
from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import UserError
from preprocess.files.manifest import read_manifest

Tiny = Any  # of conftest.py


def config(trained: Path, **changes: Any) -> ModelConfig:
    saved = read_manifest(str(trained / "train"), "train").details["model"]
    return ModelConfig.model_validate(saved | changes)


def read(trained: Path, model: ModelConfig, tokenizer: str | None = None) -> InitialWeights:
    own = str(read_manifest(str(trained / "train"), "train").details["tokenizer"])
    return InitialWeights.read(str(trained / "export"), tokenizer or own, model)


def network(trained: Path, model: ModelConfig, cutoffs: tuple[int, ...] = (20, 50)) -> BiLMNetwork:
    vocabulary = BiLM.from_pretrained(trained / "export").tokenizer.vocabulary
    torch.manual_seed(9)
    return BiLMNetwork(model, vocabulary, cutoffs)


def test_all_weights_are_copied_if_the_tokenizer_is_the_same(trained: Path) -> None:
    model = config(trained)
    initial, net = read(trained, model), network(trained, model)

    assert initial.adopt(net) == "its output layer is used too"
    theirs = BiLM.from_pretrained(trained / "export").network.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in net.state_dict().items())


def test_clusters_of_the_model_are_used_if_its_output_layer_fits(trained: Path) -> None:
    model = config(trained, head={"kind": "adaptive_softmax"})
    initial = read(trained, model)
    vocabulary = initial.network.head.vocabulary
    assert isinstance(vocabulary, int)
    found = initial.clusters(model.head, vocabulary)

    assert found is not None
    assert found[0] == (20, 50)
    assert torch.equal(found[1], initial.network.head.ranks)  # type: ignore[arg-type]
    assert initial.clusters(model.head, vocabulary - 1) is None
    for other in ({"kind": "softmax"}, {"kind": "adaptive_softmax", "cutoffs": [10]}):
        head = config(trained, head=other).head
        assert initial.clusters(head, vocabulary) is None


def test_another_output_layer_keeps_its_random_weights(trained: Path) -> None:
    model = config(trained, head={"kind": "softmax"})
    initial, net = read(trained, model), network(trained, model)
    drawn = net.state_dict()["head.weight"].clone()

    assert initial.adopt(net) == "the output layer starts from random weights"
    assert torch.equal(net.state_dict()["head.weight"], drawn)
    theirs = initial.network.state_dict()
    assert torch.equal(
        net.state_dict()["recurrent.layers.0.bias"], theirs["recurrent.layers.0.bias"]
    )


def test_vectors_of_the_ids_of_another_tokenizer_are_refused(trained: Path) -> None:
    with pytest.raises(UserError, match=r"was trained with another tokenizer than this corpus"):
        read(trained, config(trained), "another")


def test_other_shapes_are_refused_with_the_name_of_the_weight(trained: Path) -> None:
    model = config(trained, recurrent={"kind": "lstm", "hidden": 6, "projection": 4})
    with pytest.raises(UserError) as told:
        read(trained, model).adopt(network(trained, model))

    folder = trained / "export"
    assert str(told.value) == (
        "train.init_from: recurrent.layers.0.weight_input has shape (2, 4, 24) in this config and "
        f"shape (2, 4, 32) in {folder}; set model.* as in its config.json"
    )


def test_a_layer_that_the_model_does_not_have_is_refused(trained: Path) -> None:
    model = config(trained, recurrent={"kind": "lstm", "hidden": 8, "projection": 4, "layers": 3})
    with pytest.raises(
        UserError, match=r"layers\.2\.weight_input has .* no such weight in .*; set"
    ):
        read(trained, model).adopt(network(trained, model))


def test_a_training_that_starts_from_a_model_begins_where_it_ended(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    start = f"train.init_from={trained / 'export'}"
    manifest, printed = tiny.run("train", tmp_path, start, "train.steps=1", "train.log_steps=1")

    assert f"starting from {trained / 'export'}; its output layer is used too" in printed
    weights = read_checkpoint(str(tmp_path / "train" / "checkpoint.ckpt"))["state_dict"]
    before = read_checkpoint(str(trained / "train" / "checkpoint.ckpt"))["state_dict"]
    name = "network.recurrent.layers.0.bias"
    # One step of Adam moves no weight by more than its rate.
    assert 0 < (weights[name] - before[name]).abs().max() < 0.02
    asked = manifest.asked["train.init_from"]
    assert asked == read_manifest(str(trained / "export"), "export").content


def test_input_vectors_that_the_config_does_not_have_are_refused(trained: Path) -> None:
    model = config(trained, input={"kind": "adaptive"}, tied=True)
    with pytest.raises(
        UserError, match=r"has its input vectors in input\.embedding\.weight, which"
    ):
        read(trained, model).adopt(network(trained, model))

"""Initial weights from a trained model, and models that are refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.config import ModelConfig
from lightning_modules.models.checkpoint_file import CheckpointError, read_checkpoint
from lightning_modules.models.checkpoint_writer import write_checkpoint
from lightning_modules.nn.bilm import BiLMNetwork
from lightning_modules.training.config import (
    AdagradConfig,
    AdamConfig,
    AdamWConfig,
    OptimizerConfig,
    SGDConfig,
)
from lightning_modules.training.optimizers import build_optimizer
from lightning_modules.training.weights.initial_weights import InitialWeights
from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import UserError
from preprocess.files.manifest import FileRecord, hash_file, read_manifest, write_manifest

Tiny = Any  # of conftest.py
ADAM = AdamConfig()


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

    assert initial.adopt(net, ADAM) == "its output layer is used too"
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

    assert initial.adopt(net, ADAM) == "the output layer starts from random weights"
    assert torch.equal(net.state_dict()["head.weight"], drawn)
    theirs = initial.network.state_dict()
    assert torch.equal(
        net.state_dict()["recurrent.layers.0.bias"], theirs["recurrent.layers.0.bias"]
    )


def test_vectors_of_the_ids_of_another_tokenizer_are_refused(trained: Path) -> None:
    message = (
        r"^train\.init_from: .* was trained with another tokenizer than this corpus has, so its input vectors "
        r"do not fit the ids of the corpus; prepare"
    )
    for name in ("export", "train"):
        with pytest.raises(UserError, match=message):
            InitialWeights.read(str(trained / name), "another", config(trained))


def test_other_shapes_are_refused_with_the_name_of_the_weight(trained: Path) -> None:
    model = config(trained, recurrent={"kind": "lstm", "hidden": 6, "projection": 4})
    with pytest.raises(UserError) as told:
        read(trained, model).adopt(network(trained, model), ADAM)

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
        read(trained, model).adopt(network(trained, model), ADAM)


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
        read(trained, model).adopt(network(trained, model), ADAM)


# Checkpoints


def from_checkpoint(trained: Path, folder: Path | None = None, name: str = "") -> InitialWeights:
    own = str(read_manifest(str(trained / "train"), "train").details["tokenizer"])
    path = (folder or trained / "train") / name
    return InitialWeights.read(str(path), own, config(trained))


def moments_by_name(trained: Path) -> dict[str, dict[str, torch.Tensor]]:
    saved = read_checkpoint(str(trained / "train" / "checkpoint.ckpt"))["optimizer_states"][0][
        "state"
    ]
    names = [name for name, _ in network(trained, config(trained)).named_parameters()]
    return {name: saved[number] for number, name in enumerate(names)}


@pytest.mark.parametrize("name", ["", "checkpoint.ckpt"])
def test_a_checkpoint_gives_its_weights_and_the_moments(trained: Path, name: str) -> None:
    initial, net = from_checkpoint(trained, name=name), network(trained, config(trained))
    told = initial.adopt(net, AdamWConfig(weight_decay=0.5))
    assert told == "its output layer is used too; the optimiser continues with its moments"
    weights = read_checkpoint(str(trained / "train" / "checkpoint.ckpt"))["state_dict"]
    assert all(torch.equal(t, weights[f"network.{n}"]) for n, t in net.state_dict().items())
    assert initial.optimizer_state is not None
    before = moments_by_name(trained)
    for number, (weight, _) in enumerate(net.named_parameters()):
        state = initial.optimizer_state["state"][number]
        assert state.keys() == before[weight].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(state[key], before[weight][key]) for key in state)
    (group,) = initial.optimizer_state["param_groups"]
    assert group["weight_decay"] == 0.5, "the settings are those of the new config"


def test_an_output_layer_that_starts_anew_has_no_moments(trained: Path) -> None:
    model = config(trained, head={"kind": "softmax"})
    initial, net = from_checkpoint(trained), network(trained, model)
    assert initial.adopt(net, ADAM) == (
        "the output layer starts from random weights; the optimiser continues with its moments of the "
        "weights that are used"
    )
    assert initial.optimizer_state is not None
    with_moments = {
        name
        for n, (name, _) in enumerate(net.named_parameters())
        if n in initial.optimizer_state["state"]
    }
    assert with_moments == {n for n, _ in net.named_parameters() if not n.startswith("head.")}
    optimizer = build_optimizer(ADAM, net.parameters(), 0.1)
    optimizer.load_state_dict(initial.optimizer_state)
    sum(p.sum() for p in net.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()


def stepped(kind: OptimizerConfig, net: BiLMNetwork) -> dict[str, Any]:
    """Return the state of an optimiser after a step."""
    optimizer = build_optimizer(kind, net.parameters(), 0.1)
    sum(p.sum() for p in net.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return optimizer.state_dict()


@pytest.fixture
def other_checkpoint(
    trained: Path, tmp_path: Path, as_stranger: Callable[[Path], None]
) -> Callable[..., Path]:
    """A function that makes a copy of the train folder, with changes of its checkpoint."""

    def made(**changes: Any) -> Path:
        folder = tmp_path / "other"
        shutil.copytree(trained / "train", folder)
        path = folder / "checkpoint.ckpt"
        write_checkpoint(str(path), read_checkpoint(str(path)) | changes)
        as_stranger(folder)
        return folder

    return made


MOMENTUM, ADAGRAD = SGDConfig(momentum=0.9), AdagradConfig()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (MOMENTUM, MOMENTUM, "continues with its moments"),
        (ADAGRAD, ADAGRAD, "continues with its moments"),
        (AdamWConfig(), ADAM, "continues with its moments"),
        (
            MOMENTUM,
            ADAM,
            "starts anew, because the checkpoint has the state of sgd",
        ),
        (
            ADAM,
            ADAGRAD,
            "starts anew, because the checkpoint has the state of adam or adamw",
        ),
        (ADAM, SGDConfig(), "starts anew, because sgd without momentum keeps no state"),
        (
            SGDConfig(),
            MOMENTUM,
            "starts anew, because the checkpoint has no state of an optimiser",
        ),
    ],
)
def test_moments_continue_in_an_optimiser_of_the_same_kind(
    trained: Path,
    other_checkpoint: Callable[..., Path],
    old: OptimizerConfig,
    new: OptimizerConfig,
    told: str,
) -> None:
    state = stepped(old, network(trained, config(trained)))
    initial = from_checkpoint(trained, other_checkpoint(optimizer=state))
    net = network(trained, config(trained))
    assert initial.adopt(net, new) == f"its output layer is used too; the optimiser {told}"
    assert (initial.optimizer_state is not None) == told.startswith("continues")
    if initial.optimizer_state:
        optimizer = build_optimizer(new, net.parameters(), 0.1)
        optimizer.load_state_dict(initial.optimizer_state)
        sum(p.sum() for p in net.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()


def test_new_weights_have_the_first_sums_of_adagrad(
    trained: Path, other_checkpoint: Callable[..., Path]
) -> None:
    state = stepped(ADAGRAD, network(trained, config(trained)))
    initial = from_checkpoint(trained, other_checkpoint(optimizer=state))
    net = network(trained, config(trained, head={"kind": "softmax"}))
    initial.adopt(net, ADAGRAD)
    assert initial.optimizer_state is not None
    sums = [initial.optimizer_state["state"][n]["sum"] for n, _ in enumerate(net.parameters())]
    for (name, _), one in zip(net.named_parameters(), sums, strict=True):
        assert bool((one == 1.0).all()) == name.startswith("head.")


def test_a_checkpoint_of_lightning_gives_its_moments(
    trained: Path, other_checkpoint: Callable[..., Path]
) -> None:
    saved = read_checkpoint(str(trained / "train" / "checkpoint.ckpt"))
    folder = other_checkpoint(optimizer=None, optimizer_states=saved["optimizer_states"])
    told = from_checkpoint(trained, folder).adopt(network(trained, config(trained)), ADAM)
    assert told.endswith("the optimiser continues with its moments")


def test_a_checkpoint_without_an_optimiser_gives_its_weights(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    shutil.copytree(trained / "train", folder)
    saved = read_checkpoint(str(folder / "checkpoint.ckpt"))
    weights = {name: tensor * 2 for name, tensor in saved["state_dict"].items()}
    write_checkpoint(f"{folder}/best.ckpt", {"state_dict": weights})
    manifest = read_manifest(str(folder))
    record = FileRecord("best.ckpt", *hash_file(f"{folder}/best.ckpt"))
    others = [file for file in manifest.files if file.name != "best.ckpt"]
    write_manifest(str(folder), replace(manifest, files=(*others, record)))
    initial, net = from_checkpoint(trained, folder, "best.ckpt"), network(trained, config(trained))
    assert initial.adopt(net, ADAM) == (
        "its output layer is used too; the optimiser starts anew, because the checkpoint has no state "
        "of an optimiser"
    )
    name = "recurrent.layers.0.bias"
    assert torch.equal(net.state_dict()[name], weights[f"network.{name}"])


def test_averaged_weights_are_used_if_there_are_some(
    trained: Path, other_checkpoint: Callable[..., Path]
) -> None:
    net = network(trained, config(trained))
    average = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    initial = from_checkpoint(trained, other_checkpoint(average=average))
    assert all(torch.equal(t, average[n]) for n, t in initial.network.state_dict().items())


def wrong_shape(state: dict[str, Any]) -> None:
    state["state"][0]["exp_avg"] = torch.zeros(3)


def not_finite(state: dict[str, Any]) -> None:
    state["state"][1]["exp_avg"][0] = torch.nan


def too_many(state: dict[str, Any]) -> None:
    state["state"][99] = state["state"][0]


def no_state(state: dict[str, Any]) -> None:
    del state["state"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (wrong_shape, "the state of its optimiser has other shapes than its weights"),
        (too_many, "the state of its optimiser has other shapes than its weights"),
        (not_finite, "exp_avg of recurrent.layers.0.weight_input holds NaN or infinity"),
        (no_state, "no 'state'"),
    ],
)
def test_a_state_that_does_not_fit_the_weights_is_refused(
    trained: Path, other_checkpoint: Callable[..., Path], change: Any, told: str
) -> None:
    state = read_checkpoint(str(trained / "train" / "checkpoint.ckpt"))["optimizer_states"][0]
    change(state)
    folder = other_checkpoint(optimizer=state)
    with pytest.raises(CheckpointError) as raised:
        from_checkpoint(trained, folder)
    assert str(raised.value) == (
        f"{folder}/checkpoint.ckpt cannot be continued ({told}); name another checkpoint in "
        "train.init_from"
    )


def test_a_damaged_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    shutil.copytree(trained / "train", folder)
    data = bytearray((folder / "checkpoint.ckpt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "checkpoint.ckpt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"checkpoint\.ckpt .*run `biloom check"):
        from_checkpoint(trained, folder)


def test_other_shapes_than_those_of_a_checkpoint_are_refused(trained: Path) -> None:
    model = config(trained, recurrent={"kind": "lstm", "hidden": 6, "projection": 4})
    with pytest.raises(UserError, match=r"set model\.\* as in its config\.yaml"):
        from_checkpoint(trained).adopt(network(trained, model), ADAM)


def test_a_training_that_starts_from_a_checkpoint_is_a_new_one_with_the_moments(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    start = f"train.init_from={trained}/train"
    settings = ("train.steps=2", "train.learning_rate=0.003", "train.warmup_steps=5")
    manifest, printed = tiny.run("train", tmp_path, start, *settings)
    assert (
        f"starting from {trained}/train; its output layer is used too; the optimiser continues with "
        "its moments" in printed
    )
    record = read_manifest(str(trained / "train"), "train").records["checkpoint.ckpt"]
    assert manifest.asked["train.init_from"] == record.xxh128
    made = read_checkpoint(str(tmp_path / "train" / "checkpoint.ckpt"))
    assert made["step"] == 2
    assert made["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.003 * 3 / 6)
    before = moments_by_name(trained)["recurrent.layers.0.bias"]
    names = [name for name, _ in network(trained, config(trained)).named_parameters()]
    after = made["optimizer_states"][0]["state"][names.index("recurrent.layers.0.bias")]
    assert after["step"] == before["step"] + 2
    # The second moment decays by 0.999 a step, and gradients are added.
    assert bool((after["exp_avg_sq"] > 0.998 * before["exp_avg_sq"]).all())
    # The same settings are the same request, by whatever path; a model folder is another one.
    again = f"train.init_from={trained}/train/checkpoint.ckpt"
    assert "already done" in tiny.run("train", tmp_path, again, *settings)[1]
    with pytest.raises(UserError, match=r"train\.init_from"):
        tiny.run("train", tmp_path, f"train.init_from={trained}/export", *settings)

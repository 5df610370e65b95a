"""Reading and writing model folders, and reading checkpoints."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from biloom import BiLM
from lightning_modules.models.model_folder import (
    CheckpointError,
    ModelError,
    checkpoint_weights,
    load_network,
    network_of_checkpoint,
    pack_weights,
    read_checkpoint,
    tensors_hash,
    unpack_weights,
)
from preprocess.files.manifest import read_manifest


def test_a_model_folder_has_the_weights_of_the_checkpoint(trained: Path) -> None:
    model = BiLM.from_pretrained(trained / "export")
    saved = checkpoint_weights(str(trained / "train"))
    loaded = model.network.state_dict()

    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
    assert model.content == read_manifest(str(trained / "export")).content
    details = read_manifest(str(trained / "train")).details
    again = network_of_checkpoint(str(trained / "train"), details).state_dict()
    assert all(torch.equal(saved[name], again[name]) for name in saved)


@pytest.mark.parametrize("size", [None, 0, 100, 5000, -1])
def test_a_missing_or_damaged_checkpoint_raises(
    trained: Path, tmp_path: Path, size: int | None
) -> None:
    problem = "missing; make" if size is None else "damaged "
    path = tmp_path / "checkpoint.ckpt"
    if size is not None:
        path.write_bytes((trained / "train" / "checkpoint.ckpt").read_bytes()[:size])

    with pytest.raises(CheckpointError, match=rf"ckpt is {problem}.*biloom train"):
        read_checkpoint(str(path))


def test_the_hash_depends_on_every_bit_name_dtype_shape_and_setting() -> None:
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    other = tensor.clone()
    other.view(torch.int32)[1, 2] ^= 1
    first = tensors_hash({"a": tensor}, {"k": 1})
    different = [
        ({"a": other}, {"k": 1}),
        ({"b": tensor}, {"k": 1}),
        ({"a": tensor.reshape(3, 2)}, {"k": 1}),
        ({"a": tensor.view(torch.int32)}, {"k": 1}),
        ({"a": tensor}, {"k": 2}),
        ({"a": tensor, "b": tensor}, {"k": 1}),
        ({}, {"k": 1}),
    ]
    hashes = [tensors_hash(*arguments) for arguments in different]

    assert len({first, *hashes}) == len(hashes) + 1
    assert first == tensors_hash({"a": tensor.T.contiguous().T}, {"k": 1}), "strides do not count"
    assert tensors_hash({"a": tensor, "b": other}, {}) == tensors_hash(
        {"b": other, "a": tensor}, {}
    )


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _other_kind(path: Path) -> None:
    path.write_text(path.read_text().replace('"float32"', '"int3"'))


def _without(path: Path) -> None:
    path.write_text(path.read_text().replace('"vocabulary"', '"words"'))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", Path.unlink, "model.safetensors is missing; run `biloom check"),
        ("model.safetensors", _cut, r"model.safetensors is damaged \("),
        ("config.json", _cut, r"config.json is damaged \([0-9,]+ bytes, not [0-9,]+\); run"),
        ("config.json", _without, r"config.json is damaged \(no 'vocabulary'\)"),
        (
            "config.json",
            _other_kind,
            "stored as 'int3', which needs a newer biloom; upgrade",
        ),
    ],
)
def test_a_damaged_folder_raises(
    trained: Path, tmp_path: Path, name: str, damage: Any, message: str, as_stranger: Any
) -> None:
    shutil.copytree(trained / "export", tmp_path / "export")
    damage(tmp_path / "export" / name)
    if damage in (_other_kind, _without):
        as_stranger(tmp_path / "export")

    with pytest.raises(ModelError, match=message):
        load_network(str(tmp_path / "export"))


def test_int8_weights_are_within_half_a_quantisation_step_of_their_output() -> None:
    weights = {
        "recurrent.layers.0.weight_input": torch.randn(2, 5, 12),
        "input.filters.0": torch.randn(6, 3),
        "head.weight": torch.randn(9, 5),
        "head.bias": torch.randn(9),
        "head.ranks": torch.arange(9),
    }
    stored = pack_weights(weights, "int8")
    restored = unpack_weights(stored)

    assert restored.keys() == weights.keys()
    assert stored["recurrent.layers.0.weight_input:scale"].shape == (2, 1, 12)
    assert stored["input.filters.0:scale"].shape == (1, 3)
    assert stored["head.weight:scale"].shape == (9, 1)
    for name in ("head.bias", "head.ranks"):
        assert torch.equal(restored[name], weights[name])
    for name in list(weights)[:3]:
        assert stored[name].dtype == torch.int8
        assert ((restored[name] - weights[name]).abs() <= 0.501 * stored[f"{name}:scale"]).all()


def test_a_weight_that_exceeds_float16_raises() -> None:
    with pytest.raises(
        ModelError,
        match=r"'w' holds 1e\+05, beyond float16; set export\.weights=float32, or leave --weights out$",
    ):
        pack_weights({"w": torch.full((2, 2), 1e5)}, "float16")

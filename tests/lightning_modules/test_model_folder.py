"""What a model folder and a checkpoint hold: weights, read and written."""

from pathlib import Path

import pytest
import torch

from biloom import BiLM
from lightning_modules.model_folder import (
    CheckpointError,
    checkpoint_weights,
    network_of_checkpoint,
    read_checkpoint,
    tensors_hash,
)
from preprocess.manifest import read_manifest


def test_a_model_folder_gives_back_the_weights_of_the_checkpoint(trained: Path) -> None:
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
def test_a_checkpoint_that_cannot_be_read_is_told(
    trained: Path, tmp_path: Path, size: int | None
) -> None:
    told = "missing; make" if size is None else "damaged "
    path = tmp_path / "checkpoint.ckpt"
    if size is not None:
        path.write_bytes((trained / "train" / "checkpoint.ckpt").read_bytes()[:size])

    with pytest.raises(CheckpointError, match=rf"ckpt is {told}.*biloom train"):
        read_checkpoint(str(path))


def test_the_hash_changes_with_any_bit_name_type_shape_or_setting() -> None:
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    other = tensor.clone()
    other.view(torch.int32)[1, 2] ^= 1
    one = tensors_hash({"a": tensor}, {"k": 1})
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

    assert len({one, *hashes}) == len(hashes) + 1
    assert one == tensors_hash({"a": tensor.T.contiguous().T}, {"k": 1}), "strides are no content"
    assert tensors_hash({"a": tensor, "b": other}, {}) == tensors_hash(
        {"b": other, "a": tensor}, {}
    )

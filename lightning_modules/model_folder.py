"""What training leaves and what a model folder holds: weights, read and written.

model.safetensors   weights, float32
config.json         the network's config, vocabulary, cutoffs, boundary, cleaning
tokenizer.*         the tokenizer
README.md           model card
manifest.json       last
"""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from preprocess import storage
from preprocess.errors import UserError
from preprocess.fingerprint import canonical_json
from preprocess.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CHECKPOINT = "checkpoint.ckpt"


class CheckpointError(UserError):
    """A checkpoint that cannot be read."""


def load_network(folder: str) -> tuple[BiLMNetwork, dict[str, Any]]:
    """The network of a model folder or fsspec URL, and the settings of its config.json."""
    saved: dict[str, Any] = json.loads(storage.read_bytes(storage.join(folder, CONFIG)))
    config = ModelConfig.model_validate(saved["model"])
    network = BiLMNetwork(
        config, saved["vocabulary"], tuple(saved["cutoffs"]), head=saved.get("head", True)
    )
    network.load_state_dict(load_safetensors(storage.read_bytes(storage.join(folder, WEIGHTS))))
    return network, saved


def save_model(
    folder: str, weights: Mapping[str, Tensor], config: Mapping[str, Any], tokenizer: Tokenizer
) -> tuple[str, ...]:
    """Write a model folder's files but the card and the manifest; returns their names."""
    tensors = {name: tensor.contiguous() for name, tensor in sorted(weights.items())}
    storage.write_bytes(storage.join(folder, WEIGHTS), save_safetensors(tensors))
    text = json.dumps(config, indent=2, ensure_ascii=False)
    storage.write_bytes(storage.join(folder, CONFIG), f"{text}\n".encode())
    return (WEIGHTS, CONFIG, *tokenizer.save(folder))


def read_checkpoint(path: str) -> dict[str, Any]:
    """A training checkpoint's tensors and plain values, on the CPU; no code is unpickled.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        data = io.BytesIO(storage.read_bytes(path))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing; make it again with `biloom train --overwrite`"
        ) from error
    try:
        checkpoint: dict[str, Any] = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways, each with a type of its own
        raise CheckpointError(
            f"{path} is damaged ({error}); make it again with `biloom train --overwrite`"
        ) from error
    return checkpoint


def checkpoint_weights(folder: str) -> dict[str, Tensor]:
    """The network's tensors in the checkpoint of a train folder: their average where there is one."""
    checkpoint = read_checkpoint(storage.join(folder, CHECKPOINT))
    if checkpoint.get("average"):
        averaged: dict[str, Tensor] = checkpoint["average"]
        return averaged
    prefix, state = "network.", checkpoint["state_dict"]
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def network_of_checkpoint(folder: str, details: Mapping[str, Any]) -> BiLMNetwork:
    """The network of a train folder; ``details`` are those of its manifest."""
    config = ModelConfig.model_validate(details["model"])
    network = BiLMNetwork(config, details["vocabulary"], tuple(details["cutoffs"]))
    network.load_state_dict(checkpoint_weights(folder))
    return network


def tensors_hash(tensors: Mapping[str, Tensor], details: Mapping[str, Any]) -> str:
    """sha256 over tensors (name, type, shape, bytes) and the settings that give them a meaning."""
    hashed = hashlib.sha256(canonical_json(details).encode())
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.contiguous().numpy().tobytes())
    return hashed.hexdigest()

"""What training leaves and what a model folder holds: weights, read and written.

model.safetensors   weights, and with export.type_vectors the vector of every word
config.json         the network's config, vocabulary, cutoffs, boundary, cleaning; how it is stored
tokenizer.*         the tokenizer
README.md           model card
manifest.json       last
"""

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.nn.bilm import BiLMNetwork
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.fingerprint import canonical_json
from preprocess.tokenizers.load import Tokenizer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CHECKPOINT = "checkpoint.ckpt"


STORED = ("float32", "float16", "int8")
SCALE = ":scale"
TYPE_VECTORS = "type_vectors"
TINY = torch.finfo(torch.float32).tiny


class CheckpointError(UserError):
    """A checkpoint that cannot be read."""


class ModelError(UserError):
    """A model folder that cannot be read, or a model that cannot be stored as asked."""


class Loaded(NamedTuple):
    """A model folder's network in float32, whatever it is stored as.

    settings: of its config.json; type_vectors: (vocabulary, width) float32, the finished vector of
    each id of a character CNN's vocabulary, none: not stored.
    """

    network: BiLMNetwork
    settings: dict[str, Any]
    type_vectors: Tensor | None


def load_network(folder: str) -> Loaded:
    """The network of a model folder or fsspec URL.

    Raises:
        ModelError: a file is missing, damaged, or stored in a way that this biloom does not know.
    """
    again = "make it again with `biloom export --overwrite`"
    try:
        path = storage.join(folder, CONFIG)
        saved: dict[str, Any] = json.loads(storage.read_bytes(path))
        kind = saved.get("weights", "float32")
        if kind not in STORED:
            raise ModelError(
                f"{path}: weights are stored as '{kind}', which this biloom does not know; upgrade it"
            )
        config = ModelConfig.model_validate(saved["model"])
        vocabulary, cutoffs, head = saved["vocabulary"], saved["cutoffs"], saved.get("head", True)
        network = BiLMNetwork(config, vocabulary, tuple(cutoffs), head=head)
        path = storage.join(folder, WEIGHTS)
        weights = unpacked(load_safetensors(storage.read_bytes(path)))
        vectors = weights.pop(TYPE_VECTORS, None)
        network.load_state_dict(weights)
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; {again}") from error
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        what = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ModelError(f"{path} is damaged ({what}); {again}") from error
    return Loaded(network, saved, vectors)


def packed(weights: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Weights as they are stored: matrices in float16, or in int8 with a float32 scale an output.

    Biases and whole numbers stay as they are. The scale of "x" is "x:scale", of x's shape but for the
    dimension that a product sums over (of a recurrent weight and of a convolution the one before the
    last, of others the last), which is 1.

    Raises:
        ModelError: a weight is beyond what float16 can hold.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if kind == "float32" or weight.dim() < 2 or weight.dtype != torch.float32:
            found[name] = weight
        elif kind == "float16":
            found[name] = weight.half()
            if not found[name].isfinite().all():
                raise ModelError(
                    f"'{name}' holds {weight.abs().max():.4g}, beyond float16; set export.weights=float32"
                )
        else:
            summed = -2 if name.startswith(("recurrent.", "input.filters.")) else -1
            scale = weight.abs().amax(summed, keepdim=True).clamp(min=TINY) / 127
            found[name] = (weight / scale).round().to(torch.int8)
            found[name + SCALE] = scale
    return found


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` was given, rounded, in float32."""
    found: dict[str, Tensor] = {}
    for name, weight in stored.items():
        if name + SCALE in stored:
            found[name] = weight.float() * stored[name + SCALE]
        elif not name.endswith(SCALE):
            found[name] = weight.float() if weight.dtype == torch.float16 else weight
    return found


def save_model(
    folder: str, weights: Mapping[str, Tensor], config: Mapping[str, Any], tokenizer: Tokenizer
) -> tuple[str, ...]:
    """Write a model folder's files but the card and the manifest; returns their names."""
    stored = packed(weights, config.get("weights", "float32"))
    tensors = {name: tensor.contiguous() for name, tensor in sorted(stored.items())}
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

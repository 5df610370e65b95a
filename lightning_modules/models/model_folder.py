"""Read and write model folders, and read the weights of training checkpoints.

A model folder holds

    model.safetensors   weights, and with export.type_vectors the vector of every word
    config.json         network, vocabulary size, cutoffs, boundary, cleaning, type of the weights
    tokenizer.json      the kind of the tokenizer, whose other files depend on it
    README.md           the model card
    manifest.json       the manifest, written last
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.models.checkpoint_file import CHECKPOINT, CheckpointError, read_checkpoint
from lightning_modules.models.model_settings import parse_settings
from lightning_modules.models.stored_network import (
    check_finite,
    check_type_vectors,
    network_of_weights,
)
from lightning_modules.nn.bilm import BiLMNetwork
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.fingerprint import canonical_json
from preprocess.files.verified import DamagedResult, manifest_of, read_verified
from preprocess.tokenizers.load import Tokenizer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

SCALE = ":scale"
"""Suffix of the name of an int8 weight's scale."""
TYPE_VECTORS = "type_vectors"
TINY = torch.finfo(torch.float32).tiny


class ModelError(UserError):
    """A model folder that cannot be read, or a model that cannot be stored in the requested type."""


class LoadedModel(NamedTuple):
    """The contents of a model folder.

    Attributes:
        network: the network in float32, whatever the type of the stored weights.
        settings: the contents of config.json.
        type_vectors: output of a character CNN for each id, (vocabulary, width), float32; None if
            not stored.
    """

    network: BiLMNetwork
    settings: dict[str, Any]
    type_vectors: Tensor | None


def load_network(folder: str) -> LoadedModel:
    """Load the network of a model folder.

    Args:
        folder: path or fsspec URL.

    Raises:
        ModelError: a file is missing or damaged, holds NaN or infinity, does not fit the other file,
            or was written by a newer version.
    """
    again = "make it again with `biloom export --overwrite`"
    try:
        manifest = manifest_of(folder)
        path = storage.join(folder, CONFIG)
        saved, settings = parse_settings(read_verified(folder, manifest, CONFIG))
        path = storage.join(folder, WEIGHTS)
        # The weights may be trained later, even if the model is loaded under inference_mode.
        with torch.inference_mode(False):
            weights = unpack_weights(load_safetensors(read_verified(folder, manifest, WEIGHTS)))
            vectors = weights.pop(TYPE_VECTORS, None)
            network = network_of_weights(settings, weights)
            if vectors is not None:
                check_type_vectors(settings, vectors)
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; {again}") from error
    except DamagedResult as error:
        raise ModelError(str(error)) from error
    except (
        *(ValueError, KeyError, TypeError, AttributeError, RuntimeError),
        *(RecursionError, OverflowError, SafetensorError),
    ) as error:
        if isinstance(error, UserError):
            raise
        reason = f"type {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise ModelError(f"{path} is damaged ({reason}); {again}") from error
    return LoadedModel(network, saved, vectors)


def pack_weights(weights: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Convert matrices to the type in which they are stored; biases and integers are unchanged.

    An int8 matrix "x" has a float32 scale per output, "x:scale". Its shape is that of x with size 1
    in the dimension that a product sums over: the second to last in recurrent weights and
    convolutions, the last in others.

    Args:
        weights: state dict of a `BiLMNetwork`.
        kind: one of `model_settings.STORED`.

    Raises:
        ModelError: a value is NaN or infinite, or exceeds the range of float16.
    """
    try:
        check_finite(weights)
    except ValueError as error:
        raise ModelError(
            f"{error}, so the model computes no vectors; train it again with a lower "
            "train.learning_rate"
        ) from error
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if kind == "float32" or weight.dim() < 2 or weight.dtype != torch.float32:
            stored[name] = weight
        elif kind == "float16":
            stored[name] = weight.half()
            if not stored[name].isfinite().all():
                raise ModelError(
                    f"'{name}' holds {weight.abs().max():.4g}, beyond float16; set export.weights=float32, "
                    "or leave --weights out"
                )
        else:
            summed = -2 if name.startswith(("recurrent.", "input.filters.")) else -1
            scale = weight.abs().amax(summed, keepdim=True).clamp(min=TINY) / 127
            stored[name] = (weight / scale).round().to(torch.int8)
            stored[name + SCALE] = scale
    return stored


def unpack_weights(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the result of `pack_weights` to float32, under the names of the state dict.

    Values stay rounded to the type that they were stored as.
    """
    weights: dict[str, Tensor] = {}
    for name, weight in stored.items():
        if name + SCALE in stored:
            scale = stored[name + SCALE]
            if torch.broadcast_shapes(scale.shape, weight.shape) != weight.shape:
                raise ValueError(f"'{name}{SCALE}' does not fit '{name}'")
            weights[name] = weight.float() * scale
        elif not name.endswith(SCALE):
            weights[name] = weight.float() if weight.dtype == torch.float16 else weight
    return weights


def save_model(
    folder: str,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    check: Callable[[int], None] = lambda _: None,
) -> tuple[str, ...]:
    """Write the weights, the config and the tokenizer of a model folder.

    Args:
        folder: path or fsspec URL.
        weights: state dict of a `BiLMNetwork` and, optionally, `TYPE_VECTORS`.
        config: contents of config.json; its "weights" names the storage type, float32 if absent.
        tokenizer: the model's tokenizer.
        check: called with the number of bytes of `WEIGHTS` before anything is written.

    Returns:
        The names of the files written.

    Raises:
        ModelError: as in `pack_weights`.
    """
    stored = pack_weights(weights, config.get("weights", "float32"))
    tensors = {name: tensor.contiguous() for name, tensor in sorted(stored.items())}
    data = save_safetensors(tensors)
    check(len(data))
    storage.write_bytes(storage.join(folder, WEIGHTS), data)
    text = json.dumps(config, indent=2, ensure_ascii=False)
    storage.write_bytes(storage.join(folder, CONFIG), f"{text}\n".encode())
    return (WEIGHTS, CONFIG, *tokenizer.save(folder))


def checkpoint_weights(folder: str, name: str = CHECKPOINT) -> dict[str, Tensor]:
    """Return the network's state dict from a train folder: averaged weights if training kept them.

    Args:
        folder: path or fsspec URL.
        name: name of the checkpoint, one of those in `train_files`.

    Raises:
        CheckpointError: as in `read_checkpoint`.
    """
    path = storage.join(folder, name)
    checkpoint = read_checkpoint(path, mapped=True)
    weights, prefix = checkpoint.get("average"), ""
    if not weights:
        weights, prefix = checkpoint.get("state_dict"), "network."
    if not isinstance(weights, dict):
        raise CheckpointError(f"{path} holds no weights; it is not a checkpoint of biloom")
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if isinstance(name, str) and name.startswith(prefix)
    }


def network_of_checkpoint(
    folder: str, details: Mapping[str, Any], name: str = CHECKPOINT
) -> BiLMNetwork:
    """Return the network of a train folder, given the ``details`` of the folder's manifest.

    Arguments and errors as in `checkpoint_weights`.
    """
    weights = checkpoint_weights(folder, name)
    try:
        config = ModelConfig.model_validate(details["model"])
        network = BiLMNetwork(config, details["vocabulary"], tuple(details["cutoffs"]))
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = (
            f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()
        )
        raise CheckpointError(
            f"{storage.join(folder, name)} does not fit the model of its manifest ({reason}); "
            "make it again with `biloom train --overwrite`"
        ) from error
    return network


def tensors_hash(tensors: Mapping[str, Tensor], details: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of tensors on the CPU (name, dtype, shape, bytes) and of ``details``."""
    hashed = hashlib.sha256(canonical_json(details).encode())
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.contiguous().numpy().tobytes())
    return hashed.hexdigest()

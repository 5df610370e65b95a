"""Read and write the files of ELMo archives, options.json and weights.hdf5.

Weights are the same to the bit, with one exception; see `write_weights`.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_layout import (
    ElmoError,
    Floats,
    archived_parts,
    from_archive,
    layout,
    to_archive,
)
from preprocess.files import storage
from preprocess.tokenizers.spellings import CHARACTERS

WITH_MASK = CHARACTERS + 1
"""`n_characters` in an options.json for inference, where id 0 is padding; one less in training."""


def read_options(path: str) -> ModelConfig:
    """Return the network that an options.json describes.

    Raises:
        ElmoError: the file is missing, is not JSON, or does not describe an ELMo with a character CNN.
    """
    try:
        options = json.loads(storage.read_bytes(path))
        lstm, cnn = options["lstm"], options.get("char_cnn")
        if cnn is None:
            raise ElmoError(
                f"{path}: 'char_cnn' is missing; only models with a character CNN can be imported"
            )
        if cnn.get("n_characters", WITH_MASK) not in (CHARACTERS, WITH_MASK):
            raise ElmoError(
                f"{path}: char_cnn.n_characters is {cnn['n_characters']}, but must be {WITH_MASK} (or "
                f"{CHARACTERS}, as in training), because characters must be UTF-8 bytes"
            )
        projected = lstm["projection_dim"] != lstm["dim"]
        return ModelConfig.model_validate(
            {
                "input": {
                    "kind": "char_cnn",
                    "dim": cnn["embedding"]["dim"],
                    "max_characters": cnn["max_characters_per_token"],
                    "filters": cnn["filters"],
                    "activation": cnn["activation"],
                    "highway": cnn.get("n_highway") or 0,
                },
                "recurrent": {
                    "kind": "lstm",
                    "layers": lstm.get("n_layers", 1),
                    "hidden": lstm["dim"],
                    "projection": lstm["projection_dim"] if projected else None,
                    "residual": bool(lstm.get("use_skip_connections")),
                    "cell_clip": lstm.get("cell_clip"),
                    # TensorFlow's cell clips only a projected output.
                    "projection_clip": lstm.get("proj_clip") if projected else None,
                    "forget_bias": 1.0,
                },
                "head": {"kind": "softmax"},
            }
        )
    except ElmoError:
        raise
    except FileNotFoundError as error:
        raise ElmoError(f"{path} is missing; give the path of an archive's options.json") from error
    except KeyError as error:
        raise ElmoError(
            f"{path}: {error} is missing; give the options.json of an ELMo archive"
        ) from error
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ElmoError(f"{path}: {reasons}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ElmoError(f"{path} is not the options.json of an ELMo archive ({error})") from error


def write_options(config: ModelConfig) -> bytes:
    """Return the bytes of an options.json for a network, in the form for inference.

    Raises:
        ElmoError: an ELMo archive cannot represent the network.
    """
    cnn, lstm = archived_parts(config)
    return json.dumps(
        {
            "lstm": {
                "dim": lstm.hidden,
                "projection_dim": lstm.direction_width,
                "n_layers": lstm.layers,
                "cell_clip": lstm.cell_clip,
                "proj_clip": lstm.projection_clip,
                "use_skip_connections": lstm.residual,
            },
            "char_cnn": {
                "activation": cnn.activation,
                "embedding": {"dim": cnn.dim},
                "filters": [list(pair) for pair in cnn.filters],
                "max_characters_per_token": cnn.max_characters,
                "n_characters": WITH_MASK,
                "n_highway": cnn.highway,
            },
        },
        indent=2,
    ).encode()


def read_weights(path: str, config: ModelConfig) -> dict[str, Tensor]:
    """Return the tensors of a weights.hdf5 as a state dict of `BiLMNetwork`, without the output layer.

    Args:
        path: the weights.hdf5.
        config: the network, from `read_options`.

    Raises:
        ElmoError: the file is missing, is not HDF5, or its tensors do not match the options.
    """
    import h5py

    try:
        file = h5py.File(io.BytesIO(storage.read_bytes(path)), "r")
    except FileNotFoundError as error:
        raise ElmoError(f"{path} is missing; give the path of an archive's weights.hdf5") from error
    except OSError as error:
        raise ElmoError(f"{path} is not an HDF5 file ({error})") from error
    with file:
        theirs = {name: _read(file, path, name, shape) for name, shape in layout(config).items()}
        unknown: list[str] = []
        file.visititems(
            lambda n, v: unknown.append(n) if hasattr(v, "shape") and n not in theirs else None
        )
    if unknown:
        raise ElmoError(
            f"{path}: {', '.join(sorted(unknown)[:3])} is not in the network of options.json; give "
            "both files of the same archive"
        )
    return {name: torch.from_numpy(value) for name, value in from_archive(theirs, config).items()}


def _read(file: Any, path: str, name: str, shape: tuple[int, ...]) -> Floats:
    if name not in file:
        raise ElmoError(f"{path}: '{name}' is missing; give both files of the same archive")
    value: Floats = np.asarray(file[name][...])
    if value.shape != shape or value.dtype != np.float32:
        raise ElmoError(
            f"{path}: '{name}' is {value.dtype} of shape {value.shape}, but options.json needs "
            f"float32 of shape {shape}; give both files of the same archive"
        )
    return value


def write_weights(weights: Mapping[str, Tensor], config: ModelConfig) -> bytes:
    """Return the bytes of a weights.hdf5 for a network's state dict.

    Weights are written unchanged, except for the bias of the forget gate if forget_bias is 0: 1 is
    subtracted from it, because readers of ELMo archives add 1. This may round the bias once.

    Args:
        weights: state dict of a `BiLMNetwork`, float32, on the CPU; an output layer is ignored.
        config: the network.

    Raises:
        ElmoError: an ELMo archive cannot represent the network.
    """
    import h5py

    ours = {name: tensor.numpy() for name, tensor in weights.items()}
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for name, value in sorted(to_archive(ours, config).items()):
            file.create_dataset(name, data=np.ascontiguousarray(value))
    return data.getvalue()

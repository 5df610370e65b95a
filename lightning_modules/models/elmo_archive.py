"""Read and write ELMo archives (options.json and weights.hdf5), without changing a bit.

The layout is that of bilm-tf's `dump_weights`, which AllenNLP reads too. An archive describes the
same arithmetic as `CharCNN` and `LSTMLayer` with forget_bias 1; only layout and gate order differ:

    archive                                            biloom
    char_embed (261, d), a zero row is put before it   input.characters.weight (261, d)
    CNN/W_cnn_i (1, width, d, n)                       input.filters.i (width * d, n)
    CNN_high_i/W_carry, W_transform (F, F), x @ W      input.highway.i.linear.weight (2 F, F)
    CNN_proj/W_proj (F, P)                             input.projection.weight (P, F)
    LSTMCell/W_0 (2 P, 4 D), rows x, then h; gates i, j, f, o
                                                       weight_input, weight_hidden (2, P, 4 D); i, f, j, o
    LSTMCell/W_P_0 (D, P)                              weight_projection (2, D, P)

d: width of a character; n: filters of convolution i; F: all filters; P, D: projection and hidden
size of the LSTM; 2: directions; gates: input i, cell input j, forget f, output o.
"""

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from lightning_modules.config import CharCNNInputConfig, LSTMConfig, ModelConfig
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.tokenizers.spellings import CHARACTERS

Floats = npt.NDArray[np.float32]

WITH_MASK = CHARACTERS + 1
"""`n_characters` in an options.json for inference, where 0 is padding; for training, one less."""


class ElmoError(UserError):
    """An archive that cannot be read, or a model that an ELMo archive cannot represent."""


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
    """Return the options.json of a network, in its form for inference.

    Raises:
        ElmoError: an ELMo archive cannot represent the network.
    """
    cnn, lstm = _parts(config)
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


def _parts(config: ModelConfig) -> tuple[CharCNNInputConfig, LSTMConfig]:
    cnn, lstm = config.input, config.recurrent
    if not isinstance(cnn, CharCNNInputConfig):
        raise ElmoError(f"model.input.kind is {cnn.kind}, but an ELMo archive needs char_cnn")
    if not isinstance(lstm, LSTMConfig):
        raise ElmoError(f"model.recurrent.kind is {lstm.kind}, but an ELMo archive needs lstm")
    if config.directions != "both":
        raise ElmoError("model.directions is forward, but an ELMo archive needs both")
    if lstm.projection is None and lstm.projection_clip is not None:
        raise ElmoError(
            "model.recurrent.projection_clip is set without a projection, which an ELMo archive "
            "cannot represent; train with projection_clip=null"
        )
    if lstm.forget_bias not in (0.0, 1.0):
        raise ElmoError(
            f"model.recurrent.forget_bias is {lstm.forget_bias}, but an ELMo archive needs 1 or 0"
        )
    return cnn, lstm


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
    """Return the weights.hdf5 of a network's state dict.

    Readers of ELMo archives add 1 to the bias of the forget gate. If the network's forget_bias is 0,
    1 is subtracted before writing, so that bias is exact up to one rounding.

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


def layout(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each tensor in the archive of a network."""
    cnn, lstm = _parts(config)
    filters, width, hidden = sum(n for _, n in cnn.filters), lstm.direction_width, lstm.hidden
    shapes: dict[str, tuple[int, ...]] = {"char_embed": (CHARACTERS, cnn.dim)}
    for i, (size, number) in enumerate(cnn.filters):
        shapes[f"CNN/W_cnn_{i}"], shapes[f"CNN/b_cnn_{i}"] = (1, size, cnn.dim, number), (number,)
    for i in range(cnn.highway):
        for kind in ("carry", "transform"):
            shapes[f"CNN_high_{i}/W_{kind}"] = (filters, filters)
            shapes[f"CNN_high_{i}/b_{kind}"] = (filters,)
    if filters != width:
        shapes["CNN_proj/W_proj"], shapes["CNN_proj/b_proj"] = (filters, width), (width,)
    for cell in _cells(lstm):
        shapes[f"{cell}/W_0"], shapes[f"{cell}/B"] = (2 * width, 4 * hidden), (4 * hidden,)
        if lstm.projection is not None:
            shapes[f"{cell}/W_P_0"] = (hidden, width)
    return shapes


def _cells(lstm: LSTMConfig) -> Iterator[str]:
    """Yield the name of each LSTM cell: all layers of the forward direction, then of the backward."""
    for direction in range(2):
        for layer in range(lstm.layers):
            yield f"RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"


def from_archive(theirs: Mapping[str, Floats], config: ModelConfig) -> dict[str, Floats]:
    """Return an archive's tensors under the names and in the layout of biloom."""
    cnn, lstm = _parts(config)
    ours = {"input.characters.weight": theirs["char_embed"]}
    for i in range(len(cnn.filters)):
        kernel = theirs[f"CNN/W_cnn_{i}"]
        ours[f"input.filters.{i}"] = kernel.reshape(-1, kernel.shape[3])
    ours["input.bias"] = np.concatenate([theirs[f"CNN/b_cnn_{i}"] for i in range(len(cnn.filters))])
    for i in range(cnn.highway):
        gates = [theirs[f"CNN_high_{i}/W_{kind}"].T for kind in ("carry", "transform")]
        biases = [theirs[f"CNN_high_{i}/b_{kind}"] for kind in ("carry", "transform")]
        ours[f"input.highway.{i}.linear.weight"] = np.concatenate(gates)
        ours[f"input.highway.{i}.linear.bias"] = np.concatenate(biases)
    if "CNN_proj/W_proj" in theirs:
        ours["input.projection.weight"] = theirs["CNN_proj/W_proj"].T.copy()
        ours["input.projection.bias"] = theirs["CNN_proj/b_proj"]
    cells = list(_cells(lstm))
    for layer in range(lstm.layers):
        name, pair = f"recurrent.layers.{layer}", cells[layer :: lstm.layers]
        kernels = np.stack([_swapped(theirs[f"{cell}/W_0"]) for cell in pair])
        ours[f"{name}.weight_input"], ours[f"{name}.weight_hidden"] = (
            half.copy() for half in np.split(kernels, 2, 1)
        )
        ours[f"{name}.bias"] = np.stack([_swapped(theirs[f"{cell}/B"]) for cell in pair])
        if lstm.projection is not None:
            ours[f"{name}.weight_projection"] = np.stack([theirs[f"{cell}/W_P_0"] for cell in pair])
    return ours


def to_archive(ours: Mapping[str, Floats], config: ModelConfig) -> dict[str, Floats]:
    """Return tensors under the names and in the layout of the archive; the inverse of `from_archive`."""
    cnn, lstm = _parts(config)
    theirs = {"char_embed": ours["input.characters.weight"]}
    ends = np.cumsum([number for _, number in cnn.filters])[:-1]
    for i, bias in enumerate(np.split(ours["input.bias"], ends)):
        size, number = cnn.filters[i]
        theirs[f"CNN/W_cnn_{i}"] = ours[f"input.filters.{i}"].reshape(1, size, cnn.dim, number)
        theirs[f"CNN/b_cnn_{i}"] = bias
    for i in range(cnn.highway):
        for kind, weight, bias in zip(
            ("carry", "transform"),
            np.split(ours[f"input.highway.{i}.linear.weight"], 2),
            np.split(ours[f"input.highway.{i}.linear.bias"], 2),
            strict=True,
        ):
            theirs[f"CNN_high_{i}/W_{kind}"] = weight.T
            theirs[f"CNN_high_{i}/b_{kind}"] = bias
    if "input.projection.weight" in ours:
        theirs["CNN_proj/W_proj"] = ours["input.projection.weight"].T
        theirs["CNN_proj/b_proj"] = ours["input.projection.bias"]
    for number, cell in enumerate(_cells(lstm)):
        direction, layer = divmod(number, lstm.layers)
        name = f"recurrent.layers.{layer}"
        parts = [ours[f"{name}.{part}"][direction] for part in ("weight_input", "weight_hidden")]
        theirs[f"{cell}/W_0"] = _swapped(np.concatenate(parts))
        bias = ours[f"{name}.bias"][direction].copy()
        if lstm.forget_bias == 0:
            bias[lstm.hidden : 2 * lstm.hidden] -= 1
        theirs[f"{cell}/B"] = _swapped(bias)
        if lstm.projection is not None:
            theirs[f"{cell}/W_P_0"] = ours[f"{name}.weight_projection"][direction]
    return theirs


def _swapped(gates: Floats) -> Floats:
    """Swap the second and third of the four gates (last axis); its own inverse."""
    i, j, f, o = np.split(gates, 4, -1)
    return np.concatenate([i, f, j, o], -1)

"""Read and write weights.hdf5, the tensors of an ELMo archive.

Weights are copied bit by bit, with one exception; see `write_weights`. An HDF5 file can name other
files, describe arrays that it does not hold, and expand to any size, so a file is read only if each
array is stored in it.
"""

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_errors import ElmoError, reading
from lightning_modules.models.elmo_layout import (
    Floats,
    from_archive,
    layout,
    to_archive,
)
from preprocess.errors import one_line
from preprocess.files import storage

EXPANSION, FREE_BYTES = 32, 1 << 20
"""The arrays may take this many times the bytes of the file, plus ``FREE_BYTES``. Weights are hardly
compressible, but a small file could describe terabytes of zeros."""

FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}
"""Filters of HDF5 that are read, by number; others need a plugin, which is foreign code."""

SAME_ARCHIVE = "give both files of the same archive"


def read_weights(path: str, config: ModelConfig) -> dict[str, Tensor]:
    """Return the tensors of a weights.hdf5 as a state dict of `BiLMNetwork`, without the output layer.

    Memory is bounded by the size of the file, whatever it describes.

    Args:
        path: the weights.hdf5.
        config: the network, from `read_options`.

    Raises:
        ElmoError: the file is missing, is not HDF5, is damaged or refers to other files, or its tensors
            do not match the options or are not finite.
    """
    import h5py

    with reading(path, "give the path of an archive's weights.hdf5"):
        data = storage.read_bytes(path)
    shapes = layout(config)
    due = 4 * sum(math.prod(shape) for shape in shapes.values())
    if due > EXPANSION * len(data) + FREE_BYTES:
        raise ElmoError(
            f"{path}: the file has {len(data):,} bytes, but options.json describes {due:,} bytes of "
            f"weights; {SAME_ARCHIVE}"
        )
    # For a damaged file, h5py raises errors of many types.
    try:
        file = h5py.File(io.BytesIO(data), "r")
    except Exception as error:
        raise ElmoError(f"{path} is not an HDF5 file ({_reason(error)}); {SAME_ARCHIVE}") from error
    try:
        with file:
            theirs = {name: _read(file, path, name, shape) for name, shape in shapes.items()}
            unknown = sorted(set(_arrays(file)) - shapes.keys())
    except ElmoError:
        raise
    except Exception as error:
        raise ElmoError(
            f"{path} is damaged ({_reason(error)}); download or copy the archive again"
        ) from error
    if unknown:
        raise ElmoError(
            f"{path}: {', '.join(map(one_line, unknown[:3]))} is not in the network of options.json; "
            f"{SAME_ARCHIVE}"
        )
    return {name: torch.from_numpy(value) for name, value in from_archive(theirs, config).items()}


def _reason(error: Exception) -> str:
    return one_line(str(error))[:200] or type(error).__name__


def _arrays(file: Any) -> Iterator[str]:
    """Yield the names of the arrays in a file; links are not followed."""
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    yield from found


def _read(file: Any, path: str, name: str, shape: tuple[int, ...]) -> Floats:
    import h5py

    array = _find(file, path, name)
    if not isinstance(array, h5py.Dataset):
        raise ElmoError(f"{path}: '{name}' is not an array; {SAME_ARCHIVE}")
    if array.shape != shape or array.dtype != np.float32:
        raise ElmoError(
            f"{path}: '{name}' is {array.dtype} of shape {array.shape}, but options.json needs "
            f"float32 of shape {shape}; {SAME_ARCHIVE}"
        )
    if array.is_virtual or array.external:
        raise ElmoError(
            f"{path}: '{name}' is stored in another file, which is not read; store it in this one"
        )
    # HDF5 unpacks a whole chunk, which may be larger than the array.
    if array.chunks and 4 * math.prod(array.chunks) > max(array.nbytes, FREE_BYTES):
        raise ElmoError(
            f"{path}: '{name}' is stored in chunks larger than itself, which are not read; store it in "
            "one piece (h5repack -l CONTI)"
        )
    stored = array.id.get_create_plist()
    filters = [stored.get_filter(n)[0] for n in range(stored.get_nfilters())]
    if not set(filters) <= FILTERS.keys():
        raise ElmoError(
            f"{path}: '{name}' is stored with a filter that is not read; store it without one "
            "(h5repack -f NONE)"
        )
    value: Floats = array[...]
    if not np.isfinite(value).all():
        number = int(np.count_nonzero(~np.isfinite(value)))
        raise ElmoError(
            f"{path}: '{name}' has {number:,} values that are NaN or infinite, so every vector would be "
            "wrong; download or copy the archive again"
        )
    return value


def _find(file: Any, path: str, name: str) -> Any:
    """Return the object at ``name``; soft and external links are refused."""
    import h5py

    found = file
    for part in name.split("/"):
        link = None
        with suppress(KeyError):
            link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise ElmoError(f"{path}: '{name}' is missing; {SAME_ARCHIVE}")
        if not isinstance(link, h5py.HardLink):
            raise ElmoError(
                f"{path}: '{name}' is a link to another place or file, which is not followed; "
                f"{SAME_ARCHIVE}"
            )
        found = found[part]
    return found


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

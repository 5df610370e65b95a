"""weights.hdf5 of an ELMo archive: only arrays that the file itself holds are read."""

import io
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.config import ModelConfig
from lightning_modules.models.elmo_errors import ElmoError
from lightning_modules.models.elmo_layout import layout
from lightning_modules.models.elmo_weights import read_weights, write_weights

CONFIG = ModelConfig.model_validate(
    {
        "input": {"kind": "char_cnn", "dim": 4, "filters": [[1, 3], [3, 5]], "highway": 1},
        "recurrent": {"kind": "lstm", "hidden": 8, "projection": 6, "forget_bias": 1.0},
    }
)
W_0 = "RNN_0/RNN/MultiRNNCell/Cell0/LSTMCell/W_0"
SHAPE = layout(CONFIG)[W_0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    draw = np.random.default_rng(3)
    with h5py.File(tmp_path / "weights.hdf5", "w") as file:
        for name, shape in layout(CONFIG).items():
            file[name] = draw.normal(size=shape).astype(np.float32)
    return tmp_path / "weights.hdf5"


def other_file(path: Path) -> Path:
    """Write a file that holds the array, and return its path."""
    with h5py.File(path.parent / "other.hdf5", "w") as file:
        file["x"] = np.ones(SHAPE, np.float32)
    np.ones(SHAPE, np.float32).tofile(path.parent / "raw")
    return path.parent / "other.hdf5"


def external(file: h5py.File, path: Path) -> None:
    file[W_0] = h5py.ExternalLink(str(other_file(path)), "x")


def external_group(file: h5py.File, path: Path) -> None:
    with h5py.File(other_file(path), "a") as other:
        other["RNN/MultiRNNCell/Cell0/LSTMCell/W_0"] = np.ones(SHAPE, np.float32)
    del file["RNN_0"]
    file["RNN_0"] = h5py.ExternalLink(str(path.parent / "other.hdf5"), "/")


def soft(file: h5py.File, path: Path) -> None:
    file["hidden"] = np.ones(SHAPE, np.float32)
    file[W_0] = h5py.SoftLink("/hidden")


def raw(file: h5py.File, path: Path) -> None:
    other_file(path)
    file.create_dataset(
        W_0, SHAPE, np.float32, external=[(str(path.parent / "raw"), 0, h5py.h5f.UNLIMITED)]
    )


def virtual(file: h5py.File, path: Path) -> None:
    made = h5py.VirtualLayout(SHAPE, np.float32)
    made[:] = h5py.VirtualSource(str(other_file(path)), "x", SHAPE)
    file.create_virtual_dataset(W_0, made)


def foreign_filter(file: h5py.File, path: Path) -> None:
    file.create_dataset(W_0, data=np.ones(SHAPE, np.float32), compression="lzf")


def group(file: h5py.File, path: Path) -> None:
    file.create_group(W_0)


def named_type(file: h5py.File, path: Path) -> None:
    file[W_0] = np.dtype(np.float32)


def no_float(file: h5py.File, path: Path) -> None:
    file[W_0] = np.ones(SHAPE, np.float64)


def text(file: h5py.File, path: Path) -> None:
    file[W_0] = "words"


def empty(file: h5py.File, path: Path) -> None:
    file[W_0] = h5py.Empty(np.float32)


def large_chunks(file: h5py.File, path: Path) -> None:
    chunks = (SHAPE[0], 100_000)
    file.create_dataset(W_0, SHAPE, np.float32, chunks=chunks, maxshape=(None, None), compression=9)


def nan(file: h5py.File, path: Path) -> None:
    values = np.ones(SHAPE, np.float32)
    values[0, :2] = np.nan, np.inf
    file[W_0] = values


@pytest.mark.parametrize(
    ("store", "told"),
    [
        (external, "is a link to another place or file, which is not followed"),
        (external_group, "is a link to another place or file, which is not followed"),
        (soft, "is a link to another place or file, which is not followed"),
        (raw, "is stored in another file, which is not read"),
        (virtual, "is stored in another file, which is not read"),
        (foreign_filter, r"is stored with a filter that is not read; store it .*h5repack"),
        (large_chunks, r"is stored in chunks larger than itself.*h5repack -l CONTI"),
        (group, "is not an array"),
        (named_type, "is not an array"),
        (no_float, r"is float64 of shape \(12, 32\), but options\.json needs float32"),
        (text, r"is object of shape \(\)"),
        (empty, r"is float32 of shape None"),
        (nan, "has 2 values that are NaN or infinite, so every vector would be wrong"),
    ],
)
def test_an_array_that_is_none_is_refused(
    path: Path, store: Callable[[h5py.File, Path], None], told: str
) -> None:
    with h5py.File(path, "a") as file:
        del file[W_0]
        store(file, path)

    with pytest.raises(ElmoError, match=told):
        read_weights(str(path), CONFIG)


def test_compressed_arrays_are_read(path: Path) -> None:
    expected = read_weights(str(path), CONFIG)
    with h5py.File(path) as file, h5py.File(path.parent / "packed", "w") as packed:
        for name in layout(CONFIG):
            packed.create_dataset(
                name, data=file[name][...], compression="gzip", shuffle=True, fletcher32=True
            )

    found = read_weights(str(path.parent / "packed"), CONFIG)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert found.keys() == expected.keys()


def test_memory_is_bounded_by_the_file(tmp_path: Path) -> None:
    """A chunked array without chunks describes any number of zeros in a few bytes."""
    large = CONFIG.model_copy(
        update={"recurrent": CONFIG.recurrent.model_copy(update={"hidden": 4_000_000})}
    )
    with h5py.File(tmp_path / "bomb", "w") as file:
        for name, shape in layout(large).items():
            file.create_dataset(name, shape, np.float32, chunks=True)

    tracemalloc.start()
    with pytest.raises(ElmoError, match=r"but options\.json describes .* bytes of weights"):
        read_weights(str(tmp_path / "bomb"), large)
    assert tracemalloc.get_traced_memory()[1] < 4 * (tmp_path / "bomb").stat().st_size + 2**20
    tracemalloc.stop()


def test_every_truncated_file_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for size in range(0, len(data), 211):
        path.write_bytes(data[:size])
        with pytest.raises(ElmoError, match=r"is not an HDF5 file|is damaged|is missing"):
            read_weights(str(path), CONFIG)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8))
def test_changed_bytes_give_weights_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[float, int]]
) -> None:
    """The file has no checksum, so a change of a number goes unnoticed; nothing else happens."""
    path = tmp_path_factory.getbasetemp() / "changed.hdf5"
    data = bytearray(archive())
    for place, value in changes:
        data[int(place * len(data))] = value
    path.write_bytes(data)
    with suppress(ElmoError):
        found = read_weights(str(path), CONFIG)
        assert all(bool(tensor.isfinite().all()) for tensor in found.values())


@cache
def archive() -> bytes:
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for name, shape in layout(CONFIG).items():
            file[name] = np.ones(shape, np.float32)
    return data.getvalue()


def test_what_is_written_is_read(path: Path) -> None:
    weights = read_weights(str(path), CONFIG)
    path.write_bytes(write_weights(weights, CONFIG))
    again = read_weights(str(path), CONFIG)
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())

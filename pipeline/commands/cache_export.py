"""Export of a vector cache to other formats, entry by entry, in bounded memory."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.lifecycle.stage import require
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.temporary import temporary_folder
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.files import HashedFile, damaged_cache
from preprocess.vectors.shard import Text, text_key, to_json

ROWS = 256
"""Number of texts in a Parquet row group."""

Progress = Callable[[int], None]
Entry = tuple[Text, list[str], NDArray[Any]]


class ExportError(UserError):
    """An unknown format, or a file that exists already."""


def export_cache(cache: VectorCache, path: str, progress: Progress = lambda _: None) -> list[str]:
    """Write ``cache`` to ``path`` and return the names of all files that were written.

    .hdf5, .h5   The layout of AllenNLP's `elmo` command: for each text a dataset "0", "1", ... of
                 shape (layers, units, dim), or (units, dim) if there is one layer, float32; and
                 "sentence_to_index", JSON. Lists of words are joined by spaces.
    .npy         An array (units of all texts, layers, dim) in the cache's dtype. Beside it,
                 .offsets.npy of shape (texts + 1,) has the first unit of each text, and .texts.jsonl
                 one line [text, label, label, ...] per text.
    .parquet     Columns key, text, words (null if the text is a string), labels, and vectors, a list
                 of layers * units * dim values. The schema's metadata has layers, dim, unit, model.

    Args:
        cache: the cache; it must keep its texts.
        path: file to write, a local path or a URL; the suffix names the format.
        progress: called with the number of texts written so far.

    Raises:
        CacheError: the cache is damaged, or does not keep its texts.
        ExportError: no format has this suffix, or the file exists.
        StageError: a library is not installed.
    """
    writers = {".hdf5": _hdf5, ".h5": _hdf5, ".npy": _npy, ".parquet": _parquet}
    suffix = PurePosixPath(path).suffix
    if suffix not in writers:
        raise ExportError(f"{path}: no format has this suffix; use one of {', '.join(writers)}")
    for name in _npy_names(path) if suffix == ".npy" else [path]:
        if storage.exists(name):
            raise ExportError(f"{name} exists already; name another file, or remove it first")
    return writers[suffix](cache, path, progress)


def _counted(cache: VectorCache, progress: Progress) -> Iterator[Entry]:
    for number, entry in enumerate(cache.entries(), 1):
        yield entry
        progress(number)


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else " ".join(text)


def _hdf5(cache: VectorCache, path: str, progress: Progress) -> list[str]:
    require("cache export", {"h5py": "hdf5"})
    import h5py

    places: dict[str, str] = {}
    # HDF5 needs random access to its file, which an object store does not give to a writer.
    with temporary_folder("biloom-hdf5-") as scratch:
        whole = f"{scratch}/cache.hdf5"
        with h5py.File(whole, "w") as file:
            for number, (text, _, vectors) in enumerate(_counted(cache, progress)):
                values = vectors.astype(np.float32)
                file.create_dataset(str(number), data=values[0] if len(values) == 1 else values)
                places.setdefault(_joined(text), str(number))
            names = file.create_dataset("sentence_to_index", (1,), h5py.string_dtype())
            names[0] = json.dumps(places)
        with open(whole, "rb") as written, storage.atomic_writer(path) as out:
            shutil.copyfileobj(written, out)
    return [path]


def _npy_names(path: str) -> list[str]:
    """Return the names of the array, the offsets and the texts."""
    stem = path.removesuffix(".npy")
    return [path, f"{stem}.offsets.npy", f"{stem}.texts.jsonl"]


def _npy(cache: VectorCache, path: str, progress: Progress) -> list[str]:
    names = _npy_names(path)
    offsets = [0]
    with storage.atomic_writer(names[2]) as texts, storage.atomic_writer(path) as out:
        file = HashedFile(path, out)
        file.write_header(cache.dtype, (cache.units, cache.layers, cache.dim))
        for text, labels, vectors in _counted(cache, progress):
            file.write(np.ascontiguousarray(vectors.transpose(1, 0, 2)).reshape(-1).view(np.uint8))
            texts.write(to_json([text if isinstance(text, str) else list(text), *labels]) + b"\n")
            offsets.append(offsets[-1] + len(labels))
        if offsets[-1] != cache.units:
            # The header of the array has this number.
            reason = f"its entries have {offsets[-1]:,} units, its index {cache.units:,}"
            raise damaged_cache(cache.path, reason)
    data = io.BytesIO()
    np.save(data, np.array(offsets, np.int64))
    storage.write_bytes(names[1], data.getvalue())
    return names


def _parquet(cache: VectorCache, path: str, progress: Progress) -> list[str]:
    require("cache export", {"pyarrow": "beam"})
    import pyarrow as pa
    import pyarrow.parquet as pq

    value = pa.float16() if cache.dtype == np.float16 else pa.float32()
    schema = pa.schema(
        [
            ("key", pa.binary(16)),
            ("text", pa.string()),
            ("words", pa.list_(pa.string())),
            ("labels", pa.list_(pa.string())),
            ("vectors", pa.list_(value)),
        ],
        metadata={n: str(getattr(cache, n)) for n in ("layers", "dim", "unit", "model")},
    )
    with storage.atomic_writer(path) as out, pq.ParquetWriter(out, schema) as file:
        rows: list[dict[str, Any]] = []
        for text, labels, vectors in _counted(cache, progress):
            rows.append(
                {
                    "key": text_key(text),
                    "text": _encodable(_joined(text)),
                    "words": None if isinstance(text, str) else [_encodable(word) for word in text],
                    "labels": [_encodable(label) for label in labels],
                    "vectors": vectors.reshape(-1),
                }
            )
            if len(rows) == ROWS:
                file.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
        file.write_table(pa.Table.from_pylist(rows, schema))
    return [path]


def _encodable(text: str) -> str:
    """Replace lone surrogates, which Parquet cannot store; the keys of such texts still differ."""
    return text.encode("utf-8", "replace").decode()

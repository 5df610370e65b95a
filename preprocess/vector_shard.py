"""A shard of the vector cache: its three files written and read, and the index over all shards.

Raw and memory-mapped, because that is both the fastest to write and within a few microseconds of
the fastest to read:

    vectors-000012.bin   values, little-endian; entries back to back, each (layers, tokens, dim)
    texts-000012.bin     per entry the JSON list [text, token, token, ...], UTF-8 (surrogates passed)
    entries-000012.npy   per entry, in the order written: key, where it starts in the two, tokens
    index.npy            (3, entries) uint64, sorted: key as two big-endian numbers, shard << 32 | entry
"""

import hashlib
import io
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from preprocess import storage
from preprocess.errors import UserError
from preprocess.manifest import FileRecord

Vectors = NDArray[np.floating[Any]]

INDEX = "index.npy"
KEY = np.dtype("V16")
ENTRY = np.dtype([("key", KEY), ("offset", "<u8"), ("text", "<u8"), ("tokens", "<u4")])
DTYPES = ("float32", "float16")


class CacheError(UserError):
    """A cache that cannot be written or read as asked; the message names the file."""


def text_key(text: str) -> bytes:
    """The 16 bytes a text is found by: its blake2b, over UTF-8 with surrogates passed.

    Raises:
        TypeError: ``text`` is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"a text of the vector cache is a string, not {type(text).__name__}")
    data = text.encode("utf-8", "surrogatepass")
    # The person keeps a text's key apart from the key of a list of words.
    return hashlib.blake2b(data, digest_size=KEY.itemsize, person=b"biloom text").digest()


def vectors_name(number: int) -> str:
    return f"vectors-{number:06}.bin"


def texts_name(number: int) -> str:
    return f"texts-{number:06}.bin"


def entries_name(number: int) -> str:
    return f"entries-{number:06}.npy"


def stored_dtype(dtype: str) -> np.dtype[np.floating[Any]]:
    if dtype not in DTYPES:
        raise CacheError(f"vectors cannot be stored as {dtype!r}; choose {' or '.join(DTYPES)}")
    return np.dtype(dtype).newbyteorder("<")


class _Hashed:
    """A file being written, with its size and hash so far."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name, self.file, self.bytes, self.digest = name, file, 0, xxhash.xxh3_128()

    def write(self, data: Any) -> None:
        self.bytes += memoryview(data).nbytes
        self.digest.update(data)
        self.file.write(data)

    def write_header(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """The npy header of an array in C order whose bytes follow."""
        header = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(
            header, {"descr": descr, "fortran_order": False, "shape": shape}
        )
        self.write(header.getvalue())

    def record(self, **counts: int) -> FileRecord:
        return FileRecord(self.name, self.bytes, self.digest.hexdigest(), counts)


class VectorShardWriter:
    """Writes shard ``number`` of the cache in ``folder``; its files appear at ``close`` only.

    Texts and vectors go straight to the disk; 36 bytes an entry stay in memory. Used in a ``with``
    block, the shard is closed at the end and thrown away where the block raises.

    Raises:
        CacheError: ``dtype`` is neither float32 nor float16.
    """

    def __init__(self, folder: str, number: int, layers: int, dim: int, dtype: str) -> None:
        assert 0 <= number < 1 << 32
        self.layers, self.dim, self.dtype = layers, dim, stored_dtype(dtype)
        self._rows = bytearray()
        self._tokens = 0
        self._records: tuple[FileRecord, ...] = ()
        self._stack = ExitStack()
        # The last to be opened is the first to appear: where entries are, the other two are.
        self._entries, self._texts, self._vectors = (
            _Hashed(
                name, self._stack.enter_context(storage.atomic_writer(storage.join(folder, name)))
            )
            for name in (entries_name(number), texts_name(number), vectors_name(number))
        )

    def add(self, text: str, tokens: Sequence[str], vectors: Vectors) -> None:
        """Append a text with the spellings of its tokens and ``vectors`` (layers, tokens, dim).

        Raises:
            CacheError: a value is beyond what the cache's dtype can hold.
        """
        expected = (self.layers, len(tokens), self.dim)
        assert vectors.shape == expected, f"vectors of shape {vectors.shape}, not {expected}"
        assert np.isfinite(vectors).all(), f"vectors of {text!r:.60} are not finite"
        with np.errstate(over="ignore"):
            values = vectors.astype(self.dtype, order="C")
        if not np.isfinite(values).all():
            raise CacheError(
                f"a vector holds {np.abs(vectors).max():.4g}, beyond {self.dtype.name}; "
                "set embed.dtype=float32"
            )
        place = (self._vectors.bytes // self.dtype.itemsize, self._texts.bytes, len(tokens))
        self._rows += np.array((text_key(text), *place), ENTRY).tobytes()
        self._tokens += len(tokens)
        self._texts.write(_to_json([text, *tokens]))
        self._vectors.write(values.reshape(-1).view(np.uint8))

    def close(self) -> tuple[FileRecord, ...]:
        """Let the shard's files appear; their records, for the manifest."""
        if not self._records:
            with self._stack:
                count = len(self._rows) // ENTRY.itemsize
                self._entries.write_header(ENTRY, (count,))
                self._entries.write(self._rows)
            entries = self._entries.record(entries=count, tokens=self._tokens)
            self._records = (entries, self._texts.record(), self._vectors.record())
        return self._records

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._stack.__exit__(kind, error, trace)


def write_index(folder: str, shard_numbers: Sequence[int]) -> FileRecord:
    """Write the index over the closed shards of ``folder``; of equal keys the first one stays.

    First means lowest shard number, then entry. Takes about 60 bytes of memory an entry.

    Raises:
        CacheError: a shard has no entries file, or a damaged one.
    """
    keys, places = [np.empty((0, 2), ">u8")], [np.empty(0, np.uint64)]
    for number in sorted(set(shard_numbers)):
        entries = npy_array(entries_name(number), map_file(folder, entries_name(number)), ENTRY)
        keys.append(np.ascontiguousarray(entries["key"]).view(">u8").reshape(-1, 2))
        places.append(np.arange(len(entries), dtype=np.uint64) + np.uint64(number << 32))
    high, low = (np.concatenate([one[:, half] for one in keys]).astype("<u8") for half in (0, 1))
    del keys
    order = np.lexsort((low, high))  # stable
    high, low = high[order], low[order]
    first = np.ones(len(order), bool)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    with storage.atomic_writer(storage.join(folder, INDEX)) as file:
        index = _Hashed(INDEX, file)
        index.write_header(np.dtype("<u8"), (3, int(first.sum())))
        index.write(high[first])
        index.write(low[first])
        index.write(np.concatenate(places)[order[first]].astype("<u8"))
    return index.record(entries=int(first.sum()))


class VectorShard:
    """One shard, each of its files mapped at its first use."""

    def __init__(
        self,
        folder: str,
        records: Mapping[str, FileRecord],
        shape: tuple[int, int, np.dtype[np.floating[Any]]],
        number: int,
    ) -> None:
        self.folder, self.records, self.number = folder, records, number
        self.layers, self.dim, self.dtype = shape

    @cached_property
    def entries(self) -> NDArray[Any]:
        name = entries_name(self.number)
        return npy_array(name, map_file(self.folder, name, self.records), ENTRY)

    @cached_property
    def _values(self) -> Vectors:
        data = map_file(self.folder, vectors_name(self.number), self.records)
        return np.ndarray(len(data) // self.dtype.itemsize, self.dtype, data)

    @cached_property
    def _texts(self) -> "mmap.mmap | bytes":
        return map_file(self.folder, texts_name(self.number), self.records)

    def _row(self, entry: int, key: bytes) -> Any:
        row = self.entries[entry] if entry < len(self.entries) else None
        if row is None or row["key"].tobytes() != key:
            raise damaged(entries_name(self.number), f"entry {entry} is another text")
        return row

    def vectors(self, entry: int, key: bytes) -> Vectors:
        """Vectors (layers, tokens, dim) of the entry, which must be ``key``'s."""
        row = self._row(entry, key)
        start, tokens = int(row["offset"]), int(row["tokens"])
        end = start + self.layers * tokens * self.dim
        if end > self._values.size:
            raise damaged(entries_name(self.number), f"entry {entry} lies beyond the vectors")
        return self._values[start:end].reshape(self.layers, tokens, self.dim)

    def texts(self, entry: int, key: bytes) -> list[str]:
        """The text of the entry, which must be ``key``'s, then the spellings of its tokens."""
        start = int(self._row(entry, key)["text"])
        last = entry + 1 == len(self.entries)
        data = self._texts[start : None if last else int(self.entries[entry + 1]["text"])]
        try:
            found: list[str] = json.loads(data.decode("utf-8", "surrogatepass"))
            whole = text_key(found[0]) == key
        except (ValueError, TypeError, LookupError):
            whole = False
        if not whole:
            raise damaged(texts_name(self.number), f"entry {entry} is not the text it was")
        return found


def _to_json(value: Sequence[str]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def make_again() -> str:
    return "see `biloom check`, and make it again with `biloom embed --overwrite`"


def damaged(name: str, reason: str) -> CacheError:
    return CacheError(f"{name} of the vector cache is damaged ({reason}); {make_again()}")


def map_file(
    folder: str, name: str, records: Mapping[str, FileRecord] | None = None
) -> "mmap.mmap | bytes":
    """The bytes of a file, mapped; a remote one through a nameless temporary file.

    Raises:
        CacheError: it is missing, or not of the size that ``records`` tells.
    """
    path = storage.join(folder, name)
    try:
        with ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(storage.open_read(path))
            if storage.is_remote(path):
                fetched = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, fetched, 1 << 22)
                fetched.flush()
                file = fetched
            size = os.fstat(file.fileno()).st_size
            if records is not None and size != (expected := records[name].bytes):
                raise damaged(path, f"{size:,} bytes, not {expected:,}")
            # An empty file cannot be mapped.
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (FileNotFoundError, KeyError) as error:
        raise CacheError(f"{path} of the vector cache is missing; {make_again()}") from error
    except OSError as error:
        raise CacheError(f"{path} of the vector cache cannot be read ({error})") from error


def npy_array(
    name: str, data: "mmap.mmap | bytes", dtype: np.dtype[Any], lead: tuple[int, ...] = ()
) -> NDArray[Any]:
    """The array of an npy file's bytes, not copied; ``lead`` are all dimensions but the last."""
    start = io.BytesIO(data[:4096])
    try:
        np.lib.format.read_magic(start)
        shape, fortran, found = np.lib.format.read_array_header_1_0(start)
        if fortran or found != dtype or shape[:-1] != lead:
            raise ValueError(f"it holds {found} of shape {shape}")
        return np.ndarray(shape, dtype, data, start.tell())
    except (ValueError, TypeError) as error:
        raise damaged(name, str(error)) from error

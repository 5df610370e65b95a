"""Writing and reading of one shard of a vector cache (files: `preprocess.vectors.files`)."""

import hashlib
import json
import mmap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from preprocess.files import storage
from preprocess.files.manifest import FileRecord
from preprocess.vectors.codec import Bytes, Codec, Vectors
from preprocess.vectors.files import ENTRY, KEY, CacheFiles, HashedFile, ShardName, damaged_cache

Text = str | Sequence[str]
"""A text to embed: a string, or a list of words."""

PIECE_BYTES = 1 << 24
"""Bytes of vectors to encode at once."""


def text_key(text: Text) -> bytes:
    """Return the 16-byte key of a text: a BLAKE2b hash of its UTF-8 bytes.

    Lone surrogates are encoded too. A list of words never has the key of a string.

    Raises:
        TypeError: ``text`` is neither a string nor a list of strings.
    """
    if isinstance(text, str):
        data, person = text.encode("utf-8", "surrogatepass"), b"biloom text"
    elif isinstance(text, Sequence) and all(isinstance(word, str) for word in text):
        data, person = to_json(list(text)), b"biloom words"
    else:
        raise TypeError(
            f"a text must be a string or a list of strings (its words), not {type(text).__name__}"
        )
    return hashlib.blake2b(data, digest_size=KEY.itemsize, person=person).digest()


def to_json(value: Any) -> bytes:
    """Return compact JSON in UTF-8; lone surrogates are encoded like other characters."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


class VectorShardWriter:
    """Writer of a shard, whose files appear only when it is closed.

    `add` writes texts and vectors immediately; only 36 bytes per entry stay in memory. As a context
    manager, it closes the shard at the end of the block, or discards it if the block raises.

    Args:
        folder: folder or URL of the cache.
        shard: number of the unit of work, and of the part of that unit.
        layers: layers per entry.
        dim: dimensions of a vector.
        dtype: "float32", "float16" or "int8".
        texts: whether to keep the texts and the labels of their units.

    Raises:
        CacheError: ``dtype`` is not one of the three.
    """

    def __init__(
        self,
        folder: str,
        shard: tuple[int, int],
        layers: int,
        dim: int,
        dtype: str,
        texts: bool = True,
    ) -> None:
        self.layers, self.dim, self._codec = layers, dim, Codec(dtype, dim)
        self._rows = bytearray()
        self._units = 0
        self._records: tuple[FileRecord, ...] = ()
        self._stack = ExitStack()
        name = ShardName(*shard)
        # The exit stack completes the last file first, so an entries file implies the other files.
        names = (name.entries, *([name.texts] if texts else []), name.vectors)
        self._files = [
            HashedFile(
                file, self._stack.enter_context(storage.atomic_writer(storage.join(folder, file)))
            )
            for file in names
        ]
        self._entries, self._vectors = self._files[0], self._files[-1]
        self._texts = self._files[1] if texts else None

    def add(self, text: Text, labels: Sequence[str], vectors: Vectors) -> None:
        """Append an entry.

        Args:
            text: the text.
            labels: spellings of its units.
            vectors: float32, shape (layers, units, dim).

        Raises:
            CacheError: a value is too large for the dtype of the cache.
        """
        expected = (self.layers, len(labels), self.dim)
        assert vectors.shape == expected, f"vectors of shape {vectors.shape}, not {expected}"
        offset = self._vectors.bytes // self._codec.vector_bytes
        for piece in _pieces(vectors):
            assert np.isfinite(piece).all(), f"vectors of {text!r:.60} are not finite"
            self._vectors.write(self._codec.encode(piece))
        row = (text_key(text), offset, self._texts.bytes if self._texts else 0, len(labels))
        self._rows += np.array(row, ENTRY).tobytes()
        self._units += len(labels)
        if self._texts:
            value = text if isinstance(text, str) else list(text)
            self._texts.write(to_json([value, *labels]))

    def close(self) -> tuple[FileRecord, ...]:
        """Complete the files and return their manifest records."""
        if not self._records:
            with self._stack:
                count = len(self._rows) // ENTRY.itemsize
                self._entries.write_header(ENTRY, (count,))
                self._entries.write(self._rows)
            first = self._entries.record(entries=count, tokens=self._units)
            self._records = (first, *(file.record() for file in self._files[1:]))
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


def _pieces(vectors: Vectors) -> Iterator[Vectors]:
    """Yield consecutive pieces of (layers, units, dim) vectors, which may be a large mapped file."""
    if vectors.nbytes <= PIECE_BYTES:
        yield vectors
        return
    units = max(1, PIECE_BYTES // (4 * vectors.shape[2]))
    for layer in vectors:
        for start in range(0, len(layer), units):
            yield np.asarray(layer[start : start + units])


class VectorBlock(NamedTuple):
    """All entries of a shard.

    Attributes:
        keys: 16-byte key of each text, shape (entries,).
        offsets: index in ``vectors`` of the first vector of each entry, int64 (entries,). An entry
            has layers * units vectors.
        units: units of each entry, int64 (entries,).
        vectors: shape (vectors, dim); a view of the mapped file, or a new float32 array if the cache
            is int8.
    """

    keys: NDArray[Any]
    offsets: NDArray[np.int64]
    units: NDArray[np.int64]
    vectors: Vectors


class VectorShard:
    """Reader of a shard, whose files are memory-mapped at their first use."""

    def __init__(self, folder: CacheFiles, layers: int, codec: Codec, shard: ShardName) -> None:
        self._folder, self._layers, self._codec, self.shard = folder, layers, codec, shard

    @cached_property
    def entries(self) -> NDArray[Any]:
        """Rows of type `ENTRY`, shape (entries,)."""
        return self._folder.array(self.shard.entries, ENTRY)

    @cached_property
    def _data(self) -> Bytes:
        data = self._folder.map(self.shard.vectors)
        return np.frombuffer(data, np.uint8)

    @cached_property
    def _texts(self) -> "mmap.mmap | bytes":
        return self._folder.map(self.shard.texts)

    def vectors(self, offset: int, units: int) -> Vectors:
        """Return the vectors of an entry, shape (layers, units, dim).

        Args:
            offset: number of vectors before the entry in the vectors file.
            units: number of units of the entry.

        Raises:
            CacheError: the file is missing, damaged or too short.
        """
        size = self._codec.vector_bytes
        start, end = offset * size, (offset + self._layers * units) * size
        if end > self._data.size:
            raise damaged_cache(self.shard.vectors, "it is shorter than its entries require")
        return self._codec.decode(self._data[start:end], (self._layers, units, self._codec.dim))

    def block(self) -> VectorBlock:
        """Return all entries as one block.

        Raises:
            CacheError: a file is missing or damaged.
        """
        entries = self.entries
        vectors = self._codec.decode(self._data, (-1, self._codec.dim))
        offsets, units = (entries[name].astype(np.int64) for name in ("offset", "units"))
        if len(offsets) and offsets[-1] + self._layers * units[-1] > len(vectors):
            raise damaged_cache(self.shard.vectors, "it is shorter than its entries require")
        return VectorBlock(entries["key"], offsets, units, vectors)

    def texts(self, entry: int, key: bytes) -> tuple[Text, list[str]]:
        """Return the text of an entry and the labels of its units.

        Args:
            entry: index of the entry in the shard.
            key: key that the text must have.

        Raises:
            CacheError: a file is missing or damaged, or the text does not have this key.
        """
        entries = self.entries
        if entry >= len(entries) or entries[entry]["key"].tobytes() != key:
            raise damaged_cache(self.shard.entries, f"entry {entry} has the key of another text")
        start = int(entries[entry]["text"])
        end = int(entries[entry + 1]["text"]) if entry + 1 < len(entries) else None
        data = self._texts
        try:
            text, *labels = json.loads(data[start:end].decode("utf-8", "surrogatepass"))
            intact = text_key(text) == key
        except (ValueError, TypeError, LookupError):
            intact = False
        if not intact:
            raise damaged_cache(self.shard.texts, f"entry {entry} does not match its key")
        return text, labels

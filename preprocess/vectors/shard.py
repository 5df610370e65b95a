"""A shard of the vector cache: its files written and read (`preprocess.vectors.files`)."""

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
from preprocess.vectors.files import ENTRY, KEY, Folder, HashedFile, ShardName, damaged_cache

Text = str | Sequence[str]
"""A text as it was given: a string, or a list of words."""

PIECE_BYTES = 1 << 24


def text_key(text: Text) -> bytes:
    """The 16 bytes a text is found by: its blake2b, over UTF-8 with surrogates passed.

    A list of words has another key than any string.

    Raises:
        TypeError: ``text`` is neither a string nor a list of strings.
    """
    if isinstance(text, str):
        data, person = text.encode("utf-8", "surrogatepass"), b"biloom text"
    elif isinstance(text, Sequence) and all(isinstance(word, str) for word in text):
        data, person = to_json(list(text)), b"biloom words"
    else:
        raise TypeError(
            f"a text of the vector cache is a string or a list of words, not {type(text).__name__}"
        )
    return hashlib.blake2b(data, digest_size=KEY.itemsize, person=person).digest()


def to_json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


class VectorShardWriter:
    """Writes a shard of the cache in ``folder``; its files appear at ``close`` only.

    Texts and vectors go straight to the disk; 36 bytes an entry stay in memory. Used in a ``with``
    block, the shard is closed at the end and thrown away where the block raises.

    Args:
        folder: folder or URL of the cache.
        shard: unit and part.
        layers, dim: of an entry, with its units between them.
        dtype: "float32", "float16" or "int8".
        texts: keep the texts and the labels of their units.

    Raises:
        CacheError: there is no such ``dtype``.
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
        # The last to be opened is the first to appear: where entries are, the others are.
        names = (name.entries, *([name.texts] if texts else []), name.vectors)
        self._files = [
            HashedFile(
                one, self._stack.enter_context(storage.atomic_writer(storage.join(folder, one)))
            )
            for one in names
        ]
        self._entries, self._vectors = self._files[0], self._files[-1]
        self._texts = self._files[1] if texts else None

    def add(self, text: Text, labels: Sequence[str], vectors: Vectors) -> None:
        """Append a text with the spellings of what has a vector and ``vectors`` (layers, units, dim).

        Raises:
            CacheError: a value is beyond what the cache's dtype can hold.
        """
        expected = (self.layers, len(labels), self.dim)
        assert vectors.shape == expected, f"vectors of shape {vectors.shape}, not {expected}"
        offset = self._vectors.bytes // self._codec.vector_bytes
        for piece in _pieces(vectors):
            assert np.isfinite(piece).all(), f"vectors of {text!r:.60} are not finite"
            self._vectors.write(self._codec.encode(piece))
        place = (offset, self._texts.bytes if self._texts else 0, len(labels))
        self._rows += np.array((text_key(text), *place), ENTRY).tobytes()
        self._units += len(labels)
        if self._texts:
            given = text if isinstance(text, str) else list(text)
            self._texts.write(to_json([given, *labels]))

    def close(self) -> tuple[FileRecord, ...]:
        """Let the shard's files appear; their records, for the manifest."""
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
    """(layers, units, dim) in order, in pieces that fit memory: vectors may lie in a file."""
    if vectors.nbytes <= PIECE_BYTES:
        yield vectors
        return
    units = max(1, PIECE_BYTES // (4 * vectors.shape[2]))
    for layer in vectors:
        for start in range(0, len(layer), units):
            yield np.asarray(layer[start : start + units])


class VectorBlock(NamedTuple):
    """All entries of a shard, for who reads many.

    keys: (entries,) of 16 bytes; offsets: int64 (entries,), vectors before each entry, which has
    layers * units of them; units: int64 (entries,); vectors: (vectors, dim), a view of the mapped
    file, of int8 new float32 values.
    """

    keys: NDArray[Any]
    offsets: NDArray[np.int64]
    units: NDArray[np.int64]
    vectors: Vectors


class VectorShard:
    """One shard, each of its files mapped at its first use."""

    def __init__(self, folder: Folder, layers: int, codec: Codec, shard: ShardName) -> None:
        self._folder, self._layers, self._codec, self.shard = folder, layers, codec, shard

    @cached_property
    def entries(self) -> NDArray[Any]:
        return self._folder.array(self.shard.entries, ENTRY)

    @cached_property
    def _data(self) -> Bytes:
        data = self._folder.map(self.shard.vectors)
        return np.frombuffer(data, np.uint8)

    @cached_property
    def _texts(self) -> "mmap.mmap | bytes":
        return self._folder.map(self.shard.texts)

    def vectors(self, offset: int, units: int) -> Vectors:
        """The vectors (layers, units, dim) from a place on."""
        size = self._codec.vector_bytes
        start, end = offset * size, (offset + self._layers * units) * size
        if end > self._data.size:
            raise damaged_cache(self.shard.vectors, f"vectors {offset:,} and on lie beyond its end")
        return self._codec.decode(self._data[start:end], (self._layers, units, self._codec.dim))

    def block(self) -> VectorBlock:
        """All of it."""
        entries = self.entries
        vectors = self._codec.decode(self._data, (-1, self._codec.dim))
        offsets, units = (entries[name].astype(np.int64) for name in ("offset", "units"))
        if len(offsets) and offsets[-1] + self._layers * units[-1] > len(vectors):
            raise damaged_cache(self.shard.vectors, "it is shorter than its entries")
        return VectorBlock(entries["key"], offsets, units, vectors)

    def texts(self, entry: int, key: bytes) -> tuple[Text, list[str]]:
        """The text of the entry, which must be ``key``'s, and the labels of its units."""
        entries = self.entries
        if entry >= len(entries) or entries[entry]["key"].tobytes() != key:
            raise damaged_cache(self.shard.entries, f"entry {entry} is another text")
        start = int(entries[entry]["text"])
        end = int(entries[entry + 1]["text"]) if entry + 1 < len(entries) else None
        data = self._texts
        try:
            text, *labels = json.loads(data[start:end].decode("utf-8", "surrogatepass"))
            whole = text_key(text) == key
        except (ValueError, TypeError, LookupError):
            whole = False
        if not whole:
            raise damaged_cache(self.shard.texts, f"entry {entry} is not the text it was")
        return text, labels

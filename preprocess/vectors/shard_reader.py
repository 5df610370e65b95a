"""Reading of one shard of a vector cache (files: `preprocess.vectors.files`)."""

import json
import struct
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from preprocess.shards.npy import LONGEST, read_header
from preprocess.vectors.codec import Codec, Vectors
from preprocess.vectors.files import ROWS, ShardName, checksum, damaged_cache
from preprocess.vectors.shard import Text, text_key
from preprocess.vectors.stored import CacheFiles


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


class Row(NamedTuple):
    """The row of an entry, as `CHECKED_ENTRY`; without checksums in a cache of an older version.

    Attributes:
        key: key of the text.
        offset: number of vectors before the entry in the vectors file.
        text: byte offset in the texts file.
        units: number of units.
        vectors_hash: `checksum` of the stored vectors.
        text_hash: `checksum` of the text and the labels.
    """

    key: bytes
    offset: int
    text: int
    units: int
    vectors_hash: int | None = None
    text_hash: int | None = None


class Entries(NamedTuple):
    """The contents of the header of an entries file.

    Attributes:
        total: number of entries.
        start: bytes before the first row.
        dtype: `CHECKED_ENTRY` or `ENTRY`.
        row: the layout of a row.
    """

    total: int
    start: int
    dtype: np.dtype[Any]
    row: struct.Struct


_OFFSET = struct.Struct("<Q")
_TEXT = 24
"""Bytes of a row before the offset of its text."""


def read_entries(files: CacheFiles, name: str) -> tuple[Entries, NDArray[Any]]:
    """Read an entries file, compared with its record.

    Returns:
        Its header, and its rows, shape (entries,).

    Raises:
        CacheError: the file is missing or damaged.
    """
    file = files.open(name)
    data = file.read(0, file.size)
    files.check(file, name, lambda: xxhash.xxh3_128_hexdigest(data))
    for dtype, row in ROWS.items():
        header = read_header(bytes(data[:LONGEST]), dtype)
        if header is None or len(header.shape) != 1:
            continue
        count, start = header.shape[0], header.start
        if start + count * dtype.itemsize != file.size:
            raise damaged_cache(file.path, f"{file.size:,} bytes cannot be {count:,} entries")
        return Entries(count, start, dtype, row), np.frombuffer(data, dtype, count, start)
    raise damaged_cache(file.path, "its header does not describe an entries file")


class VectorShard:
    """Reader of a shard; it checks what it reads.

    Args:
        files: the files of the cache.
        layers: layers per entry.
        codec: format of the vectors.
        texts: whether the cache keeps its texts.
        shard: identity of the shard.
    """

    def __init__(
        self, files: CacheFiles, layers: int, codec: Codec, texts: bool, shard: ShardName
    ) -> None:
        self._files, self._layers, self._codec, self.shard = files, layers, codec, shard
        self._texts_kept = texts
        self._known_header: Entries | None = None

    @property
    def path(self) -> str:
        """Path of the entries file, for messages."""
        return self._files.name(self.shard.entries)

    @property
    def entries(self) -> NDArray[Any]:
        """Rows of type `CHECKED_ENTRY` or `ENTRY`, shape (entries,), read from the file."""
        header, rows = read_entries(self._files, self.shard.entries)
        self._check_places(rows)
        self._known_header = header
        return rows

    @property
    def _header(self) -> Entries:
        if self._known_header is None:
            _ = self.entries
        assert self._known_header
        return self._known_header

    def _check_places(self, rows: NDArray[Any]) -> None:
        """Check that the entries follow each other in the other files, and end where these end."""
        assert self._files.records is not None
        name = self.path
        size = self._files.records[self.shard.vectors].bytes
        whole, rest = divmod(size, self._codec.vector_bytes)
        units = rows["units"].astype(np.uint64)
        # Sums of 32-bit numbers cannot overflow, because a file has less than 2^32 rows.
        ends = np.cumsum(units, dtype=np.uint64)
        total = int(ends[-1]) if len(rows) else 0
        if rest or total * self._layers != whole:
            raise damaged_cache(
                self._files.name(self.shard.vectors),
                f"{size:,} bytes cannot be {total:,} units of {self._layers:,} layers",
            )
        expected = (ends - units) * np.uint64(self._layers)
        if not np.array_equal(rows["offset"], expected):
            raise damaged_cache(name, "its entries do not follow each other")
        if self._texts_kept:
            size = self._files.records[self.shard.texts].bytes
            places = np.append(rows["text"], np.uint64(size))
            if (places[1:] < places[:-1]).any() or places[0] != 0:
                raise damaged_cache(name, "its texts do not follow each other")
        entries = self._files.records[self.shard.entries].counts.get("entries")
        if entries != len(rows):
            raise damaged_cache(name, f"it has {len(rows):,} entries, its manifest says {entries}")

    def __len__(self) -> int:
        return self._header.total

    def row(self, entry: int) -> Row:
        """Return the row of an entry.

        Args:
            entry: index of the entry in the shard.

        Raises:
            IndexError: there is no such entry.
            CacheError: the entries file is missing or damaged.
        """
        header = self._header
        if not 0 <= entry < header.total:
            raise IndexError(f"no entry has index {entry}; the shard has {header.total:,} entries")
        start = header.start + entry * header.row.size
        data = self._files.open(self.shard.entries).read(start, start + header.row.size)
        return Row(*header.row.unpack(data))

    def vectors(self, entry: int, row: Row) -> Vectors:
        """Return the vectors of an entry, shape (layers, units, dim).

        Args:
            entry: index of the entry in the shard.
            row: its row.

        Raises:
            CacheError: the file is missing, or the entry is damaged.
        """
        name, size = self.shard.vectors, self._codec.vector_bytes
        checked = row.vectors_hash is not None
        file = self._files.open(name) if checked else self._files.checked_file(name)
        start = row.offset * size
        data = file.read(start, start + self._layers * row.units * size)
        if checked and checksum(row.key, data) != row.vectors_hash:
            raise damaged_cache(
                file.path, f"the vectors of entry {entry} do not match their checksum"
            )
        return self._codec.decode(
            np.frombuffer(data, np.uint8), (self._layers, row.units, self._codec.dim)
        )

    def block(self) -> VectorBlock:
        """Return all entries as one block; the vectors file is compared with its record once.

        Raises:
            CacheError: a file is missing or damaged.
        """
        entries = self.entries
        file = self._files.open(self.shard.vectors)
        data = file.read(0, file.size)
        if self.shard.vectors not in self._files.checked:
            # Hash the map that is returned, so that its pages are in memory afterwards.
            self._files.check(file, self.shard.vectors, lambda: xxhash.xxh3_128_hexdigest(data))
        vectors = self._codec.decode(np.frombuffer(data, np.uint8), (-1, self._codec.dim))
        offsets, units = (entries[name].astype(np.int64) for name in ("offset", "units"))
        return VectorBlock(entries["key"], offsets, units, vectors)

    def texts(self, entry: int, row: Row) -> tuple[Text, list[str]]:
        """Return the text of an entry and the labels of its units.

        Args:
            entry: index of the entry in the shard.
            row: its row.

        Raises:
            CacheError: the file is missing, or the entry is damaged.
        """
        name = self.shard.texts
        checked = row.text_hash is not None
        file = self._files.open(name) if checked else self._files.checked_file(name)
        end = file.size if entry + 1 == len(self) else self._text_start(entry + 1)
        data = file.read(row.text, end)
        text: Text = ""
        labels: list[str] = []
        intact = not checked or checksum(row.key, data) == row.text_hash
        try:
            if intact:
                text, *labels = json.loads(bytes(data).decode("utf-8", "surrogatepass"))
                intact = text_key(text) == row.key and len(labels) == row.units
                intact = intact and all(isinstance(label, str) for label in labels)
        # json raises RecursionError for deeply nested brackets.
        except (ValueError, TypeError, LookupError, RecursionError):
            intact = False
        if not intact:
            raise damaged_cache(file.path, f"entry {entry} does not match its key")
        return text, labels

    def _text_start(self, entry: int) -> int:
        header = self._header
        start = header.start + entry * header.row.size + _TEXT
        data = self._files.open(self.shard.entries).read(start, start + _OFFSET.size)
        return int(_OFFSET.unpack(data)[0])

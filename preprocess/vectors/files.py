"""The files of a vector cache: their names, rows and checksums, and how they are written.

    vectors-000012-003.bin   the vectors of all entries as stored by `Codec`, each (layers, units)
    texts-000012-003.bin     per entry the JSON list [text, label, label, ...] in UTF-8; text is a list
                             if it was embedded as words; lone surrogates are kept; optional
    entries-000012-003.npy   per entry a row of type `CHECKED_ENTRY`, in the order written; `ENTRY` in
                             caches of older versions
    index-0000-0000.npy      uint64 (entries, 5), sorted by key; see `preprocess.vectors.index_file`

A *shard* is the first three files; 12 is the unit of work and 3 the part of that unit. An *entry* is a
text of a shard. Each of its *units* has a vector per layer; depending on the cache, units are the
tokens, the words or the sentence. The *labels* are the spellings of the units. The index has a power of
two of files; the first 0000 is the generation, how often texts were added to the finished cache, and
the second is the number of the file. Files are raw arrays because these are the fastest to write and to
read.

Each reader checks what it reads. The manifest has the hash of every file: entries files are compared
with it when they are opened, and blocks of a whole shard too. Each entry has two checksums, of its
vectors and of its text and labels, which are compared whenever the entry is read. The files of
shards without checksums are compared with the manifest when they are opened.
"""

import io
import re
import struct
from collections.abc import Iterable
from typing import IO, Any, NamedTuple

import numpy as np
import xxhash

from preprocess.files.manifest import FileRecord
from preprocess.vectors.codec import CacheError

KEY = np.dtype("V16")
"""Key of a text: see `preprocess.vectors.shard.text_key`."""

ENTRY = np.dtype([("key", KEY), ("offset", "<u8"), ("text", "<u8"), ("units", "<u4")])
"""Row of an entry: key of the text, index of its first vector in the vectors file, byte offset in the
texts file, and number of units."""

CHECKED_ENTRY = np.dtype([*ENTRY.descr, ("vectors_hash", "<u4"), ("text_hash", "<u4")])
"""Row of an entry with the `checksum` of its stored vectors and of its text and labels."""

ROWS = {CHECKED_ENTRY: struct.Struct("<16sQQIII"), ENTRY: struct.Struct("<16sQQI")}
"""Layout of a single row of each type, which `struct` reads and writes faster than NumPy."""

_INDEX = re.compile(r"index-([0-9]{4,20})(?:-([0-9]{4,20}))?\.npy")

_SHARD = re.compile(r"(?:entries|texts|vectors)-([0-9]{6,20})-([0-9]{3,20})\.(?:npy|bin)")


class ShardName(NamedTuple):
    """Identity of a shard, ordered as in the cache: unit of work and part of that unit."""

    unit: int
    part: int

    @property
    def vectors(self) -> str:
        return f"vectors-{self.unit:06}-{self.part:03}.bin"

    @property
    def texts(self) -> str:
        return f"texts-{self.unit:06}-{self.part:03}.bin"

    @property
    def entries(self) -> str:
        return f"entries-{self.unit:06}-{self.part:03}.npy"


class IndexPlace(NamedTuple):
    """Generation of an index, and number of one of its files.

    The number is None for the single file of an index of a former version.
    """

    generation: int
    number: int | None

    @property
    def name(self) -> str:
        number = "" if self.number is None else f"-{self.number:04}"
        return f"index-{self.generation:04}{number}.npy"


def shards_of(names: Iterable[str]) -> list[ShardName]:
    """Return the shards whose entries file is among ``names``, in order."""
    return sorted(shard for name in names if (shard := shard_of(name)) and shard.entries == name)


def shard_of(name: str) -> ShardName | None:
    """Return the shard that a file belongs to, or None if it is not the name of a shard's file."""
    match = _SHARD.fullmatch(name)
    shard = ShardName(int(match[1]), int(match[2])) if match else None
    # Each number has one valid spelling.
    return shard if shard and name in (shard.entries, shard.texts, shard.vectors) else None


def index_place(name: str) -> IndexPlace | None:
    """Return the place of a file in an index, or None if it is not the name of such a file."""
    match = _INDEX.fullmatch(name)
    place = IndexPlace(int(match[1]), int(match[2]) if match[2] else None) if match else None
    return place if place and place.name == name else None


def make_again() -> str:
    """Return the advice that ends the message about a damaged cache."""
    return "run `biloom cache verify`, or make the cache again with `biloom embed --overwrite`"


class DamagedCacheError(CacheError):
    """A damaged file of a cache, or a manifest that does not describe a cache.

    Its only argument is the message, so that a `DataLoader` can raise it again in the main process.

    Attributes:
        name: path of the file, or of the cache.
        reason: what is wrong with it.
    """

    name = ""
    reason = ""


def damaged_cache(name: str, reason: str) -> DamagedCacheError:
    """Return the error for a damaged file or cache.

    Args:
        name: path of the file, or of the cache.
        reason: what is wrong with it.
    """
    error = DamagedCacheError(f"{name} of the vector cache is damaged ({reason}); {make_again()}")
    error.name, error.reason = name, reason
    return error


def entry_digest(key: bytes) -> xxhash.xxh3_64:
    """Return a hash for `checksum`, to which the bytes of a part of an entry are added.

    The key is the seed, so that the bytes of another entry have another checksum.
    """
    return xxhash.xxh3_64(seed=int.from_bytes(key[:8], "little"))


def checksum(key: bytes, data: Any) -> int:
    """Return the lower 32 bits of the XXH3 64-bit hash of a part of an entry, seeded by its key."""
    return xxhash.xxh3_64_intdigest(data, int.from_bytes(key[:8], "little")) & LOWER_32


LOWER_32 = 0xFFFFFFFF


class HashedFile:
    """A writer that counts and hashes the bytes of a file.

    Attributes:
        name: file name for the manifest.
        file: the file, open for writing.
        bytes: bytes written so far.
        digest: XXH3 128-bit hash of these bytes.
    """

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name, self.file, self.bytes, self.digest = name, file, 0, xxhash.xxh3_128()

    def write(self, data: Any) -> None:
        self.bytes += memoryview(data).nbytes
        self.digest.update(data)
        self.file.write(data)

    def write_header(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Write the npy header of a C-order array whose bytes are written next."""
        header = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(
            header, {"descr": descr, "fortran_order": False, "shape": shape}
        )
        self.write(header.getvalue())

    def record(self, **counts: int | str) -> FileRecord:
        """Return the manifest record of the bytes written so far."""
        return FileRecord(self.name, self.bytes, self.digest.hexdigest(), counts)

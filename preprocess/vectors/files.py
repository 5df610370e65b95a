"""The files of a vector cache, and how they are named, written, hashed and memory-mapped.

    vectors-000012-003.bin   the vectors of all entries as stored by `Codec`, each (layers, units)
    texts-000012-003.bin     per entry the JSON list [text, label, label, ...] in UTF-8; text is a list
                             if it was embedded as words; lone surrogates are kept; optional
    entries-000012-003.npy   per entry a row of type `ENTRY`, in the order written
    index-0000.npy           uint64 (5, entries), sorted by key; see `preprocess.vectors.index`

A *shard* is the first three files; 12 is the unit of work and 3 the part of that unit. An *entry* is a
text of a shard. Each of its *units* has a vector per layer; depending on the cache, units are the
tokens, the words or the sentence. The *labels* are the spellings of the units. 0000 is the
generation: how often texts were added to the finished cache. Files are raw arrays because these are
the fastest to write and to read.
"""

import io
import mmap
import os
import re
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from preprocess.files import storage
from preprocess.files.local_copies import DamagedCopy, LocalCopies
from preprocess.files.manifest import FileRecord
from preprocess.vectors.codec import CacheError

KEY = np.dtype("V16")
"""Key of a text: see `preprocess.vectors.shard.text_key`."""

ENTRY = np.dtype([("key", KEY), ("offset", "<u8"), ("text", "<u8"), ("units", "<u4")])
"""Row of an entry: key of the text, index of its first vector in the vectors file, byte offset in the
texts file, and number of units."""

INDEX = re.compile(r"index-(\d{4,})\.npy")
"""Name of an index; the group is its generation."""

_ENTRIES = re.compile(r"entries-(\d{6,})-(\d{3,})\.npy")


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


def index_name(generation: int) -> str:
    return f"index-{generation:04}.npy"


def shards_of(names: Mapping[str, Any]) -> list[ShardName]:
    """Return the shards whose entries file is among the keys of ``names``, in order."""
    matches = map(_ENTRIES.fullmatch, names)
    return sorted(ShardName(int(match[1]), int(match[2])) for match in matches if match)


def make_again() -> str:
    """Return the advice that ends the message about a damaged cache."""
    return "run `biloom cache verify`, or make the cache again with `biloom embed --overwrite`"


def damaged_cache(name: str, reason: str) -> CacheError:
    """Return the error for a damaged file or cache.

    Args:
        name: name or path of the file, or path of the cache.
        reason: what is wrong with it.
    """
    return CacheError(f"{name} of the vector cache is damaged ({reason}); {make_again()}")


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

    def record(self, **counts: int) -> FileRecord:
        """Return the manifest record of the bytes written so far."""
        return FileRecord(self.name, self.bytes, self.digest.hexdigest(), counts)


class CacheFiles:
    """Read access to the files of a vector cache.

    Args:
        path: folder or URL of the cache.
        records: manifest records of the files by name, or None to skip the check of their sizes.
        copies: local copies of remote files, which are mapped; None means to read remote files into
            memory. Requires ``records``.
    """

    def __init__(
        self,
        path: str,
        records: Mapping[str, FileRecord] | None = None,
        copies: LocalCopies | None = None,
    ) -> None:
        self.path, self.records, self.copies = path, records, copies

    def map(self, name: str) -> "mmap.mmap | bytes":
        """Memory-map a file; an empty file, or a remote file without ``copies``, is returned as bytes.

        Raises:
            CacheError: the file is missing or cannot be read, or its size (for a remote file, its
                hash) differs from its record.
        """
        path = storage.join(self.path, name)
        try:
            if self.copies is None and storage.is_remote(path):
                return storage.read_bytes(path)
            if self.copies and self.records is not None:
                opened: IO[bytes] = self.copies.open(path, self.records[name])
            else:
                opened = storage.open_read(path)
            with opened as file:
                size = os.fstat(file.fileno()).st_size
                if self.records is not None and size != self.records[name].bytes:
                    raise damaged_cache(path, f"{size:,} bytes, not {self.records[name].bytes:,}")
                # An empty file cannot be mapped.
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except (FileNotFoundError, KeyError) as error:
            raise CacheError(f"{path} of the vector cache is missing; {make_again()}") from error
        except DamagedCopy as error:
            raise damaged_cache(path, str(error)) from error
        except OSError as error:
            raise CacheError(f"{path} of the vector cache cannot be read ({error})") from error

    def array(self, name: str, dtype: np.dtype[Any], lead: tuple[int, ...] = ()) -> NDArray[Any]:
        """Memory-map an npy file.

        Args:
            name: file name.
            dtype: expected dtype.
            lead: expected shape without the last dimension, which may have any size.

        Returns:
            A read-only array, whose shape is ``lead`` and one more dimension.

        Raises:
            CacheError: the file is missing or damaged, or has another dtype or shape.
        """
        data = self.map(name)
        start = io.BytesIO(data[:4096])
        try:
            np.lib.format.read_magic(start)
            shape, fortran, stored = np.lib.format.read_array_header_1_0(start)
            if fortran or stored != dtype or shape[:-1] != lead:
                raise ValueError(f"it has dtype {stored} and shape {shape}")
            return np.ndarray(shape, dtype, data, start.tell())
        except (ValueError, TypeError) as error:
            raise damaged_cache(storage.join(self.path, name), str(error)) from error

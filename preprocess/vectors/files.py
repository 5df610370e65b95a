"""The files of a vector cache: their names, and how they are written, hashed and mapped.

Raw and memory-mapped, because that is both the fastest to write and within a few microseconds of
the fastest to read:

    vectors-000012-003.bin   vectors as `Codec` stores them; entries back to back, each (layers, units)
    texts-000012-003.bin     per entry the JSON list [text, label, label, ...], UTF-8 (surrogates
                             passed); text is a list where words were given; none where not kept
    entries-000012-003.npy   per entry, in the order written: key, where it starts in the two, units
    index-0000.npy           (5, entries) uint64, sorted by key: see `preprocess.vectors.index`

12 is the unit, 3 the part, 0000 how often the cache was added to.
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
ENTRY = np.dtype([("key", KEY), ("offset", "<u8"), ("text", "<u8"), ("units", "<u4")])
"""offset: vectors before it in its file; text: bytes before it in its."""

INDEX = re.compile(r"index-(\d{4,})\.npy")
_ENTRIES = re.compile(r"entries-(\d{6,})-(\d{3,})\.npy")


class ShardName(NamedTuple):
    """Which shard of a cache: the unit of text and the part of it that it was made of."""

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
    """The shards whose entries are among these names of files, in order."""
    found = (_ENTRIES.fullmatch(name) for name in names)
    return sorted(ShardName(int(one[1]), int(one[2])) for one in found if one)


def make_again() -> str:
    return "see `biloom cache verify`, and make it again with `biloom embed --overwrite`"


def damaged_cache(name: str, reason: str) -> CacheError:
    return CacheError(f"{name} of the vector cache is damaged_cache ({reason}); {make_again()}")


class HashedFile:
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


class Folder:
    """The files of a cache, mapped; those of a remote one from whole copies on the local disk.

    records: what the manifest says of the files, none: they are not checked; copies: where remote files
    are copied to, none: they are read into memory.
    """

    def __init__(
        self,
        path: str,
        records: Mapping[str, FileRecord] | None = None,
        copies: LocalCopies | None = None,
    ) -> None:
        self.path, self.records, self.copies = path, records, copies

    def map(self, name: str) -> "mmap.mmap | bytes":
        """The bytes of a file.

        Raises:
            CacheError: it is missing, or not of the size (remote: the hash) that its record tells.
        """
        path = storage.join(self.path, name)
        try:
            if self.copies is None and storage.is_remote(path):
                return storage.read_bytes(path)
            with self._open(path, name) as file:
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

    def _open(self, path: str, name: str) -> Any:
        if self.copies and self.records is not None:
            return self.copies.open(path, self.records[name])
        return storage.open_read(path)

    def array(self, name: str, dtype: np.dtype[Any], lead: tuple[int, ...] = ()) -> NDArray[Any]:
        """The array of an npy file, mapped; ``lead`` are all its dimensions but the last.

        Raises:
            CacheError: it is missing or damaged_cache.
        """
        data = self.map(name)
        start = io.BytesIO(data[:4096])
        try:
            np.lib.format.read_magic(start)
            shape, fortran, found = np.lib.format.read_array_header_1_0(start)
            if fortran or found != dtype or shape[:-1] != lead:
                raise ValueError(f"it holds {found} of shape {shape}")
            return np.ndarray(shape, dtype, data, start.tell())
        except (ValueError, TypeError) as error:
            raise damaged_cache(storage.join(self.path, name), str(error)) from error

"""Reading of a cache's files: by offset, from any thread, with a bounded number of open files.

Small parts are copied, not mapped. They stay valid after the file is closed, and a file that is truncated
while it is open raises an error instead of SIGBUS. Only large parts are mapped.
"""

import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from weakref import WeakSet

import xxhash

from preprocess.files import storage
from preprocess.files.local_copies import DamagedCopy, LocalCopies
from preprocess.files.manifest import FileRecord
from preprocess.files.remote.ranges import may_ignore_ranges
from preprocess.vectors.codec import CacheError
from preprocess.vectors.files import damaged_cache, make_again

Buffer = bytes | memoryview

MAPPED_BYTES = 1 << 24
"""Parts of at least this size are mapped instead of copied."""

OPEN_FILES = 1024
"""Maximum number of open files of a cache; at most a quarter of the process's limit."""

HASHED_AT_ONCE = 1 << 24
"""Bytes to hash at once; other threads can run in between."""

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors after which the open files are closed and opening is tried once more."""


class StoredFile:
    """An open file of a cache, or the content of a remote file.

    The file is closed when no reference to this object is left, so a thread can continue to read a file
    that another thread removes from the set of open files.

    Args:
        path: path or URL, for messages.
        source: file descriptor, which this object closes, or the content.

    Attributes:
        path: path or URL.
        size: bytes.
    """

    __slots__ = ("_content", "_descriptor", "path", "size")

    def __init__(self, path: str, source: int | bytes) -> None:
        self.path = path
        self._descriptor = -1
        self._content: bytes | None = None
        if isinstance(source, int):
            self._descriptor = source
            self.size = os.fstat(source).st_size
        else:
            self._content = source
            self.size = len(source)

    # The argument keeps the function alive while the interpreter shuts down.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self._descriptor >= 0:
            close(self._descriptor)

    def read(self, start: int, end: int) -> Buffer:
        """Return the bytes [start, end); a large part is mapped.

        Raises:
            CacheError: the file is shorter, or cannot be read.
        """
        # Checked first, so that no more memory is allocated than the file has bytes.
        if not 0 <= start <= end <= self.size:
            raise damaged_cache(self.path, "it is shorter than its entries require")
        if self._content is not None:
            return self._content[start:end]
        try:
            if end - start >= MAPPED_BYTES and (part := self._mapped(start, end)) is not None:
                return part
            data = os.pread(self._descriptor, end - start, start)
            while len(data) < end - start:
                more = os.pread(self._descriptor, end - start - len(data), start + len(data))
                if not more:
                    raise damaged_cache(self.path, "it was truncated while it was read")
                data += more
            return data
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _mapped(self, start: int, end: int) -> memoryview | None:
        # Python before 3.13 keeps a file descriptor for each map, until the last view is gone.
        if len(_MAPS) >= most_maps():
            return None
        first = start - start % mmap.ALLOCATIONGRANULARITY
        try:
            part = mmap.mmap(self._descriptor, end - first, access=mmap.ACCESS_READ, offset=first)
        except (OSError, ValueError):
            return None
        _MAPS.add(part)
        return memoryview(part)[start - first :]

    def digest(self) -> str:
        """Return the xxh128 of the content.

        Raises:
            CacheError: the file cannot be read.
        """
        digest = xxhash.xxh3_128()
        for start in range(0, self.size, HASHED_AT_ONCE):
            digest.update(self.read(start, min(start + HASHED_AT_ONCE, self.size)))
        return digest.hexdigest()


class CacheFiles:
    """The files of a vector cache; the least recently used ones are closed.

    Args:
        path: folder or URL of the cache.
        records: manifest records of the files by name, or None to skip the check of their sizes and
            hashes.
        copies: local copies of remote files; None means to read remote files into memory. Requires
            ``records``.

    Attributes:
        path: folder or URL of the cache.
        records: manifest records of the files by name.
        is_remote: True if the path is a URL.
        checked: names of the files that this process has compared with their hash.
        closed: True if no more files can be opened.
    """

    def __init__(
        self,
        path: str,
        records: Mapping[str, FileRecord] | None = None,
        copies: LocalCopies | None = None,
    ) -> None:
        self.path, self.records = path, records
        self.is_remote = storage.is_remote(path)
        self.checked: set[str] = set()
        self.closed = False
        self._copies = copies
        # Not a bound method, because the cache of open files would keep this object alive.
        in_memory = copies is None and self.is_remote
        most = 1 if in_memory else _most_files()
        self._files = lru_cache(most)(partial(_open, path, records, copies))
        _ALL.add(self)

    def name(self, name: str) -> str:
        """Return the path of a file, for messages."""
        return storage.join(self.path, name)

    def open(self, name: str) -> StoredFile:
        """Return a file, opened unless it is open already.

        Raises:
            CacheError: the file is missing or cannot be read, or its size (for a remote file, its
                hash) differs from its record; or the cache is closed.
        """
        self.check_open()
        return self._files(name)

    def check_open(self) -> None:
        """Raise `CacheError` if the cache is closed."""
        if self.closed:
            raise CacheError(f"{self.path}: this vector cache is closed; open it again")

    @property
    def is_ranged(self) -> bool:
        """True if `read_range` is cheaper than a copy of a file: for a store that serves ranges."""
        return self.is_remote and self._copies is not None and not may_ignore_ranges(self.path)

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes [start, end) of a remote file, without a local copy of it.

        Raises:
            CacheError: the file is missing or shorter, or cannot be read; or the cache is closed.
        """
        self.check_open()
        path = self.name(name)
        with _reported(path):
            data = storage.read_bytes(path, start, end)
        if len(data) < end - start:
            raise damaged_cache(path, f"it has no bytes {start + len(data):,} to {end - 1:,}")
        return data

    def can_copy(self, size: int) -> bool:
        """Return whether local copies of this many bytes leave room for copies of other files."""
        return self._copies is not None and 2 * size <= self._copies.limit

    def checked_file(self, name: str) -> StoredFile:
        """Return a file after comparing it with its hash, once per process.

        Raises:
            CacheError: the file is missing or damaged.
        """
        file = self.open(name)
        if name not in self.checked:
            self.check(file, name, file.digest)
        return file

    def check(self, file: StoredFile, name: str, digest: Callable[[], str]) -> None:
        """Compare a digest of a whole file with its record, and note that the file was checked.

        Raises:
            CacheError: they differ.
        """
        if self.records is not None:
            found, expected = digest(), self.records[name].xxh128
            if found != expected:
                raise damaged_cache(file.path, f"its hash is {found}, not {expected}")
        self.checked.add(name)

    def release(self) -> None:
        """Close the open files; they are opened again when they are needed."""
        self._files.cache_clear()

    def close(self) -> None:
        """Close the open files and give up the local copies; no more files can be opened."""
        if not self.closed:
            self.closed = True
            self.release()
            if self._copies:
                self._copies.close()


_ALL: WeakSet[CacheFiles] = WeakSet()
"""The caches of this process, which share its limit of open files."""


_MAPS: WeakSet[mmap.mmap] = WeakSet()
"""The maps in use. If there are many, further parts are copied."""


def _most_files() -> int:
    try:
        import resource  # Windows has no such module, and allows more files
    except ImportError:
        return OPEN_FILES
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = OPEN_FILES if limit == resource.RLIM_INFINITY else min(OPEN_FILES, limit // 4)
    return max(most, 3)


def most_maps() -> int:
    """Return the maximum number of maps of this process."""
    return max(_most_files() // 2, 2)


def _open(
    path: str, records: Mapping[str, FileRecord] | None, copies: LocalCopies | None, name: str
) -> StoredFile:
    path = storage.join(path, name)
    if records is not None and name not in records:
        raise damaged_cache(path, "the manifest does not list it")
    record = records[name] if records is not None else None
    with _reported(path):
        try:
            file = StoredFile(path, _source(path, record, copies))
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            for other in list(_ALL):
                other.release()
            file = StoredFile(path, _source(path, record, copies))
    if record is not None and file.size != record.bytes:
        raise damaged_cache(path, f"{file.size:,} bytes, not {record.bytes:,}")
    return file


@contextmanager
def _reported(path: str) -> Iterator[None]:
    """Raise `CacheError` for errors of reading a file."""
    try:
        yield
    except FileNotFoundError as error:
        raise CacheError(
            f"{path} of the vector cache is missing; if texts were added since the cache was opened, "
            f"open it again; otherwise {make_again()}"
        ) from error
    except DamagedCopy as error:
        raise damaged_cache(path, str(error)) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _source(path: str, record: FileRecord | None, copies: LocalCopies | None) -> int | bytes:
    """Return the descriptor of a file, or the content of a remote file without local copies."""
    if not storage.is_remote(path):
        # Opening a pipe would wait for a writer.
        if not is_regular(path):
            raise damaged_cache(path, "it is not a regular file")
    elif copies is None:
        return storage.read_bytes(path)
    opened = copies.open(path, record) if copies and record else storage.open_read(path)
    with opened as file:
        return os.dup(file.fileno())


def is_regular(path: str) -> bool:
    """Return whether a local path is a file, and not a folder, pipe or device.

    Raises:
        OSError: there is nothing, or it cannot be read.
    """
    return stat.S_ISREG(storage.local_path(path).stat().st_mode)


def _unreadable(path: str, error: OSError) -> CacheError:
    return CacheError(f"{path} of the vector cache cannot be read ({error.strerror or error})")

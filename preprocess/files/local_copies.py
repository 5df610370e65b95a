"""Local copies of remote files, because each range read from an object store takes milliseconds.

All processes of a user on a machine share one folder of copies, so that ranks and data workers
fetch a shard once. The last process to exit removes the folder; if it is killed, a resumed run uses
the copies that are left. Copies are named by content hash, so files of an older corpus are never
confused with newer ones.
"""

import atexit
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import xxhash

from preprocess.files import storage
from preprocess.files.errors import DiskFull, StorageError, StoreError
from preprocess.files.manifest import FileRecord
from preprocess.files.processes import flock
from preprocess.files.temporary import temporary_root
from preprocess.files.verified import difference, remember

AT_ONCE = 1 << 26
"""Bytes to request from the store at once."""


class DamagedCopy(Exception):  # noqa: N818
    """A remote file whose size or hash differs from its manifest record."""


class LocalCopies:
    """A least-recently-used cache of whole remote files in a temporary folder.

    Create the instance before forking processes that use it; otherwise the folder may be removed
    while they run.

    Args:
        limit: maximum bytes of all copies; the copy being opened is kept even if it is larger.
        setting: config key of the limit, for error messages.

    Attributes:
        limit: maximum bytes of all copies.

    Raises:
        StorageError: the folder belongs to another user.
    """

    def __init__(self, limit: int, setting: str = "train.cache_bytes") -> None:
        self.limit, self._setting = limit, setting
        folder = Path(temporary_root()) / f"biloom-shards-{os.getuid()}"
        self._folder, self._locks, self._files = folder, folder / "locks", folder / "files"
        try:
            # Outside the folder, which may be removed while another process waits for the lock.
            self._use = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            # A file system without locks raises another OSError: processes then may fetch a file
            # twice, and the folder stays when the last one exits.
            with suppress(OSError):
                flock(self._use, waits=False)
                # With the exclusive lock, temporary files can only be those of killed processes.
                storage.remove_temporary(str(folder))
            with suppress(OSError):
                flock(self._use, is_shared=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            own = folder.stat().st_uid == os.getuid()
            self._locks.mkdir(exist_ok=True)
            self._files.mkdir(exist_ok=True)
        except PermissionError:
            own = False
        if not own:
            raise StorageError(
                f"{folder}: this folder for copies of remote files belongs to another user; set "
                "TMPDIR to a folder of your own"
            )
        self._maker = os.getpid()
        atexit.register(self.close)

    def __reduce__(self) -> tuple[type["LocalCopies"], tuple[int, str]]:
        return LocalCopies, (self.limit, self._setting)

    def close(self) -> None:
        """Remove the folder unless another process uses it; does nothing in a forked process."""
        if os.getpid() != self._maker:
            return
        atexit.unregister(self.close)
        with suppress(OSError):
            flock(self._use, waits=False)
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._use)

    def open(self, path: str, record: FileRecord) -> BinaryIO:
        """Open the copy of a remote file, fetching it if necessary.

        The copy stays readable while it is open or mapped, even if it is evicted from the cache.

        Args:
            path: URL of the remote file.
            record: its size and hash from the manifest, with which the copy is compared.

        Raises:
            FileNotFoundError: the remote file does not exist.
            DamagedCopy: the remote file differs from ``record``.
            StorageError: the local disk is full.
        """
        copy = self._files / record.xxh128
        while True:
            try:
                # A copy that another process made is hashed once, too. Its modification time is
                # ignored, because readers set it.
                is_whole = not difference(str(copy), record, by_time=False)
                file = open(copy, "rb")  # noqa: SIM115
            except FileNotFoundError:
                self._fetch(path, record, copy)
                continue
            if is_whole:
                self.touch(record)
                return file
            file.close()
            copy.unlink(missing_ok=True)

    def touch(self, record: FileRecord) -> bool:
        """Mark the copy of a file as just used; return False if there is none."""
        now = time.time_ns()
        try:
            os.utime(self._files / record.xxh128, ns=(now, now))
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, path: str, record: FileRecord, copy: Path) -> None:
        with self._locked(copy.name[:2]):
            if copy.exists():
                return  # Another process has fetched it.
            self._make_room(record.bytes)
            try:
                with storage.atomic_writer(str(copy)) as file:
                    size, digest = 0, xxhash.xxh3_128()
                    for start in range(0, record.bytes, AT_ONCE):
                        end = min(start + AT_ONCE, record.bytes)
                        block = storage.read_bytes(path, start, end)
                        size += len(block)
                        digest.update(block)
                        file.write(block)
                        if size < end:
                            break
                    if problem := record.difference(size, digest.hexdigest()):
                        raise DamagedCopy(problem)
                with suppress(FileNotFoundError):  # Another process may evict it at the same time.
                    remember(str(copy), record, by_time=False)
            except StoreError:
                raise
            except StorageError as error:
                if not isinstance(error.__cause__, OSError):
                    raise
                raise DiskFull(
                    f"{self._folder}: no space for a copy of {path} ({error.__cause__.strerror}); "
                    f"free some, set TMPDIR to a larger disk, or lower {self._setting}"
                ) from error

    def _make_room(self, size: int) -> None:
        copies = []
        for path in self._files.iterdir():
            with suppress(FileNotFoundError):  # Another process may evict copies at the same time.
                status = path.stat()
                copies.append((status.st_mtime_ns, status.st_size, path))
        total = size + sum(copy_size for _, copy_size, _ in copies)
        for _, copy_size, path in sorted(copies):
            if total <= self.limit:
                return
            if not path.name.startswith(storage.TEMPORARY):
                path.unlink(missing_ok=True)
                total -= copy_size

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a lock between processes, so that only one fetches a file."""
        handle = os.open(self._locks / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with suppress(OSError):  # a file system without locks
                flock(handle)
            yield
        finally:
            os.close(handle)

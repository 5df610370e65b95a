"""Whole copies of remote files on the local disk: ranges of an object store cost milliseconds each.

All processes of a user on a machine share one folder, since ranks and their data workers read the
same shards, and a run that goes on finds there what a killed one fetched. The last to end removes
it. A copy is known by its content, so one of an older corpus is never taken for a newer's.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import xxhash

from preprocess.files import storage
from preprocess.files.manifest import FileRecord

AT_ONCE = 1 << 26


class DamagedCopy(Exception):  # noqa: N818
    """A remote file that does not hold what its manifest says; the message says what it holds."""


class LocalCopies:
    """Copies of ``limit`` bytes at most, as ``setting`` says; the least recently used ones make room.

    The copy needed now is kept whatever the limit. To be made before processes are forked that use
    it, so that their end does not take it for unused.

    Raises:
        StorageError: the folder is another user's.
    """

    def __init__(self, limit: int, setting: str = "train.cache_bytes") -> None:
        self._limit, self._setting = limit, setting
        folder = Path(tempfile.gettempdir()) / f"biloom-shards-{os.getuid()}"
        self._folder, self._locks, self._files = folder, folder / "locks", folder / "files"
        try:
            # Beside the folder: a lock in it would be removed with it under a process that waits.
            self._use = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            with suppress(BlockingIOError):
                fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Nobody else is here, so what has a temporary name is of a killed process.
                storage.remove_temporary(str(folder))
            fcntl.flock(self._use, fcntl.LOCK_SH)
            folder.mkdir(mode=0o700, exist_ok=True)
            own = folder.stat().st_uid == os.getuid()
            self._locks.mkdir(exist_ok=True)
            self._files.mkdir(exist_ok=True)
        except PermissionError:
            own = False
        if not own:
            raise storage.StorageError(
                f"{folder}: copies of remote shards go there, and it is another user's; set TMPDIR "
                "to a folder of your own"
            )
        self._maker = os.getpid()
        atexit.register(self.close)

    def __reduce__(self) -> tuple[type["LocalCopies"], tuple[int, str]]:
        return LocalCopies, (self._limit, self._setting)

    def close(self) -> None:
        """Remove the folder unless another process uses it. A fork leaves that to its parent."""
        if os.getpid() != self._maker:
            return
        atexit.unregister(self.close)
        with suppress(BlockingIOError):
            fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._use)

    def open(self, path: str, record: FileRecord) -> BinaryIO:
        """The copy of the remote file ``path``, fetched first where there is none.

        It stays readable while it is open, or mapped, also when it is deleted to make room.

        Raises:
            FileNotFoundError: there is no such remote file.
            DamagedCopy: it is not what ``record`` says.
            StorageError: the disk is full.
        """
        copy = self._files / record.xxh128
        while True:
            try:
                file = open(copy, "rb")  # noqa: SIM115
            except FileNotFoundError:
                self._fetch(path, record, copy)
                continue
            if os.fstat(file.fileno()).st_size == record.bytes:
                self.touch(record)
                return file
            file.close()
            copy.unlink(missing_ok=True)

    def touch(self, record: FileRecord) -> bool:
        """Whether there is a copy, which is in use from now."""
        now = time.time_ns()
        try:
            os.utime(self._files / record.xxh128, ns=(now, now))
        except FileNotFoundError:
            return False
        return True

    def _fetch(self, path: str, record: FileRecord, copy: Path) -> None:
        with self._locked(copy.name[:2]):
            if copy.exists():
                return  # Another process was faster.
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
                    if size != record.bytes:
                        raise DamagedCopy(f"{size:,} bytes, not {record.bytes:,}")
                    if digest.hexdigest() != record.xxh128:
                        raise DamagedCopy(f"hash {digest.hexdigest()}, not {record.xxh128}")
            except storage.StoreError:
                raise
            except storage.StorageError as error:
                if not isinstance(error.__cause__, OSError):
                    raise
                raise storage.StorageError(
                    f"{self._folder}: no room for a copy of {path} ({error.__cause__.strerror}); "
                    f"make room, set TMPDIR to a larger disk, or lower {self._setting}"
                ) from error

    def _make_room(self, size: int) -> None:
        found = []
        for one in self._files.iterdir():
            with suppress(FileNotFoundError):  # Another process makes room too.
                status = one.stat()
                found.append((status.st_mtime_ns, status.st_size, one))
        total = size + sum(taken for _, taken, _ in found)
        for _, taken, one in sorted(found):
            if total <= self._limit:
                return
            if not one.name.startswith(storage.TEMPORARY):
                one.unlink(missing_ok=True)
                total -= taken

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Of processes that want one file, one fetches it."""
        handle = os.open(self._locks / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

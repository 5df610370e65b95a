"""Members of a zip or tar archive as the files of a read-only store."""

import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import BinaryIO, cast

from preprocess.files.errors import archive_errors
from preprocess.files.paths import Chained

OpenRead = Callable[[str], BinaryIO]


class Archive:
    """An open archive, whose methods are those of an fsspec file system.

    The archive's index is read once. An instance is not safe to share between threads or processes,
    because all members share one position in the file. A member of a compressed tar file is found
    by decompressing all before it.

    Args:
        chain: URL of any member of the archive.
        file: the archive, seekable; it stays open as long as the instance.

    Raises:
        zipfile.BadZipFile: this is not a zip archive.
        tarfile.TarError: this is not a tar archive.
    """

    def __init__(self, chain: Chained, file: BinaryIO) -> None:
        self._file = file
        self._archive: zipfile.ZipFile | tarfile.TarFile
        if chain.protocol == "zip":
            self._archive = zipfile.ZipFile(file)
        else:
            self._archive = tarfile.open(fileobj=file)  # noqa: SIM115

    def __del__(self) -> None:
        self._file.close()

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The unpacked bytes of each file; folders and symbolic links are left out."""
        if isinstance(self._archive, tarfile.TarFile):
            members = self._archive.getmembers()
            files = [member for member in members if member.isreg() or member.islnk()]
            return {member.name: _target(self._archive, member).size for member in files}
        return {
            member.filename: member.file_size
            for member in self._archive.infolist()
            if not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16)
        }

    def invalidate_cache(self) -> None:
        """Do nothing: an open archive does not change."""

    def exists(self, name: str) -> bool:
        return name in self.sizes

    def open(self, name: str, mode: str = "rb") -> BinaryIO:
        """Open a member as a seekable stream."""
        assert mode == "rb", "an archive is read only"
        if name not in self.sizes:
            raise FileNotFoundError(name)
        if isinstance(self._archive, tarfile.TarFile):
            return cast(BinaryIO, self._archive.extractfile(name))
        try:
            return cast(BinaryIO, self._archive.open(name))
        except (NotImplementedError, RuntimeError) as error:
            # An unknown compression method, or a password.
            raise zipfile.BadZipFile(str(error)) from error

    def cat_file(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes ``[start, end)`` of a member."""
        with self.open(name) as file:
            file.seek(start)
            return file.read() if end is None else file.read(end - start)


def _target(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return the member that a hard link stands for; a file stands for itself."""
    while member.islnk():
        member = archive.getmember(member.linkname)
    return member


# Kept open, because opening an archive reads its index, and a worker may read many members.
@lru_cache(maxsize=4)
def _opened(chain: Chained, open_read: OpenRead, process: int, thread: int) -> Archive:
    return Archive(chain, open_read(chain.outer))


def open_archive(chain: Chained, open_read: OpenRead, reopen: bool = False) -> Archive:
    """Return the archive of a chained URL, opened at most once per thread.

    Args:
        chain: URL of any member of the archive.
        open_read: opens the outer file.
        reopen: open it again, because the file may have changed.

    Raises:
        DamagedArchive: the file cannot be read as an archive.
        FileNotFoundError: the file does not exist.
    """
    if reopen:
        _opened.cache_clear()
    with archive_errors(str(chain)):
        return _opened(chain._replace(member=""), open_read, os.getpid(), threading.get_ident())

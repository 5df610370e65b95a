"""Reading the members of a tar archive in one pass over its bytes."""

import tarfile
from collections.abc import Iterator
from typing import IO, cast

from preprocess.errors import UserError
from preprocess.reading.archives.members import Members, Read, damaged_archive
from preprocess.reading.archives.names import label_of
from preprocess.reading.archives.sequential import Backwards, Sequential, TooLarge
from preprocess.reading.block import Block
from preprocess.reading.byte_range import NOTHING
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream

# The stubs of the standard library lack these.
_EndOfArchive: type[tarfile.TarError] = vars(tarfile)["EOFHeaderError"]
_EndOfFile: type[tarfile.TarError] = vars(tarfile)["EmptyHeaderError"]
_ZEROS = bytes(1 << 16)
_FAULTS = (
    tarfile.TarError,
    ValueError,
    OverflowError,
    RecursionError,
    Backwards,
    TooLarge,
    EOFError,
)
_OTHERS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


def read_tar(archive: Stream, options: ReadOptions, read: Read) -> Iterator[Block]:
    """Yield the documents of the members of a tar archive, in their order.

    Links and devices are counted, folders are not. Archives that were joined are read to the end.

    Args:
        archive: the whole archive, uncompressed.
        options: settings.
        read: reads the documents of a member.

    Raises:
        DamagedFile: the archive, or a member, is damaged. The members before it have been yielded.
    """
    source = Sequential(archive.chunks)
    members = Members(archive, source, options, read)
    is_empty = True
    for info in _headers(archive, source):
        is_empty = False
        label = label_of(info.name)
        if info.isreg():
            yield from members.documents(label, _content(archive, source, info), info.size)
        elif not info.isdir():
            yield members.not_a_file(label, _OTHERS.get(info.type, "a member of an unknown type"))
        else:
            yield Block([], [], 0, 0)
    if is_empty:
        archive.findings.note = NOTHING


class _Table(tarfile.TarFile):
    """The state that `tarfile` needs to read headers; it keeps no list of members."""

    def next(self) -> tarfile.TarInfo | None:
        return None


def _headers(archive: Stream, source: Sequential) -> Iterator[tarfile.TarInfo]:
    """Yield the header of each member; the bytes up to the next header are skipped."""
    file = cast(IO[bytes], source)
    table = _Table(fileobj=file, encoding="utf-8", errors="surrogateescape")
    at_end = False
    while True:
        try:
            source.seek(table.offset)
            info = tarfile.TarInfo.fromtarfile(table)
        except _EndOfArchive:
            # A block of zeros: the end, padding, or the end of the first of several joined archives.
            at_end, table.offset = True, source.tell()
            continue
        except _EndOfFile as error:
            if at_end:
                return
            raise damaged_archive(archive, "tar", "it ends without an end mark") from error
        except UserError:
            raise
        except _FAULTS as error:
            problem = str(error) or type(error).__name__
            raise damaged_archive(archive, "tar", f"at byte {table.offset:,}: {problem}") from error
        at_end = False
        yield info


def _content(archive: Stream, source: Sequential, info: tarfile.TarInfo) -> Iterator[bytes]:
    """Yield the bytes of a member; the holes of a sparse file are zeros."""
    position = 0
    parts = [(0, info.size)]
    if info.issparse():
        # Unused places in a header have the size 0.
        stored = cast("list[tuple[int, int]]", info.sparse)
        parts = [(start, size) for start, size in stored if size]
    for start, size in parts:
        yield from _zeros(start - position)
        left = size
        for data in source.pieces(size):
            left -= len(data)
            yield data
        if left > 0:
            problem = f"it ends inside the member {label_of(info.name)}"
            raise damaged_archive(archive, "tar", problem)
        position = start + size
    yield from _zeros(info.size - position)


def _zeros(size: int) -> Iterator[bytes]:
    for start in range(0, size, len(_ZEROS)):
        yield _ZEROS[: size - start]

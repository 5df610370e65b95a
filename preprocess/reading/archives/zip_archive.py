"""Reading the members of a range of a zip archive, in the order of their bytes.

The directory at the end of the archive says where members are. A member belongs to the range in which
its local header starts. It is decompressed from the bytes of the range as they come, so that each byte is
read once, whatever the directory says.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator, Mapping
from functools import partial

from preprocess.reading.archives.members import Members, Read
from preprocess.reading.archives.names import decode_name, kind_of_mode, label_of
from preprocess.reading.archives.sequential import Sequential
from preprocess.reading.archives.zip_directory import Entry, read_directory
from preprocess.reading.block import Block
from preprocess.reading.byte_range import NOTHING, DamagedFile, damaged_file, unreadable_file
from preprocess.reading.compression import Compression, Zlib, Zstandard, unpack
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream

_LOCAL = struct.Struct("<4s5H3L2H")
_LOCAL_MARK = b"PK\x03\x04"
_STORED = 0
_METHODS: Mapping[int, Compression] = {
    8: partial(Zlib, -zlib.MAX_WBITS),
    12: bz2.BZ2Decompressor,
    20: Zstandard,
    93: Zstandard,
    95: lzma.LZMADecompressor,
}
_NAMES = {
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    14: "LZMA",
    97: "WavPack",
    98: "PPMd",
    99: "AES",
}
_TOO_LARGE = 0xFFFFFFFF
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 1, 8, 0x800


def read_zip(archive: Stream, options: ReadOptions, read: Read) -> Iterator[Block]:
    """Yield the documents of the members of a zip archive whose local headers start in a range.

    Links and devices are counted, folders are not.

    Args:
        archive: the archive on storage, or a range of it.
        options: settings.
        read: reads the documents of a member.

    Raises:
        DamagedFile: the archive, or a member, is damaged. Members before it have been yielded; without
            a directory, these are the first members whose headers have their sizes.
    """
    source = Sequential(archive.chunks, archive.start)
    members = Members(archive, source, options, read)
    end = archive.size if archive.end is None else archive.end
    assert end is not None, "the size of a file on storage is known"
    try:
        directory = read_directory(archive)
    except DamagedFile as error:
        if archive.start > 0:
            # The first range counts the archive.
            raise unreadable_file(
                archive.path, error.problem, "copy it again", error.reason
            ) from error
        for entry in _from_headers(source):
            yield from _read_member(source, entry, options, members, is_open=True)
        raise
    if not len(directory):
        archive.findings.note = NOTHING
    for entry in directory.between(archive.start, end):
        yield from _read_member(source, entry, options, members)


def _read_member(
    source: Sequential,
    entry: Entry,
    options: ReadOptions,
    members: Members,
    is_open: bool = False,
) -> Iterator[Block]:
    label = label_of(decode_name(entry.name, bool(entry.flags & _UTF8)))
    if entry.name.endswith(b"/"):
        return
    if what := kind_of_mode(entry.mode):
        yield members.not_a_file(label, what)
        return
    path = members.path_of(label)
    try:
        _check(entry, path)
        if not is_open:
            _open(source, entry, path)
    except DamagedFile as error:
        if source.error:
            raise
        yield members.rejection(label, error)
        return
    yield from members.documents(label, _content(source, entry, path, options), entry.size)


def _check(entry: Entry, path: str) -> None:
    """Raise DamagedFile if a member is encrypted, or compressed in an unknown way."""
    if entry.flags & _ENCRYPTED:
        raise _unreadable(path, "this member of a zip archive is encrypted")
    if entry.method != _STORED and entry.method not in _METHODS:
        method = _NAMES.get(entry.method, "an unknown method")
        raise _unreadable(
            path, f"this member of a zip archive is compressed with {method} ({entry.method})"
        )


def _open(source: Sequential, entry: Entry, path: str) -> None:
    """Go to the first byte of a member's content.

    Raises:
        DamagedFile: the member is not where the directory says.
    """
    if entry.offset < source.tell():
        raise damaged_file(path, "this member of a zip archive overlaps the one before it")
    source.seek(entry.offset)
    header = source.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(_LOCAL_MARK):
        raise damaged_file(path, "this member of a zip archive is not where the directory says")
    *_, name, extra = _LOCAL.unpack(header)
    source.seek(source.tell() + name + extra)


def _unreadable(path: str, problem: str) -> DamagedFile:
    return unreadable_file(path, problem, "unpack the archive", "damaged_file")


def _content(source: Sequential, entry: Entry, path: str, options: ReadOptions) -> Iterator[bytes]:
    """Yield the uncompressed bytes of a member, and check their number and checksum."""
    chunks: Iterator[bytes] = source.pieces(entry.packed)
    if entry.method != _STORED:
        most = options.limits.max_expansion
        compression = _METHODS[entry.method]
        chunks = unpack(chunks, compression, options.block_bytes, path, entry.packed, most)
    crc = size = 0
    for data in chunks:
        crc = zlib.crc32(data, crc)
        size += len(data)
        yield data
    if (size, crc) != (entry.size, entry.crc):
        raise damaged_file(path, "damaged member of a zip archive (its checksum differs)")


def _from_headers(source: Sequential) -> Iterator[Entry]:
    """Yield the members of an archive without a directory, as long as their headers have their sizes.

    ``offset`` is that of the content, which is the present position of ``source``.
    """
    while True:
        header = source.read(_LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(_LOCAL_MARK):
            return
        _, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack(header)
        if flags & _SIZES_FOLLOW or _TOO_LARGE in (packed, size):
            return
        label = source.read(name)
        source.seek(source.tell() + extra)
        content = source.tell()
        yield Entry(label, content, packed, size, crc, method, flags, 0)
        source.seek(content + packed)

"""Reading the documents of a stream: decompression, detection of format and encoding, then the format.

Each part takes a stream and returns another one. The last part is the reader of the format, see
`preprocess.reading.formats.table`.
"""

import io
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain
from typing import BinaryIO

from preprocess.files import storage
from preprocess.files.paths import split_chain
from preprocess.reading.archives.detection import (
    ArchiveKind,
    find_archive,
    find_container,
    refuse_archive,
)
from preprocess.reading.archives.tar_archive import read_tar
from preprocess.reading.archives.zip_archive import read_zip
from preprocess.reading.block import Block
from preprocess.reading.byte_range import (
    NOTHING,
    DamagedFile,
    damaged_file,
    unreadable_file,
)
from preprocess.reading.compression import compression_name, find_compression, unpack
from preprocess.reading.encodings.decoding import AUTO, is_cuttable, to_utf8
from preprocess.reading.encodings.wrong import choose_encoding
from preprocess.reading.formats.detection import Format
from preprocess.reading.formats.table import READERS
from preprocess.reading.kinds.detector import Detector
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream, in_pieces, whole

MOST_IN_MEMORY = 256_000_000
"""Largest file in bytes that is read in memory, because its format needs random access and it is
inside a compressed file or an archive."""


def read_documents(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of a stream, in blocks whose ``raw_bytes`` are 0.

    Blocks may be empty. If a file that cannot be cut was cut, because planning does not know its
    content, its first range yields all documents and the other ranges yield none.

    Args:
        stream: bytes of a file, as they are stored.
        options: settings.

    Raises:
        DamagedFile: the file cannot be read to its end, is not text or is in another encoding.
        UserError: it needs a package that is not installed, or more memory.
    """
    unpacked = _decompressed(stream, options)
    if unpacked is None:
        return
    stream = unpacked
    if archive := find_archive(stream.head, stream.name):
        stream.findings.format = archive
        yield from _read_archive(stream, archive, options)
        return
    limit = options.limits.max_document_bytes
    found = Detector(options.source, stream, limit).find()
    if found is None or READERS[found].needs == "text":
        decoded = _decoded(stream, options)
        if decoded is None:
            return
        stream = decoded
        detector = Detector(options.source, stream, limit)
        found = found or detector.find_in_text(in_pieces(stream.read), stream.encoding)
    stream.findings.format = found
    chunks = _reported(stream.chunks, options.alive)
    stream = stream.changed(chunks=chunks)
    if not READERS[found].is_cut:
        if stream.start > 0:
            return
        stream = stream.changed(end=None)
    if READERS[found].needs == "file":
        yield from _read_with_random_access(stream, found, options)
        return
    yield from READERS[found].read(stream, options)


def _read_archive(stream: Stream, kind: ArchiveKind, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of the members of an archive.

    Raises:
        DamagedFile: the archive is damaged, is inside another archive, or is no archive of texts.
    """
    container = find_container(stream.head) if kind == "zip" else None
    if container or stream.is_member or (kind == "zip" and not stream.file):
        refuse_archive(stream, kind, container)
    if kind == "tar" and stream.start > 0:
        return
    stream = stream.changed(chunks=_reported(stream.chunks, options.alive))
    yield from (read_tar if kind == "tar" else read_zip)(stream, options, read_documents)


def _reported(chunks: Iterable[bytes], alive: Callable[[], None]) -> Iterator[bytes]:
    for chunk in chunks:
        alive()
        yield chunk


def _decompressed(stream: Stream, options: ReadOptions) -> Stream | None:
    """Return the uncompressed bytes of a stream, or None if its first range has all documents."""
    compression = find_compression(stream.head)
    if not compression:
        return stream
    if stream.start > 0:
        return None
    stream.findings.compression = compression_name(stream.head)
    assert stream.size is not None, "the size of a compressed file is known"
    most = options.limits.max_expansion
    unpacked = unpack(
        stream.chunks, compression, options.block_bytes, stream.path, stream.size, most
    )
    stream = whole(stream, _counted(unpacked, stream.count_unpacked), options)
    if not stream.head:
        stream.findings.note = NOTHING
    return stream.changed(place="unpacked byte", packed=True)


def _counted(chunks: Iterable[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        count(len(chunk))
        yield chunk


def _decoded(stream: Stream, options: ReadOptions) -> Stream | None:
    """Return a stream with its encoding, converted to UTF-8 if the encoding is not cuttable.

    Returns:
        None if the first range yields all documents, or counts a file in another encoding.
    """
    source = options.source
    size = stream.size if stream.file else None
    try:
        encoding = choose_encoding(stream.path, stream.head, source.encoding, size, stream.read)
    except DamagedFile:
        if stream.start > 0 and options.limits.skip_damaged:
            return None
        raise
    if source.encoding == AUTO:
        stream.findings.encoding = encoding
    stream.findings.stored_encoding = encoding
    if is_cuttable(encoding):
        return stream.changed(encoding=encoding, stored_encoding=encoding)
    if stream.start > 0:
        return None
    converted = whole(stream, _as_utf8(stream.chunks, encoding, stream.path), options)
    return converted.changed(place="UTF-8 byte", stored_encoding=encoding)


def _as_utf8(chunks: Iterable[bytes], encoding: str, path: str) -> Iterator[bytes]:
    try:
        yield from to_utf8(chunks, encoding)
    except UnicodeError as error:
        # Python's decoder fails on long runs of invalid escape sequences.
        raise damaged_file(path, f"cannot be read as {encoding} ({error})") from error


def _read_with_random_access(
    stream: Stream, found: Format, options: ReadOptions
) -> Iterator[Block]:
    find_parts, read_parts = READERS[found].find_parts, stream.read_parts
    if stream.file and read_parts and find_parts:
        assert stream.size is not None, "the size of a file on storage is known"
        file = _by_parts(stream.file, stream)
        stream = stream.changed(file=file)
        # Without a block in between, so that what is read so far never ends inside the parts.
        parts = find_parts(stream, options)
        for _ in _reported(read_parts(parts, file), options.alive):
            pass
        stream.findings.parts = parts
    elif stream.file:
        # Its parts are not read in the order of bytes, so the range is hashed before them.
        yield from (Block([], [], 0, 0) for _ in _within_range(stream))
    else:
        content = yield from _in_memory(stream)
        stream = stream.changed(file=content, size=content.getbuffer().nbytes)
    blocks = READERS[found].read(stream, options)
    first = next(blocks, None)
    if first is None and stream.is_whole:
        stream.findings.note = NOTHING
    yield from chain([first] if first else [], blocks)


def _by_parts(file: BinaryIO, stream: Stream) -> BinaryIO:
    """Return a file of which only those parts are requested that are read."""
    if not storage.is_remote(stream.path) or split_chain(stream.path):
        return file
    return storage.open_read(stream.path, stream.size, storage.Part(0, 0))


def _within_range(stream: Stream) -> Iterator[bytes]:
    position = stream.start
    end = stream.size if stream.end is None else stream.end
    assert end is not None, "the size of a file on storage is known"
    chunks = iter(stream.chunks)
    while position < end:
        data = next(chunks)
        position += len(data)
        yield data


def _in_memory(stream: Stream) -> Generator[Block, None, io.BytesIO]:
    """Read all bytes of a stream, with an empty block for each chunk, and return them as a file."""
    content = io.BytesIO()
    for data in stream.chunks:
        content.write(data)
        if content.tell() > MOST_IN_MEMORY:
            problem = (
                f"its format is read in memory if it is packed, up to {MOST_IN_MEMORY:,} bytes"
            )
            raise unreadable_file(stream.path, problem, "unpack it", "oversized")
        yield Block([], [], 0, 0)
    return content

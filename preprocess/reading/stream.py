"""The bytes of a named file, wherever they are: on storage, in a compressed file or in an archive."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from preprocess.reading.block import Place
from preprocess.reading.byte_range import HEAD_BYTES, NAMED_MEMBERS, DamagedFile
from preprocess.reading.options import ReadOptions

ReadBytes = Callable[[int, int], bytes]
"""Returns the bytes ``[start, end)`` of a file or stream, fewer at its end."""
STRETCH_BYTES = 1 << 20
"""Bytes of text that are examined together for a wrong encoding (`preprocess.reading.encodings.wrong`)."""


@dataclass
class Findings:
    """What a reader found out about a file, for `UnitReader`.

    Attributes:
        encoding: the detected encoding, if `Source.encoding` is "auto"; otherwise empty.
        note: see `RangeRead.note`.
        parts: see `RangeRead.parts`.
        format: the format, such as "text", or "tar" or "zip"; empty as long as it is not known.
        compression: the name of the compression, such as "gzip"; empty if there is none.
        stored_encoding: the encoding of the text, detected or not; empty if the format has none.
        encodings: number of members of an archive in each detected encoding.
        members: encoding of each member, by its name; see `RangeRead.members`.
    """

    encoding: str = ""
    note: str = ""
    parts: Sequence[tuple[int, int]] = ()
    format: str = ""
    compression: str = ""
    stored_encoding: str = ""
    encodings: Counter[str] = field(default_factory=Counter)
    members: dict[str, str] = field(default_factory=dict)

    def add_member(self, name: str, encoding: str) -> None:
        """Add a member of an archive whose encoding was detected."""
        self.encodings[encoding] += 1
        if encoding != "utf-8" and len(self.members) < NAMED_MEMBERS:
            self.members[name] = encoding


@dataclass(frozen=True)
class Stream:
    """The bytes of a file from which documents are read, once and in order.

    A file on storage may be cut into ranges. A record belongs to the range in which its first byte
    is. All other streams are whole.

    Attributes:
        name: name of the file in its source, for locations and for the detection of its format.
        path: path or URL for messages. The name of a member follows the path of its archive.
        head: the first `HEAD_BYTES` of the file, or all of a shorter file.
        chunks: the bytes from ``start`` to the end of the file; no chunk crosses ``end``.
        read: returns bytes by their offsets: any bytes if ``file`` is set, otherwise only bytes near
            the last chunk (`Tape`).
        start: first byte of the range.
        end: byte after the range; None for a whole file.
        size: bytes of the file; None if they are not known, as for compressed files.
        file: the open file, if it is uncompressed on storage; a format with
            ``FormatReader.needs == "file"`` always has one.
        place: what byte offsets count.
        encoding: encoding of the bytes, one for which `is_cuttable` is True. It is known only if
            ``FormatReader.needs == "text"``.
        stored_encoding: encoding before the conversion to UTF-8; ``encoding`` if there was none.
        packed: True if the file is compressed.
        is_member: True if the file is in an archive.
        count_unpacked: called with numbers of bytes that this file, if it is compressed, unpacks to; raises
            `DamagedFile` if they are too many for its archive.
        read_parts: reads parts of the file in place of ``chunks``, see `RawRange.read_parts`; set if
            ``file`` is an uncompressed file on storage.
        findings: what is found out about the file.
    """

    name: str
    path: str
    head: bytes
    chunks: Iterable[bytes]
    read: ReadBytes
    start: int = 0
    end: int | None = None
    size: int | None = None
    file: BinaryIO | None = None
    place: Place = "byte"
    encoding: str = "utf-8"
    stored_encoding: str = "utf-8"
    packed: bool = False
    is_member: bool = False
    count_unpacked: Callable[[int], None] = lambda size: None
    read_parts: Callable[[Sequence[tuple[int, int]], BinaryIO], Iterator[bytes]] | None = None
    findings: Findings = field(default_factory=Findings)

    @property
    def is_whole(self) -> bool:
        """True if the stream has all bytes of the file."""
        return self.start == 0 and self.end in (None, self.size)

    def changed(self, **fields: Any) -> "Stream":
        """Return a copy with other values of some fields.

        `dataclasses.replace` does the same, but takes a fifth of the time to read a small file.
        """
        assert fields.keys() <= self.__dict__.keys()
        copy = object.__new__(Stream)
        copy.__dict__.update(self.__dict__, **fields)
        return copy

    def starts_line(self) -> bool:
        """Return True if a line starts at the start of the range."""
        return self.start == 0 or self.read(self.start - 1, self.start) == b"\n"


def read_at(file: BinaryIO, start: int, end: int) -> bytes:
    """Return the bytes ``[start, end)`` of a file, fewer at its end."""
    file.seek(start)
    return file.read(end - start)


def in_pieces(read: ReadBytes) -> Iterator[bytes]:
    """Yield all bytes that ``read`` returns by offsets, as `read_at` and `Tape.read` do."""
    start = 0
    while data := read(start, start + HEAD_BYTES):
        yield data
        start += len(data)


class Tape:
    """Iterates over the chunks of a stream, and returns bytes near the present chunk by offset.

    Args:
        chunks: the stream. An error in it is raised after the chunks before it.
        limit: bytes before the present chunk that `read` can still return.
    """

    def __init__(self, chunks: Iterable[bytes], limit: int) -> None:
        self._chunks = iter(chunks)
        self._limit = limit
        self._behind: deque[bytes] = deque()
        self._ahead: deque[bytes] = deque()
        self._start = 0  # offset of the first byte behind
        self._position = 0  # offset of the first byte ahead
        self._end = 0
        self._error: DamagedFile | None = None

    def __iter__(self) -> Iterator[bytes]:
        while self._ahead or self._pull():
            data = self._ahead.popleft()
            self._behind.append(data)
            while self._position - self._start - len(self._behind[0]) >= self._limit:
                self._start += len(self._behind.popleft())
            self._position += len(data)
            yield data
        if self._error:
            raise self._error

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes ``[start, end)``, fewer at the end of the stream."""
        while self._end < end and self._pull():
            pass
        pieces: list[bytes] = []
        offset = self._start
        for data in (*self._behind, *self._ahead):
            if offset < end and offset + len(data) > start:
                pieces.append(data[max(start - offset, 0) : end - offset])
            offset += len(data)
        return b"".join(pieces)

    def _pull(self) -> bool:
        """Read one chunk ahead; return False at the end of the stream."""
        try:
            data = next(self._chunks, None)
        except DamagedFile as error:
            self._error, data = error, None
        if data is None:
            return False
        self._ahead.append(data)
        self._end += len(data)
        return True


def whole(stream: Stream, chunks: Iterable[bytes], options: ReadOptions) -> Stream:
    """Return a stream of other bytes under the same name, which are read from their start.

    Args:
        stream: gives name, path, encoding and findings.
        chunks: the bytes.
        options: settings; the longest document decides how many bytes `Stream.read` can go back.
    """
    tape = Tape(chunks, options.limits.max_document_bytes + STRETCH_BYTES + options.block_bytes)
    head = tape.read(0, HEAD_BYTES)
    return stream.changed(
        head=head,
        chunks=tape,
        read=tape.read,
        start=0,
        end=None,
        size=None,
        file=None,
        read_parts=None,
    )

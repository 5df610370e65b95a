"""Splitting a WARC file into records (ISO 28500), as a stream.

Unlike in other readers, a record with a wrong length costs only itself: reading resumes where the next
record begins. Memory is bounded by one record of the limit.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_VERSION = re.compile(rb"WARC/\d+\.\d+\r?\n")
_NEXT = re.compile(rb"\nWARC/\d+\.\d+\r?\n(?=[A-Za-z-]+:)")
_BLANK = re.compile(rb"\r?\n\r?\n")
_LONGEST_HEADER = 1 << 20
_OVERLAP = 64
"""Bytes within which a match of `_NEXT` fits."""
_SHOWN = 200


class WarcRecord(NamedTuple):
    """A record of a WARC file.

    Attributes:
        offset: its first byte.
        headers: its headers, by names in lower case.
        body: the content; of a record that is rejected, a part or nothing.
        reason: "oversized", "invalid_warc" or empty.
    """

    offset: int
    headers: dict[str, str]
    body: bytes
    reason: str = ""


class CutWarcError(ValueError):
    """The file ends inside a record that begins at byte ``args[0]``."""


def split_warc(chunks: Iterable[bytes], limit: int) -> Iterator[WarcRecord]:
    """Yield the records of a WARC file.

    Args:
        chunks: the file, uncompressed.
        limit: bytes of the largest content.

    Raises:
        CutWarcError: the file ends inside a record.
    """
    window = _Window(chunks)
    while window.skip_line_ends():
        offset = window.offset
        if not _VERSION.match(window.ahead(_OVERLAP)):
            yield WarcRecord(offset, {}, window.ahead(_SHOWN)[:_SHOWN], "invalid_warc")
            window.to_next_record()
            continue
        blank = window.find(_BLANK, _LONGEST_HEADER)
        if blank is None:
            if window.is_at_end(_LONGEST_HEADER):
                raise CutWarcError(offset)
            yield WarcRecord(offset, {}, window.ahead(_SHOWN)[:_SHOWN], "invalid_warc")
            window.to_next_record()
            continue
        headers = parse_headers(window.ahead(blank)[:blank])
        length = headers.get("content-length", "")
        if not length.isdecimal():
            yield WarcRecord(offset, headers, b"", "invalid_warc")
            window.to_next_record()
            continue
        yield from _with_body(window, offset, headers, blank, int(length), limit)


def _with_body(
    window: "_Window", offset: int, headers: dict[str, str], start: int, length: int, limit: int
) -> Iterator[WarcRecord]:
    """Yield a record whose content has the ``length`` that its header states.

    Args:
        window: at the start of the record.
        offset: for the record.
        headers: for the record.
        start: bytes of the header.
        length: bytes of the content.
        limit: see `split_warc`.
    """
    if length > limit:
        # Its end is not checked, because it is not held in memory.
        yield WarcRecord(offset, headers, b"", "oversized")
        window.drop(start)
        if window.pass_by(length):
            return
        raise CutWarcError(offset)
    data = window.ahead(start + length + _OVERLAP)
    end = start + length
    rest = data[end : end + _OVERLAP].lstrip(b"\r\n")
    if len(data) >= end and (not rest or _VERSION.match(rest)):
        yield WarcRecord(offset, headers, data[start:end])
        window.drop(end)
    elif len(data) < end and not _NEXT.search(data):
        raise CutWarcError(offset)
    else:
        yield WarcRecord(offset, headers, b"", "invalid_warc")
        window.to_next_record()


def parse_headers(data: bytes) -> dict[str, str]:
    """Return the headers after a first line, by names in lower case; of equal names, the first."""
    headers: dict[str, str] = {}
    name = ""
    for line in data.decode("utf-8", "replace").split("\n")[1:]:
        if line[:1] in (" ", "\t") and name:
            headers[name] += f" {line.strip()}"
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if not colon or name in headers:
            name = ""
        else:
            headers[name] = value.strip()
    return headers


class _Window:
    """The next bytes of a stream.

    Attributes:
        offset: offset of the first of them.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._data = b""
        self.offset = 0

    def ahead(self, size: int) -> bytes:
        """Return at least ``size`` bytes, or all that are left."""
        if len(self._data) < size:
            pieces, held = [self._data], len(self._data)
            for data in self._chunks:
                pieces.append(data)
                held += len(data)
                if held >= size:
                    break
            self._data = b"".join(pieces)
        return self._data

    def is_at_end(self, size: int) -> bool:
        """Return True if fewer than ``size`` bytes are left."""
        return len(self.ahead(size)) < size

    def drop(self, size: int) -> None:
        self._data = self._data[size:]
        self.offset += size

    def find(self, pattern: re.Pattern[bytes], limit: int) -> int | None:
        """Return the bytes up to the end of the first match within a limit, or None."""
        size = 4096
        while True:
            match = pattern.search(self.ahead(size), 0, limit)
            if match:
                return match.end()
            if len(self._data) < size or size >= limit:
                return None
            size *= 4

    def skip_line_ends(self) -> bool:
        """Drop line ends; return False at the end of the stream."""
        while data := self.ahead(1):
            left = data.lstrip(b"\r\n")
            self.drop(len(data) - len(left))
            if left:
                return True
        return False

    def to_next_record(self) -> None:
        """Drop the record at the start, up to where another one begins."""
        while True:
            data = self.ahead(len(self._data) + 1)
            match = _NEXT.search(data)
            if match:
                self.drop(match.start())
                return
            kept = min(len(data), _OVERLAP)
            self.drop(len(data) - kept)
            if not self._more():
                self.drop(len(self._data))
                return

    def pass_by(self, length: int) -> bool:
        """Drop bytes up to a length or to the next record, whichever is first.

        Returns:
            False if the stream ends before.
        """
        while length > 0:
            data = self.ahead(_OVERLAP)
            match = _NEXT.search(data, 0, length)
            if match:
                self.drop(match.start())
                return True
            if not data:
                return False
            kept = 0 if length <= len(data) else min(len(data), _OVERLAP)
            size = min(length, len(data) - kept)
            self.drop(size)
            length -= size
            if length and not self._more():
                length -= len(self._data)
                self.drop(len(self._data))
                return length <= 0
        return True

    def _more(self) -> bool:
        data = next(self._chunks, b"")
        self._data += data
        return bool(data)

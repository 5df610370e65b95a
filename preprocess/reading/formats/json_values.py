"""Splitting JSON documents into records, without parsing them, as a stream.

A document of any size is split, because only strings and brackets are looked at. Each record is
parsed afterwards, so that an invalid one costs only itself.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from preprocess.reading.block import EXCERPT_BYTES

_QUOTE, _OBJECT, _ARRAY, _END_OBJECT, _END_ARRAY, _COMMA, _COLON = b'"{[}],:'
_BETWEEN = re.compile(
    rb'[^"{}\[\]]*+(?:"(?:[^"\\]++|\\.)*+"[^"{}\[\]]*+)*+',
    re.DOTALL,
)
"""Matches up to the next bracket, or up to a string that the data do not end."""
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# A byte order mark and a record separator (RFC 7464) are between joined files and records.
_SPACE = re.compile(rb"[ \t\r\n\x1e\xef\xbb\xbf]*+")
_SCALAR = re.compile(rb'[^,\[\]{}" \t\r\n]*+')
_JUNK = re.compile(rb"[^\[{\n]*+")


class JsonRecord(NamedTuple):
    """A record of a JSON document.

    Attributes:
        offset: its first byte.
        data: its bytes; of an oversized record, the beginning.
        reason: "oversized", "invalid_json" or empty.
    """

    offset: int
    data: bytes
    reason: str = ""


class CutJsonError(ValueError):
    """The document ends inside a value that begins at byte ``args[0]``."""


def split_json(
    chunks: Iterable[bytes], limit: int, is_record: Callable[[str], bool]
) -> Iterator[JsonRecord]:
    """Yield the records of JSON documents, one after the other in a stream of UTF-8.

    The records are the items of an array, or objects, which may be separated by line ends, commas or
    nothing. An object that has no key of a record, but arrays of objects, is a container: its records
    are the items of these arrays.

    Args:
        chunks: the stream.
        limit: bytes of the longest record. An object above it counts as a container until a key of a
            record is found.
        is_record: tells for a key of an object whether the object is a record.

    Raises:
        CutJsonError: the stream ends inside a value.
    """
    return _Scanner(chunks, 0, limit, is_record).records()


class _Scanner:
    """Reads JSON values from a stream."""

    def __init__(
        self, chunks: Iterable[bytes], offset: int, limit: int, is_record: Callable[[str], bool]
    ) -> None:
        self._chunks = iter(chunks)
        self._data = b""
        self._at = 0
        self._base = offset
        self._limit = limit
        self._is_record = is_record

    def records(self) -> Iterator[JsonRecord]:
        while (char := self._peek()) is not None:
            if char == _ARRAY:
                self._at += 1
                yield from self._items(self._offset - 1)
            elif char == _OBJECT:
                yield from self._object()
            elif char == _COMMA:
                self._at += 1
            else:
                yield self._scalar(_JUNK)._replace(reason="invalid_json")

    @property
    def _offset(self) -> int:
        return self._base + self._at

    def _more(self) -> bool:
        """Replace the data by the next chunk; return False at the end."""
        self._base += len(self._data)
        self._data, self._at = next(self._chunks, b""), 0
        while not self._data:
            following = next(self._chunks, None)
            if following is None:
                return False
            self._data = following
        return True

    def _peek(self) -> int | None:
        """Return the next byte after whitespace, or None at the end."""
        while True:
            space = _SPACE.match(self._data, self._at)
            assert space
            self._at = space.end()
            if self._at < len(self._data):
                return self._data[self._at]
            if not self._more():
                return None

    def _items(self, start: int) -> Iterator[JsonRecord]:
        """Yield the items of an array whose bracket was read."""
        while (char := self._peek()) != _END_ARRAY:
            if char is None:
                raise CutJsonError(start)
            if char == _COMMA:
                self._at += 1
            elif char in (_OBJECT, _ARRAY, _QUOTE):
                yield self._value()
            elif char in (_END_OBJECT, _COLON):
                self._at += 1
                yield JsonRecord(self._offset - 1, bytes([char]), "invalid_json")
            else:
                yield self._scalar(_SCALAR)
        self._at += 1

    def _object(self) -> Iterator[JsonRecord]:
        """Yield an object, or the records in it."""
        record = self._value(keep=True)
        if not record.reason:
            try:
                found = [] if self._again(record).is_one() else list(self._again(record).members())
            except CutJsonError:
                # Its brackets do not match.
                found = []
            yield from found or [record]
            return
        # It is longer than a record may be.
        rest = chain([record.data, self._data[self._at :]], self._chunks)
        again = _Scanner(rest, record.offset, self._limit, self._is_record)
        yield from again.members()
        self._chunks, self._data, self._at = again._chunks, again._data, again._at
        self._base = again._base

    def _again(self, record: JsonRecord) -> "_Scanner":
        return _Scanner([record.data], record.offset, self._limit, self._is_record)

    def is_one(self) -> bool:
        """Return True if a key of the object at the start is a key of a record."""
        return any(self._is_record(key) for key, _ in self._keys())

    def _keys(self) -> Iterator[tuple[str, int]]:
        """Yield each key of an object, and the byte offset of the object; its value is read next.

        Ends after the object, or where it is not JSON.
        """
        self._peek()
        start = self._offset
        self._at += 1
        while (char := self._peek()) != _END_OBJECT:
            if char is None:
                raise CutJsonError(start)
            if char == _COMMA:
                self._at += 1
                continue
            if char != _QUOTE:
                return
            key = self._value().data
            if self._peek() != _COLON:
                return
            self._at += 1
            self._peek()
            after = self._offset
            yield key[1:-1].decode("utf-8", "replace"), start
            if self._offset == after:
                self._skip()
        self._at += 1

    def members(self) -> Iterator[JsonRecord]:
        """Yield the items of the arrays of objects that an object has as members."""
        is_one = False
        for key, start in self._keys():
            if is_one:
                continue
            if self._is_record(key):
                is_one = True
                yield JsonRecord(start, f'{{"{key}": ...'.encode(), "oversized")
            elif self._peek() == _ARRAY:
                self._at += 1
                if self._peek() == _OBJECT:
                    yield from self._items(start)
                else:
                    for _ in self._items(start):
                        pass

    def _skip(self) -> None:
        if self._peek() in (_OBJECT, _ARRAY, _QUOTE):
            self._value()
        else:
            self._scalar(_SCALAR)

    def _scalar(self, pattern: re.Pattern[bytes]) -> JsonRecord:
        """Read bytes that match a pattern, and at least one."""
        offset, pieces, size = self._offset, [self._data[self._at : self._at + 1]], 0
        self._at += 1
        while True:
            match = pattern.match(self._data, self._at)
            assert match
            if size <= EXCERPT_BYTES:
                pieces.append(match[0])
                size += len(match[0])
            self._at = match.end()
            if self._at < len(self._data) or not self._more():
                return JsonRecord(offset, b"".join(pieces)[:EXCERPT_BYTES])

    def _value(self, keep: bool = False) -> JsonRecord:
        """Read an object, an array or a string.

        Args:
            keep: stop at the limit, and return all bytes until there as "oversized".
        """
        offset = self._offset
        pieces: list[bytes] = []
        size = depth = 0
        in_string = escaped = over = False
        while True:
            data, begin = self._data, self._at
            at, depth, in_string, escaped, whole = _scan(data, begin, depth, in_string, escaped)
            self._at = at
            size += at - begin
            if not over:
                pieces.append(data[begin:at])
                if size > self._limit:
                    over = True
                    if keep:
                        return JsonRecord(offset, b"".join(pieces), "oversized")
                    pieces = [b"".join(pieces)[:EXCERPT_BYTES]]
            if whole:
                return JsonRecord(offset, b"".join(pieces), "oversized" if over else "")
            if not self._more():
                raise CutJsonError(offset)


def _scan(
    data: bytes, at: int, depth: int, in_string: bool, escaped: bool
) -> tuple[int, int, bool, bool, bool]:
    """Read a value on from a state, and return the state after the data.

    Returns:
        Index after the value or the data, depth of brackets, whether the data end in a string or after
        its backslash, and whether the value is whole.
    """
    while at < len(data):
        if escaped:
            at, escaped = at + 1, False
        elif in_string:
            match = _IN_STRING.match(data, at)
            assert match
            at = match.end()
            if at < len(data):
                # It ends at a quote, or at a backslash that is the last byte.
                in_string = escaped = data[at] != _QUOTE
                at += 1
                if not in_string and not depth:
                    return at, depth, False, False, True
        else:
            if depth:
                match = _BETWEEN.match(data, at)
                assert match
                at = match.end()
                if at == len(data):
                    break
            char = data[at]
            at += 1
            if char == _QUOTE:
                in_string = True
            elif char in (_OBJECT, _ARRAY):
                depth += 1
            else:
                depth -= 1
                if not depth:
                    return at, depth, False, False, True
    return at, depth, in_string, escaped, False

"""Raw files to documents: formats, line ends, encodings and compression.

Text is read in blocks of megabytes that are decoded at once and then split, since a Python call a
line costs more than the reading. Nothing is lost in silence: what is not a document is a
`Rejected` with its reason and place, and a file that cannot be read to its end is an error.
"""

import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import AnyStr

from preprocess import installed_docs, storage
from preprocess.config import CleaningConfig, Source
from preprocess.raw_file import HEAD_BYTES, RawRange, find_compression, unpack, whole_lines
from preprocess.sources import resolve_format
from preprocess.units import Range, Unit

EXCERPT_CHARACTERS = 1000
_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Rejected:
    """A record that is no document."""

    reason: str
    """invalid_utf8, utf16_or_utf32, invalid_json, missing_text_field or text_not_a_string."""
    excerpt: str
    """The beginning of the record, unprintable characters escaped, 1000 characters at most."""
    where: str
    """``file name:byte offset of the record``; of a compressed file, in its unpacked bytes."""


@dataclass(frozen=True)
class Block:
    """What a few megabytes held."""

    documents: list[str]
    rejected: list[Rejected]
    replaced: int
    """U+FFFD characters put in for bytes that are not UTF-8 and for lone surrogates."""
    raw_bytes: int
    """Bytes of the unit taken since the last block: they sum to the unit's bytes."""


def read_unit(
    unit: Unit, source: Source, cleaning: CleaningConfig, block_bytes: int = 4 * 1024**2
) -> "UnitReader":
    """The documents of a unit in blocks of about ``block_bytes``.

    text: a document a line, which ends at LF or CRLF; jsonl: an object a line, in which a blank line
    is not a document; docstrings: a document a paragraph of a Python source's prose. Text is UTF-8;
    a byte order mark at the start of a file is dropped, a file in UTF-16 or UTF-32 is one rejection.

    gzip, bzip2 and xz are known by content. A file whose name did not tell it may have been cut: its
    first range then holds all documents, the others none.
    """
    return UnitReader(unit, source, cleaning, block_bytes)


class UnitReader:
    """Iterates over the `Block`s of a unit; made by `read_unit`."""

    def __init__(
        self, unit: Unit, source: Source, cleaning: CleaningConfig, block_bytes: int
    ) -> None:
        self._unit = unit
        self._source = source
        self._drop_invalid = cleaning.invalid_utf8 == "drop"
        self._block_bytes = block_bytes
        self.digests: list[str] = []
        """After iteration: for each range the xxh128 of its raw bytes ``[start, end)``, in hex."""

    def __iter__(self) -> Iterator[Block]:
        """Read the unit.

        Raises:
            DamagedFile: a compressed file is damaged or of another kind, or a file has shrunk.
        """
        self.digests = []
        for piece in self._unit.ranges:
            with storage.open_read(piece.path) as file:
                head = file.read(HEAD_BYTES)
                raw = RawRange(file, piece, self._block_bytes)
                for block in self._read_range(piece, raw, head):
                    yield replace(block, raw_bytes=raw.take())
                for _ in raw.rest_of_range():
                    yield Block([], [], 0, raw.take())
                if left := raw.take():
                    yield Block([], [], 0, left)
                self.digests.append(raw.digest.hexdigest())

    def _read_range(self, piece: Range, raw: "RawRange", head: bytes) -> Iterator[Block]:
        compression = find_compression(head, piece.path)
        if piece.start > 0 and (compression or head.startswith(_WIDE_BOMS)):
            return
        chunks: Iterable[bytes] = raw
        if compression:
            chunks = unpack(raw, compression, self._block_bytes, piece.path)
        kind = resolve_format(self._source, piece.name)
        if kind == "docstrings":
            yield self._read_python(b"".join(chunks), piece.name)
            return
        end = None if compression else piece.end
        for offset, lines in whole_lines(chunks, piece.start, end, raw.starts_line):
            if offset == 0 and lines.startswith(_WIDE_BOMS):
                # How many lines came along depends on the block, the first is always whole.
                first = lines.partition(b"\n")[0]
                yield Block([], [_reject("utf16_or_utf32", first, piece.name, 0)], 0, 0)
                return
            if offset == 0 and lines.startswith(_BOM):
                offset, lines = len(_BOM), lines[len(_BOM) :]
            if lines:
                read = self._read_jsonl if kind == "jsonl" else self._read_text
                yield read(lines, piece.name, offset)

    def _decode(self, data: bytes) -> tuple[Sequence[str | None], int]:
        """The lines of ``data``, none for one to reject, and the number of characters replaced."""
        try:
            return _split(data.decode()), 0
        except UnicodeDecodeError:
            if self._drop_invalid:
                return [_decode_strictly(line) for line in _split(data)], 0
            # No invalid sequence holds a newline, so a block is decoded as its lines would be.
            text = data.decode(errors="replace")
            return _split(text), text.count("\ufffd") - data.count("\ufffd".encode())

    def _read_text(self, data: bytes, name: str, offset: int) -> Block:
        lines, replaced = self._decode(data)
        documents = [line for line in lines if line is not None]
        rejected = [(i, "invalid_utf8") for i, line in enumerate(lines) if line is None]
        return Block(documents, _locate(rejected, data, name, offset), replaced, 0)

    def _read_jsonl(self, data: bytes, name: str, offset: int) -> Block:
        lines, replaced = self._decode(data)
        documents: list[str] = []
        rejected: list[tuple[int, str]] = []
        for index, line in enumerate(lines):
            if line is None:
                rejected.append((index, "invalid_utf8"))
            elif line and not line.isspace():
                text, reason = self._parse_json(line)
                if reason:
                    rejected.append((index, reason))
                    continue
                # Decoded UTF-8 holds no surrogate; only an escape brings one in.
                if "\\" in line:
                    text, count = _SURROGATE.subn("\ufffd", text)
                    replaced += count
                documents.append(text)
        return Block(documents, _locate(rejected, data, name, offset), replaced, 0)

    def _parse_json(self, line: str) -> tuple[str, str]:
        """The document's text and no reason, or the reason for its rejection."""
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return "", "invalid_json"
        if not isinstance(record, dict) or self._source.text_field not in record:
            return "", "missing_text_field"
        text = record[self._source.text_field]
        return (text, "") if isinstance(text, str) else ("", "text_not_a_string")

    def _read_python(self, data: bytes, name: str) -> Block:
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = data.decode(encoding)
        except (SyntaxError, UnicodeDecodeError):
            return Block([], [_reject("invalid_utf8", data, name, 0)], 0, 0)
        return Block(installed_docs.paragraphs(text), [], 0, 0)


def _split(data: AnyStr) -> list[AnyStr]:
    """Lines without their ends; a newline at the very end ends the last line and begins none."""
    newline, crlf = ("\n", "\r\n") if isinstance(data, str) else (b"\n", b"\r\n")
    lines = data.replace(crlf, newline).split(newline)
    return lines[:-1] if not lines[-1] else lines


def _decode_strictly(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _locate(rejected: list[tuple[int, str]], data: bytes, name: str, offset: int) -> list[Rejected]:
    """Rejections of lines of ``data``, given by number, with their bytes and places."""
    if not rejected:
        return []
    lines = data.split(b"\n")
    starts = list(accumulate((len(line) + 1 for line in lines), initial=offset))
    return [_reject(reason, lines[i], name, starts[i]) for i, reason in rejected]


def _reject(reason: str, data: bytes, name: str, offset: int) -> Rejected:
    text = data[:EXCERPT_CHARACTERS].decode(errors="backslashreplace")
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return Rejected(reason, printable[:EXCERPT_CHARACTERS], f"{name}:{offset}")

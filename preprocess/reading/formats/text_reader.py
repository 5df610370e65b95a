"""Conversion of raw records to documents: text, JSON Lines and Python sources.

Lines are decoded and split a block at a time, because a Python call per line takes longer than
reading the line.
"""

import io
import json
import re
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.reading import installed_docs
from preprocess.reading.block import Block, Locations, Place, Rejected, excerpt, location
from preprocess.reading.encodings.decoding import blank_lines, decode, is_invalid, replace_invalid
from preprocess.reading.encodings.wrong import Stretches
from preprocess.reading.formats.fields import Fields, without_surrogates
from preprocess.reading.records import Oversized, Records, paragraph_spans

LINE_FEED = 0x0A
_Lost = tuple[int, str, str]
"""Line number, reason and id of a rejected line."""
_JOINED = "}\ufeff{"
_MARKS_AT_START = re.compile("^\ufeff+", re.MULTILINE)
"""Byte order marks at the start of a line, where files were joined that begin with one."""


@dataclass(frozen=True)
class TextReader:
    """Converts the records of one file to blocks of documents, whose ``raw_bytes`` are left at 0.

    Attributes:
        name: the file's name, for locations.
        encoding: encoding of the records, one for which `is_cuttable` is True.
        drop_invalid: reject records with invalid bytes; otherwise invalid bytes become U+FFFD.
        limit: largest bytes of a record; longer ones are rejected as "oversized".
        stretches: find the records with invalid bytes that are in another encoding. They raise an
            error, or are rejected as "wrong_encoding".
        place: what the offsets of the records count.
    """

    name: str
    encoding: str
    drop_invalid: bool
    limit: int
    stretches: Stretches
    place: Place = "byte"

    def read_oversized(self, record: Oversized) -> Block:
        """Return a block without documents that rejects the record."""
        return Block([], [self._reject("oversized", record.beginning, record.offset)], 0, 0)

    def read_lines(self, records: Records) -> Block:
        """Read one document per line; lines end with LF or CRLF."""
        offset, data = records
        lines, lost, replaced = self._lines(records)
        if not lost:
            return self._block(lines, [], replaced, partial(_line_starts, data, offset))
        without = {i for i, _, _ in lost}
        kept = [i for i in range(len(lines)) if i not in without]
        documents = [lines[i] for i in kept]
        starts = partial(_line_starts, data, offset, kept)
        return self._block(documents, self._locate(lost, records), replaced, starts)

    def read_paragraphs(self, records: Records) -> Block:
        """Read one document per paragraph, up to a blank line; its lines are joined by LF."""
        offset, data = records
        documents: list[str] = []
        rejected: list[Rejected] = []
        starts: list[int] = []
        replaced = 0
        for begin, end in paragraph_spans(data, blank_lines(self.encoding)):
            if end - begin > self.limit:
                rejected.append(self._reject("oversized", data[begin:end], offset + begin))
                continue
            text, reason, count = self._text(data[begin : end + 1], offset + begin)
            if reason:
                rejected.append(self._reject(reason, data[begin:end], offset + begin))
                continue
            documents.append(text)
            starts.append(offset + begin)
            replaced += count
        return self._block(documents, rejected, replaced, lambda: starts)

    def read_file(self, record: Records) -> Block:
        """Read a whole file as one document, with LF for CRLF and without the last line end."""
        offset, data = record
        text, reason, replaced = self._text(data, offset)
        if reason:
            return Block([], [self._reject(reason, data, offset)], 0, 0)
        return self._block([text], [], replaced, lambda: [offset])

    def read_jsonl(self, records: Records, fields: Fields) -> Block:
        """Read one document per line, a JSON object; blank lines are ignored."""
        offset, data = records
        lines, lost, replaced = self._lines(records)
        without = {i for i, _, _ in lost}
        documents: list[str] = []
        kept: list[int] = []
        ids: list[str] = []
        with_ids = fields.id_path is not None
        only = "" if fields.template else fields.paths[0]
        for index, line in enumerate(lines):
            if line and not line.isspace() and not (without and index in without):
                record, reason = _parse_object(line)
                if reason and _JOINED in line and (parts := _separated(records)) != records:
                    return self.read_jsonl(parts, fields)
                name = fields.id(record) if with_ids else ""
                text = record.get(only) if only else None
                if not isinstance(text, str):
                    text, why = fields.text(record)
                    if reason or why:
                        lost.append((index, reason or why, name))
                        continue
                # Decoded bytes contain no surrogates, but JSON escapes may.
                if "\\" in line:
                    text, count = without_surrogates(text)
                    replaced += count
                documents.append(text)
                kept.append(index)
                if with_ids:
                    ids.append(name)
        starts = partial(_line_starts, data, offset, kept)
        return self._block(documents, self._locate(lost, records), replaced, starts, ids)

    def read_python(self, record: Records) -> Block:
        """Read one document per paragraph of prose in a Python source, in its declared encoding."""
        offset, data = record
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = data.decode(encoding)
        except (SyntaxError, UnicodeDecodeError):
            return Block([], [self._reject("invalid_bytes", data, offset)], 0, 0)
        documents = installed_docs.paragraphs(text)
        # A paragraph may be assembled from parts of the source, so its location is the source.
        return self._block(documents, [], 0, lambda: [offset] * len(documents))

    def _lines(self, records: Records) -> tuple[list[str], list[_Lost], int]:
        """Return the decoded lines, those to reject and the number of replacements."""
        offset, data = records
        text, invalid = self._decode(data)
        lines = _split(text)
        if not invalid:
            return lines, [], 0
        lost: list[_Lost] = []
        replaced = 0
        sizes = [len(line) for line in data.split(b"\n")]
        starts = _line_starts(data, offset)
        for index, line in enumerate(lines):
            if is_invalid(line):
                lines[index], reason, count = self._repair(line, starts[index], sizes[index])
                replaced += count
                if reason:
                    lost.append((index, reason, ""))
        return lines, lost, replaced

    def _text(self, data: bytes, offset: int) -> tuple[str, str, int]:
        """Return ``data`` as one text, the reason to reject it and the number of replacements."""
        text, invalid = self._decode(data)
        reason, replaced = "", 0
        if invalid:
            text, reason, replaced = self._repair(text, offset, len(data))
        return text.replace("\r\n", "\n").removesuffix("\n"), reason, replaced

    def _decode(self, data: bytes) -> tuple[str, bool]:
        """Decode lines as `decode` does, without byte order marks at their starts."""
        text, invalid = decode(data, self.encoding)
        if "\ufeff" in text:
            text = _MARKS_AT_START.sub("", text)
        return text, invalid

    def _repair(self, text: str, offset: int, size: int) -> tuple[str, str, int]:
        """Return a record with U+FFFD for invalid bytes, as `_text` does."""
        if self.stretches.is_wrong(offset, size):
            return text, "wrong_encoding", 0
        if self.drop_invalid:
            return text, "invalid_bytes", 0
        text, replaced = replace_invalid(text)
        return text, "", replaced

    def _block(
        self,
        documents: list[str],
        rejected: list[Rejected],
        replaced: int,
        find_offsets: Callable[[], npt.ArrayLike],
        ids: Sequence[str] = (),
    ) -> Block:
        locations = Locations(self.name, self.place, find_offsets, ids)
        return Block(documents, rejected, replaced, 0, ((0, locations),))

    def _locate(self, lost: Sequence[_Lost], records: Records) -> list[Rejected]:
        """Return the rejections of lines, each given as (line number, reason, id)."""
        if not lost:
            return []
        lines = records.data.split(b"\n")
        starts = _line_starts(records.data, records.offset)
        return [self._reject(reason, lines[i], int(starts[i]), name) for i, reason, name in lost]

    def _reject(self, reason: str, data: bytes, offset: int, name: str = "") -> Rejected:
        return Rejected(
            reason, excerpt(data, self.encoding), location(f"{self.name}:", offset, name)
        )


def _parse_object(line: str) -> tuple[dict[str, Any], str]:
    """Return the JSON object of a line, or an empty one, and "invalid_json" or an empty string."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}, "invalid_json"
    return (record, "") if isinstance(record, dict) else ({}, "")


def _separated(records: Records) -> Records:
    """Replace a byte order mark between two objects of a line by a line end and spaces.

    It is there if files were joined and the first has no line end. The length stays the same.
    """
    lines = records.data.split(b"\n")
    joined = _JOINED.encode()
    for number, line in enumerate(lines):
        # The same characters may be in a text.
        if joined in line and _parse_object(line.decode("utf-8", "replace").lstrip("\ufeff"))[1]:
            lines[number] = line.replace(joined, b"}\n  {")
    return Records(records.offset, b"\n".join(lines))


def _split(text: str) -> list[str]:
    """Split into lines without their ends; no empty line follows a final line end."""
    lines = text.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _line_starts(
    data: bytes, offset: int, kept: Sequence[int] | None = None
) -> npt.NDArray[np.int64]:
    """Return the byte offset of each line, or of the lines with the indexes ``kept``."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == LINE_FEED)
    starts = np.concatenate([np.zeros(1, np.int64), ends + 1]) + offset
    return starts if kept is None else starts[np.asarray(kept, np.intp)]

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
from preprocess.reading.encodings import blank_lines, decode, is_invalid, replace_invalid
from preprocess.reading.records import Oversized, Records, paragraph_spans

LINE_FEED = 0x0A
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class TextReader:
    """Converts the records of one file to blocks of documents, whose ``raw_bytes`` are left at 0.

    Attributes:
        name: the file's name, for locations.
        encoding: encoding of the records, one for which `is_cuttable` is True.
        drop_invalid: reject records with invalid bytes; otherwise invalid bytes become U+FFFD.
        limit: largest bytes of a record; longer ones are rejected as "oversized".
        place: what the offsets of the records count.
    """

    name: str
    encoding: str
    drop_invalid: bool
    limit: int
    place: Place = "byte"

    def read_oversized(self, record: Oversized) -> Block:
        """Return a block without documents that rejects the record."""
        return Block([], [self._reject("oversized", record.beginning, record.offset)], 0, 0)

    def read_lines(self, records: Records) -> Block:
        """Read one document per line; lines end with LF or CRLF."""
        offset, data = records
        lines, replaced = self._lines(data)
        documents = [line for line in lines if line is not None]
        if len(documents) == len(lines):
            return self._block(documents, [], replaced, partial(_line_starts, data, offset))
        kept = [i for i, line in enumerate(lines) if line is not None]
        lost = [(i, "invalid_bytes", "") for i, line in enumerate(lines) if line is None]
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
            text, count = self._text(data[begin : end + 1])
            if text is None:
                rejected.append(self._reject("invalid_bytes", data[begin:end], offset + begin))
                continue
            documents.append(text)
            starts.append(offset + begin)
            replaced += count
        return self._block(documents, rejected, replaced, lambda: starts)

    def read_file(self, record: Records) -> Block:
        """Read a whole file as one document, with LF for CRLF and without the last line end."""
        offset, data = record
        text, replaced = self._text(data)
        if text is None:
            return Block([], [self._reject("invalid_bytes", data, offset)], 0, 0)
        return self._block([text], [], replaced, lambda: [offset])

    def read_jsonl(self, records: Records, text_field: str, id_field: str | None) -> Block:
        """Read one document per line, a JSON object; blank lines are ignored."""
        offset, data = records
        lines, replaced = self._lines(data)
        documents: list[str] = []
        kept: list[int] = []
        ids: list[str] = []
        lost: list[tuple[int, str, str]] = []
        for index, line in enumerate(lines):
            if line is None:
                lost.append((index, "invalid_bytes", ""))
            elif line and not line.isspace():
                record, reason = _parse_object(line)
                name = "" if id_field is None else str(record.get(id_field, ""))
                text = record.get(text_field)
                if not isinstance(text, str):
                    missing = text is None and text_field not in record
                    reason = reason or ("missing_text_field" if missing else "text_not_a_string")
                    lost.append((index, reason, name))
                    continue
                # Decoded bytes contain no surrogates, but JSON escapes may.
                if "\\" in line:
                    text, count = _SURROGATE.subn("\ufffd", text)
                    replaced += count
                documents.append(text)
                kept.append(index)
                if id_field is not None:
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

    def _lines(self, data: bytes) -> tuple[Sequence[str | None], int]:
        """Return the decoded lines, None for each to reject, and the number of replacements."""
        text, invalid, replaced = self._decode(data)
        lines = _split(text)
        return [
            None if is_invalid(line) else line for line in lines
        ] if invalid else lines, replaced

    def _text(self, data: bytes) -> tuple[str | None, int]:
        """Return ``data`` as one text, or None to reject it, and the number of replacements."""
        text, invalid, replaced = self._decode(data)
        return None if invalid else text.replace("\r\n", "\n").removesuffix("\n"), replaced

    def _decode(self, data: bytes) -> tuple[str, bool, int]:
        """Return the text, whether invalid bytes remain in it, and the number of replacements."""
        text, invalid = decode(data, self.encoding)
        if invalid and not self.drop_invalid:
            text, replaced = replace_invalid(text)
            return text, False, replaced
        return text, invalid, 0

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

    def _locate(self, lost: list[tuple[int, str, str]], records: Records) -> list[Rejected]:
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

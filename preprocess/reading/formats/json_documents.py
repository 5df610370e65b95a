"""Reading JSON documents: arrays, objects over several lines, and objects that hold an array."""

import json
from collections.abc import Iterable, Iterator

from preprocess.reading.block import Block
from preprocess.reading.byte_range import damaged_file
from preprocess.reading.encodings.decoding import decode, is_invalid
from preprocess.reading.formats.fields import Fields, is_of
from preprocess.reading.formats.json_values import CutJsonError, JsonRecord, split_json
from preprocess.reading.formats.record_blocks import Record, as_utf8, blocks_of
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream


def read_json(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of JSON documents; see `json_records`."""
    chunks, place = as_utf8(stream)
    limit = options.limits.max_document_bytes
    records = json_records(chunks, stream.path, Fields.of(options.source), limit)
    return blocks_of(records, stream, options, place)


def json_records(
    chunks: Iterable[bytes], path: str, fields: Fields, limit: int
) -> Iterator[Record]:
    """Yield the records of JSON documents, numbered by their byte offsets.

    Args:
        chunks: the documents, in UTF-8.
        path: the file, for error messages.
        fields: the fields of the text. A string in an array is a text itself.
        limit: largest bytes of a record.

    Raises:
        DamagedFile: the file ends inside a value.
    """

    def is_record(key: str) -> bool:
        return any(is_of(path, key) for path in fields.paths)

    try:
        for record in split_json(chunks, limit, is_record):
            yield _record(record, fields)
    except CutJsonError as error:
        raise damaged_file(
            path, f"ends inside a JSON value that begins at byte {error.args[0]:,}"
        ) from error


def _record(found: JsonRecord, fields: Fields) -> Record:
    data, invalid = decode(found.data, "utf-8")
    if found.reason:
        return Record(found.offset, data, "", found.reason)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return Record(found.offset, data, "", "invalid_json")
    text, reason = (value, "") if isinstance(value, str) else fields.text(value)
    key = fields.id(value)
    if invalid and is_invalid(key):
        key = key.encode("utf-8", "replace").decode()
    return Record(found.offset, data if reason else text, key, reason)

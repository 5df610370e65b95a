"""Reading documents from a text column of Parquet files, in batches of rows.

A row group belongs to the range that contains its first byte. Memory is bounded by one batch and
one page of each column read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from preprocess.errors import UserError, one_line
from preprocess.reading.block import Block, Locations, Rejected, excerpt, location, place_prefix
from preprocess.reading.byte_range import damaged_file, unreadable_file
from preprocess.reading.encodings.decoding import decode, replace_invalid
from preprocess.reading.kinds.columns import check_columns, column_of
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream

_READ_BYTES = 1 << 20
_MOST_ROWS = 65_536


def read_parquet(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of the row groups that start in a range; the stream needs a file.

    The text column may contain strings or UTF-8 bytes, plain or dictionary-encoded, or only nulls. It
    may be a field of a struct, named with dots.

    Raises:
        DamagedFile: the file is not valid Parquet, or has no such column of texts.
        UserError: pyarrow is not installed.
    """
    source, path = options.source, stream.path
    assert stream.file, "Parquet needs random access"
    columns = [source.text_field] + ([source.id_field] if source.id_field else [])
    with open_parquet(stream.file, path) as (pyarrow, table):
        check_columns(pyarrow, table.schema_arrow, path, source.text_field, source.id_field)
        row = 0
        for number in range(table.num_row_groups):
            group = table.metadata.row_group(number)
            if group.num_rows and _starts_in(stream, group):
                batch_row = row
                rows = _batch_rows(group, source.text_field, options.block_bytes)
                for batch in table.iter_batches(rows, [number], columns, use_threads=False):
                    yield _read_batch(pyarrow, batch, batch_row, stream.name, options)
                    batch_row += batch.num_rows
            row += group.num_rows


@contextmanager
def open_parquet(file: BinaryIO, path: str) -> Iterator[tuple[Any, Any]]:
    """Yield the module pyarrow and the ``ParquetFile`` of an open file.

    Errors of pyarrow in the block, too, become `DamagedFile`.

    Args:
        file: the open file.
        path: its path, for messages.

    Raises:
        DamagedFile: the file is not valid Parquet, or is damaged.
        UserError: pyarrow is not installed.
    """
    pyarrow = _pyarrow(path)
    from pyarrow import parquet

    opened = False
    try:
        # With a buffer size, pyarrow reads a column page by page instead of whole.
        table = parquet.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False)
        opened = True
        yield pyarrow, table
    except (pyarrow.ArrowException, OSError) as error:
        # Arrow's own errors have no errno. Errors of the file itself are left to the caller.
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        if isinstance(error, OSError) and type(error) is not OSError:
            raise
        reason = str(error).splitlines()[0].rstrip(". ")
        problem = f"cannot be read as Parquet ({reason})"
        if opened:
            raise damaged_file(path, problem) from error
        remedy = "replace it with an intact copy"
        raise unreadable_file(path, problem, remedy, "damaged_file") from error


def _pyarrow(path: str) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(
            f"{one_line(path)}: reading Parquet needs pyarrow; pip install 'biloom[beam]'"
        ) from error
    return pyarrow


def _starts_in(stream: Stream, group: Any) -> bool:
    first = _first_byte(group)
    return stream.start <= first and (stream.end is None or first < stream.end)


def _first_byte(group: Any) -> int:
    """Return the byte offset of a row group."""
    offsets: list[int] = []
    for number in range(group.num_columns):
        column = group.column(number)
        offsets.append(column.data_page_offset)
        if column.has_dictionary_page:
            offsets.append(column.dictionary_page_offset)
    return min(offsets)


def _batch_rows(group: Any, column: str, block_bytes: int) -> int:
    """Return the number of rows with about ``block_bytes`` of text."""
    sizes = [
        group.column(number).total_uncompressed_size
        for number in range(group.num_columns)
        if group.column(number).path_in_schema == column
    ]
    rows: int = group.num_rows * block_bytes // max(1, sum(sizes))
    return max(1, min(_MOST_ROWS, rows))


def _read_batch(
    pyarrow: Any,
    batch: Any,
    first_row: int,
    name: str,
    options: ReadOptions,
) -> Block:
    source = options.source
    texts = column_of(batch, source.text_field)
    if pyarrow.types.is_dictionary(texts.type):
        texts = texts.dictionary_decode()
    # As bytes, because writers do not check that strings are valid UTF-8.
    values = texts.cast(pyarrow.large_binary()).to_pylist()
    ids: list[str] = []
    if source.id_field:
        names = column_of(batch, source.id_field).to_pylist()
        ids = ["" if name is None else str(name) for name in names]
    documents: list[str] = []
    rejected: list[Rejected] = []
    kept: list[int] = []
    prefix = place_prefix(name, "row")
    replaced = 0
    for index, value in enumerate(values):
        reason, text = "", ""
        if value is None:
            reason = "missing_text_field"
        elif len(value) > options.limits.max_document_bytes:
            reason = "oversized"
        else:
            text, invalid = decode(value, "utf-8")
            if invalid and options.drop_invalid:
                reason = "invalid_bytes"
            elif invalid:
                text, count = replace_invalid(text)
                replaced += count
        if reason:
            where = location(prefix, first_row + index, ids[index] if ids else "")
            rejected.append(Rejected(reason, excerpt(value or b""), where))
        else:
            documents.append(text)
            kept.append(index)
    rows = [first_row + index for index in kept]
    kept_ids = [ids[index] for index in kept] if ids else ()
    locations = Locations(name, "row", lambda: rows, kept_ids)
    return Block(documents, rejected, replaced, 0, ((0, locations),))

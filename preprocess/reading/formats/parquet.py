"""Reading documents from a text column of Parquet files, in batches of rows.

A row group belongs to the range that contains its first byte. Memory is bounded by one batch and
one page of each column read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from preprocess.reading.block import Block
from preprocess.reading.byte_range import damaged_file, unreadable_file
from preprocess.reading.formats.columns import Columns, batch_rows, import_pyarrow
from preprocess.reading.formats.fields import EACH, Fields, is_of
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream

_READ_BYTES = 1 << 20
_SMALL_GAP = 64 * 1024
_TAIL = 8
"""Bytes after the footer: its length and the magic number."""


def read_parquet(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of the row groups that start in a range; the stream needs a file.

    A text may be one column of strings or UTF-8 bytes, plain or dictionary-encoded, or only nulls; it
    may also be inside structs, lists and maps, or made of several columns (see `Columns`).

    Raises:
        DamagedFile: the file is not valid Parquet, or has no such column of texts.
        UserError: pyarrow is not installed.
    """
    assert stream.file, "Parquet needs random access"
    fields = Fields.of(options.source)
    with open_parquet(stream.file, stream.path) as (pyarrow, table):
        columns = Columns.find(pyarrow, table.schema_arrow, stream.path, fields)
        leaves = needed_leaves(table.metadata, fields.all_paths, columns.roots)
        row = 0
        for number in range(table.num_row_groups):
            group = table.metadata.row_group(number)
            if group.num_rows and _starts_in(stream, group):
                batch_row = row
                rows = batch_rows(group.num_rows, _bytes(group, leaves), options.block_bytes)
                for batch in table.iter_batches(rows, [number], leaves, use_threads=False):
                    yield columns.read(batch, batch_row, stream.name, options)
                    batch_row += batch.num_rows
            row += group.num_rows


def needed_parts(stream: Stream, options: ReadOptions) -> list[tuple[int, int]]:
    """Return the (start, end) of the bytes that `read_parquet` needs, in order.

    These are the footer, and the needed columns of the row groups that start in the range. Small gaps
    are included, because a request costs more than they do.

    Raises:
        DamagedFile: as `read_parquet`.
        UserError: pyarrow is not installed.
    """
    assert stream.file, "Parquet needs random access"
    assert stream.size is not None, "the size of a file on storage is known"
    fields = Fields.of(options.source)
    with open_parquet(stream.file, stream.path) as (pyarrow, table):
        columns = Columns.find(pyarrow, table.schema_arrow, stream.path, fields)
        leaves = needed_leaves(table.metadata, fields.all_paths, columns.roots)
        parts = [(stream.size - _TAIL - table.metadata.serialized_size, stream.size)]
        for number in range(table.num_row_groups):
            group = table.metadata.row_group(number)
            if group.num_rows and _starts_in(stream, group):
                chunks = (group.column(i) for i in range(group.num_columns))
                parts += [_bytes_of(chunk) for chunk in chunks if chunk.path_in_schema in leaves]
    joined: list[tuple[int, int]] = []
    for start, end in sorted(parts):
        if joined and start - joined[-1][1] <= _SMALL_GAP:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _bytes_of(chunk: Any) -> tuple[int, int]:
    """Return the start and the end of a column in a row group."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page:
        start = min(start, chunk.dictionary_page_offset)
    return start, start + chunk.total_compressed_size


def needed_leaves(metadata: Any, paths: Sequence[str], roots: Sequence[str]) -> list[str]:
    """Return the columns of a Parquet file, as its schema names them, that some fields need.

    Args:
        metadata: metadata of the file.
        paths: paths of the fields.
        roots: names of the top-level columns that have the fields.

    Returns:
        Names such as ``messages.list.element.content``. If that of a field is not clear, all columns
        below its top-level column.
    """
    group = metadata.schema
    every = [group.column(number).path for number in range(len(group))]
    chosen: dict[str, None] = {}
    for path in paths:
        below = [
            leaf
            for leaf in every
            if any(leaf == root or leaf.startswith(f"{root}.") for root in roots)
        ]
        # Lists have groups of their own, whose names depend on the writer.
        wanted = path.replace(EACH, "").split(".")
        exact = [leaf for leaf in below if [*_named(leaf.split("."))][: len(wanted)] == wanted]
        root = next(root for root in roots if is_of(path, root))
        chosen.update(dict.fromkeys(exact or [leaf for leaf in below if is_of(leaf, root)]))
    return list(chosen)


def _named(parts: Sequence[str]) -> Iterator[str]:
    """Yield the parts of the name of a column that are not the groups of a list."""
    at = 0
    while at < len(parts):
        if tuple(parts[at : at + 2]) in _LIST_GROUPS:
            at += 2
        else:
            yield parts[at]
            at += 1


_LIST_GROUPS = (("list", "element"), ("list", "item"), ("bag", "array_element"), ("bag", "array"))


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
    pyarrow = import_pyarrow(path)
    from pyarrow import parquet

    with arrow_errors(pyarrow, path, "Parquet") as opened:
        # With a buffer size, pyarrow reads a column page by page instead of whole.
        table = parquet.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False)
        opened.append(True)
        yield pyarrow, table


@contextmanager
def arrow_errors(pyarrow: Any, path: str, what: str) -> Iterator[list[bool]]:
    """Convert errors of pyarrow to `DamagedFile`.

    Yields:
        A list, to which the caller appends when the file is open: from then on, a part of it may
        have been read.
    """
    opened: list[bool] = []
    try:
        yield opened
    except (pyarrow.ArrowException, OSError) as error:
        # Arrow's own errors have no errno. Errors of the file itself are left to the caller.
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
            raise
        if isinstance(error, OSError) and type(error) is not OSError:
            raise
        reason = str(error).splitlines()[0].rstrip(". ")
        problem = f"cannot be read as {what} ({reason})"
        if opened:
            raise damaged_file(path, problem) from error
        remedy = "replace it with an intact copy"
        raise unreadable_file(path, problem, remedy, "damaged_file") from error


def _starts_in(stream: Stream, group: Any) -> bool:
    first = _first_byte(group)
    return stream.start <= first and (stream.end is None or first < stream.end)


def _first_byte(group: Any) -> int:
    """Return the byte offset of a row group."""
    return min(_bytes_of(group.column(number))[0] for number in range(group.num_columns))


def _bytes(group: Any, leaves: Sequence[str]) -> int:
    """Return the uncompressed bytes of some columns of a row group."""
    columns = (group.column(number) for number in range(group.num_columns))
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema in leaves)

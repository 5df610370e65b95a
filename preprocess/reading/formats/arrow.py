"""Reading documents from columns of Arrow files, Arrow streams and Feather files (versions 1 and 2).

Memory is bounded by one batch of the file; a file of Feather version 1 is read whole.
"""

import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

from preprocess.reading.block import Block
from preprocess.reading.formats.arrow_values import with_bytes
from preprocess.reading.formats.columns import Columns, batch_rows, import_pyarrow
from preprocess.reading.formats.fields import Fields
from preprocess.reading.formats.parquet import arrow_errors
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream

_FILE, _OLD_FEATHER = b"ARROW1", b"FEA1"


def read_arrow(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the documents of a file, a row each; the stream needs a file.

    The text may be in any column that `Columns` finds.

    Raises:
        DamagedFile: the file is not valid, or has no such column of texts.
        UserError: pyarrow is not installed.
    """
    assert stream.file, "Arrow needs random access"
    stream.file.seek(0)
    pyarrow = import_pyarrow(stream.path)
    row = 0
    with arrow_errors(pyarrow, stream.path, "Arrow") as opened:
        schema = _schema(pyarrow, stream.file, stream.head)
        columns = Columns.find(pyarrow, schema, stream.path, Fields.of(options.source))
        opened.append(True)
        for batch in _batches(pyarrow, stream.file, stream.head, schema, columns):
            for column in batch.columns:
                # Unlike strings, offsets that do not fit would crash the process.
                column.cast(with_bytes(pyarrow, column.type)).validate(full=True)
            rows = batch_rows(batch.num_rows, batch.nbytes, options.block_bytes)
            for begin in range(0, batch.num_rows, rows):
                part = batch.slice(begin, rows)
                yield columns.read(part, row, stream.name, options)
                row += part.num_rows


def _schema(pyarrow: Any, file: BinaryIO, head: bytes) -> Any:
    file.seek(0)
    if head.startswith(_OLD_FEATHER):
        return _old_feather(file, None).schema
    ipc = pyarrow.ipc
    return (ipc.open_file if head.startswith(_FILE) else ipc.open_stream)(file).schema


def _batches(
    pyarrow: Any, file: BinaryIO, head: bytes, schema: Any, columns: Columns
) -> Iterator[Any]:
    """Yield the batches of a file with the needed columns."""
    file.seek(0)
    if head.startswith(_OLD_FEATHER):
        yield from _old_feather(file, list(columns.roots)).to_batches()
        return
    needed = [schema.get_field_index(name) for name in columns.roots]
    ipc = pyarrow.ipc
    settings = ipc.IpcReadOptions(use_threads=False, included_fields=needed)
    if head.startswith(_FILE):
        opened = ipc.open_file(file, options=settings)
        for number in range(opened.num_record_batches):
            yield opened.get_batch(number)
    else:
        yield from ipc.open_stream(file, options=settings)


def _old_feather(file: BinaryIO, columns: list[str] | None) -> Any:
    from pyarrow import feather

    with warnings.catch_warnings():
        # Newer versions of pyarrow warn that they will stop to read this.
        warnings.simplefilter("ignore", DeprecationWarning)
        return feather.read_table(file, columns=columns, use_threads=False)

"""Reading the prose of Python sources, one document per paragraph."""

from collections.abc import Iterator

from preprocess.reading.block import Block
from preprocess.reading.formats.text import text_reader
from preprocess.reading.options import ReadOptions
from preprocess.reading.records import Oversized, whole_file
from preprocess.reading.stream import Stream


def read_docstrings(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the paragraphs of a Python source; see `preprocess.reading.formats.table`."""
    reader = text_reader(stream, options)
    for record in whole_file(stream.chunks, options.limits.max_document_bytes):
        if isinstance(record, Oversized):
            yield reader.read_oversized(record)
        else:
            yield reader.read_python(record)

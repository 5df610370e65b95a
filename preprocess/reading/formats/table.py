"""The reader of each format.

To add a format, add its name to `preprocess.reading.formats.detection.Format`, its detection to that
module (or to `preprocess.reading.kinds`), and its reader to `READERS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from preprocess.reading.block import Block
from preprocess.reading.formats.arrow import read_arrow
from preprocess.reading.formats.conllu import read_conllu
from preprocess.reading.formats.csv_tables import read_csv
from preprocess.reading.formats.detection import Format
from preprocess.reading.formats.docstrings import read_docstrings
from preprocess.reading.formats.json_documents import read_json
from preprocess.reading.formats.parquet import needed_parts, read_parquet
from preprocess.reading.formats.text import read_jsonl, read_text
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream
from preprocess.reading.web.pages import read_html
from preprocess.reading.web.warc import read_warc
from preprocess.reading.web.wiki_dump import read_wiki


class FormatReader(NamedTuple):
    """How a format is read.

    Attributes:
        read: function of a stream of uncompressed bytes and the settings. It yields the documents in
            blocks whose ``raw_bytes`` are 0, each with its locations (`Block.locations`), and one
            `Rejected` for each record that is no document. It raises
            `byte_range.damaged_file` if the stream cannot be read to its end, and
            `byte_range.unreadable_file` if nothing in it can be read. Its memory must be bounded by
            ``options.block_bytes`` and one document of ``options.limits.max_document_bytes``.
            It may stop before the end of the stream.
        needs: what the stream must offer, beyond ``head`` and ``chunks``. "bytes": nothing. "text":
            ``encoding`` is known, and is UTF-8 or another one in which the byte 0A ends a line.
            "file": ``file`` is set, for random access. A file that is compressed or in an archive is
            then read in memory, and refused if it is large.
        is_cut: whether the stream may be a range of a file. The reader then yields the records that
            start in ``[stream.start, stream.end)``. Otherwise the stream is whole. Planning cuts no
            file of such a format if it knows the format by name (`detection.is_never_cut`); if a file
            was cut, its first range is read as the whole file.
        find_parts: for a format that needs a file, returns the (start, end) of the bytes that ``read``
            needs of an uncompressed file; only these are hashed. None: all bytes of the range.
    """

    read: Callable[[Stream, ReadOptions], Iterator[Block]]
    needs: Literal["bytes", "text", "file"]
    is_cut: bool
    find_parts: Callable[[Stream, ReadOptions], Sequence[tuple[int, int]]] | None = None


READERS: Mapping[Format, FormatReader] = {
    "text": FormatReader(read_text, "text", is_cut=True),
    "jsonl": FormatReader(read_jsonl, "text", is_cut=True),
    "parquet": FormatReader(read_parquet, "file", is_cut=True, find_parts=needed_parts),
    "arrow": FormatReader(read_arrow, "file", is_cut=False),
    "json": FormatReader(read_json, "text", is_cut=False),
    "csv": FormatReader(read_csv, "text", is_cut=False),
    "html": FormatReader(read_html, "bytes", is_cut=False),
    "warc": FormatReader(read_warc, "bytes", is_cut=False),
    "wiki": FormatReader(read_wiki, "bytes", is_cut=False),
    "conllu": FormatReader(read_conllu, "text", is_cut=False),
    "docstrings": FormatReader(read_docstrings, "bytes", is_cut=False),
}

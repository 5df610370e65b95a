"""Detection of what a file contains, from its first bytes and its name."""

from collections.abc import Iterable
from dataclasses import dataclass

from preprocess.config import Source
from preprocess.reading.byte_range import HEAD_BYTES, NOT_TEXT, unreadable_file
from preprocess.reading.compression import find_compression
from preprocess.reading.encodings.decoding import AUTO, find_encoding
from preprocess.reading.formats.detection import (
    PARQUET_MAGIC,
    Format,
    ends_with,
    find_shape,
    is_never_empty,
)
from preprocess.reading.kinds.json_shape import is_document
from preprocess.reading.kinds.signatures import (
    COMPRESSED,
    CONLL,
    CSV,
    HTML,
    JSON,
    XML,
    Kind,
    find_kind,
)
from preprocess.reading.stream import Stream


@dataclass(frozen=True)
class Detector:
    """Finds the format of a file, and refuses what is not text.

    Nothing is refused if the user has set ``format: text``. All ranges of a file come to the same
    decision, because it depends on the start of the file only.

    Attributes:
        source: the file's source.
        stream: a range of the file, uncompressed.
        limit: maximum bytes of a line that are read to recognise JSON.
    """

    source: Source
    stream: Stream
    limit: int

    def check(self, file_format: Format | None) -> None:
        """Check the first bytes of a file.

        Args:
            file_format: its format as `find_format` returns it.

        Raises:
            UnreadableFile: the file is not text, or is empty although its format does not allow that.
        """
        stream, head = self.stream, self.stream.head
        if stream.size == 0 and is_never_empty(self.source, stream.name):
            problem = "this file is empty (0 bytes), which no intact file of its format is"
            raise unreadable_file(stream.path, problem, "copy it again", "damaged_file")
        # Of Python sources only the prose is read, whatever else is in the file.
        if self.source.format == "text" or file_format == "docstrings":
            return
        if file_format == "parquet" and head.startswith(PARQUET_MAGIC):
            return
        encoding = find_encoding(head, self.source.encoding)
        encoding = "utf-8" if encoding == AUTO else encoding
        if self.stream.packed and find_compression(head):
            self._refuse(COMPRESSED)
        if found := find_kind(head, encoding, stream.name):
            self._refuse(found)
        is_complete = len(head) < HEAD_BYTES
        if file_format == "jsonl" and is_document(head.decode(encoding, "ignore"), is_complete):
            self._refuse(JSON)
        if file_format is None and ends_with(stream.name, ".csv", ".tsv"):
            self._refuse(CSV)
        if file_format is None and ends_with(
            stream.name, ".conllu", ".conll", ".conllx", ".conllup"
        ):
            self._refuse(CONLL)
        # A fragment or simple markup begins like lines of text with tags, so the name decides.
        if (
            file_format is None
            and head.decode(encoding, "ignore").lstrip("\ufeff \t\r\n")[:1] == "<"
        ):
            for markup, endings in ((HTML, (".html", ".htm", ".xhtml")), (XML, (".xml",))):
                if ends_with(stream.name, *endings):
                    self._refuse(markup)

    def find(self, chunks: Iterable[bytes], encoding: str) -> Format:
        """Return the format of a file whose name does not determine it.

        Args:
            chunks: the file from its start, uncompressed; no more is read than necessary.
            encoding: its encoding, one for which `is_cuttable` is True.

        Raises:
            UnreadableFile: the file is JSON, but not JSON Lines.
        """
        strict = ends_with(self.stream.name, ".json")
        shape = find_shape(chunks, encoding, self.source.text_field, self.limit, strict)
        if shape == "document":
            self._refuse(JSON)
        return "jsonl" if shape else "text"

    def _refuse(self, kind: Kind) -> None:
        inside = " inside a compressed file" if self.stream.packed else ""
        remedy = kind.remedy
        if kind.readable:
            remedy += ", set format: text on its source to read its lines as text"
        problem = f"this is {kind.what}{inside}"
        raise unreadable_file(self.stream.path, problem, remedy, NOT_TEXT)

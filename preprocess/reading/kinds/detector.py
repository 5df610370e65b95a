"""Detection of what a file contains, from its first bytes and its name."""

import codecs
from collections.abc import Iterable
from dataclasses import dataclass

from preprocess.config import Source
from preprocess.reading.byte_range import HEAD_BYTES, NOT_TEXT, unreadable_file
from preprocess.reading.compression import find_compression
from preprocess.reading.encodings.decoding import AUTO, find_encoding
from preprocess.reading.formats.conllu import SENTENCE
from preprocess.reading.formats.detection import (
    CONLL_NAMES,
    NEVER_LINES,
    PAGES,
    SIGNED,
    TABLES,
    Format,
    ends_with,
    find_shape,
    format_by_name,
    is_never_empty,
)
from preprocess.reading.formats.fields import Fields
from preprocess.reading.kinds.json_shape import is_document
from preprocess.reading.kinds.signatures import (
    COMPRESSED,
    CONLL,
    HTML,
    JSON,
    XML,
    Kind,
    find_kind,
    is_utf8,
)
from preprocess.reading.stream import Stream

_SPACE = b" \t\r\n"


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

    def find(self) -> Format | None:
        """Return the format of a file from its first bytes and its name.

        Returns:
            None if the format depends on more than the first bytes, see `find_in_text`.

        Raises:
            UnreadableFile: the file is not text, or is empty although its format does not allow that.
        """
        source, stream, head = self.source, self.stream, self.stream.head
        if stream.size == 0 and is_never_empty(source, stream.name):
            problem = "this file is empty (0 bytes), which no intact file of its format is"
            raise unreadable_file(stream.path, problem, "copy it again", "damaged_file")
        by_name = format_by_name(source, stream.name)
        # Of Python sources only the prose is read, whatever else is in the file.
        if by_name in ("text", "docstrings"):
            return by_name
        encoding = find_encoding(head, source.encoding)
        encoding = "utf-8" if encoding == AUTO else encoding
        if stream.packed and find_compression(head):
            self._refuse(COMPRESSED)
        kind = find_kind(head, encoding, stream.name)
        if kind is None and by_name == "jsonl":
            # A name may be wrong, but a setting is meant.
            text = head.decode(encoding, "ignore")
            kind = JSON if is_document(text, len(head) < HEAD_BYTES) else None
        if kind is None and by_name is None:
            kind = self._markup(head.decode(encoding, "ignore"))
        if kind is None:
            # As text, the message would be about its encoding.
            if by_name is None and ends_with(stream.name, *SIGNED) and not is_utf8(head):
                self._refuse_wrong_name()
            return by_name
        if kind.format is None or source.format not in ("auto", kind.format):
            self._refuse(kind)
        return kind.format

    def _markup(self, text: str) -> Kind | None:
        """Return the kind of a fragment or of simple markup.

        It begins like lines of text with tags, so the name decides.
        """
        if text.lstrip("\ufeff \t\r\n")[:1] == "<":
            for markup, endings in ((HTML, PAGES), (XML, (".xml",))):
                if ends_with(self.stream.name, *endings):
                    return markup
        return None

    def find_in_text(self, chunks: Iterable[bytes], encoding: str) -> Format:
        """Return the format of a text for which `find` has returned None.

        Args:
            chunks: the file from its start, uncompressed; no more is read than necessary.
            encoding: its encoding, one for which `is_cuttable` is True.

        Raises:
            UnreadableFile: the file has columns of tokens, without their text; or its name says that it
                is of another format, which it is not.
        """
        name = self.stream.name
        path = Fields.of(self.source).paths[0]
        shape = find_shape(chunks, encoding, path, self.limit, ends_with(name, ".json"))
        if shape:
            return "json" if shape == "document" else "jsonl"
        if ends_with(name, *TABLES):
            return "csv"
        if ends_with(name, *CONLL_NAMES):
            if SENTENCE not in self.stream.head:
                self._refuse(CONLL)
            return "conllu"
        if ends_with(name, *NEVER_LINES):
            self._refuse_wrong_name()
        return "text"

    def _refuse_wrong_name(self) -> None:
        """Refuse a file whose name is that of a format which it is not, unless it is blank."""
        head = self.stream.head
        if head.strip(codecs.BOM_UTF8 + _SPACE):
            ending = next(one for one in NEVER_LINES if ends_with(self.stream.name, one))
            text = is_utf8(head)
            what = "text that is not" if text else "not"
            self._refuse(
                Kind(f"{what} {ending[1:]}, as its name says", "replace or rename it", text)
            )

    def _refuse(self, kind: Kind) -> None:
        inside = " inside a compressed file" if self.stream.packed else ""
        remedy = kind.remedy
        if kind.readable:
            remedy += ", set format: text on its source to read its lines as text"
        problem = f"this is {kind.what}{inside}"
        raise unreadable_file(self.stream.path, problem, remedy, NOT_TEXT)

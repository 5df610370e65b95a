"""Reading the XML dumps of wikis that MediaWiki makes: an article for each page.

The XML is parsed as a stream, so that a dump of any size is read in bounded memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from preprocess.reading.block import Block
from preprocess.reading.byte_range import damaged_file
from preprocess.reading.formats.record_blocks import Record, blocks_of
from preprocess.reading.options import ReadOptions
from preprocess.reading.stream import Stream
from preprocess.reading.web.pages import NO_MAIN_TEXT
from preprocess.reading.web.wikitext import HIDDEN, plain_text

_KEPT = ("title", "ns", "id", "text", "model", "namespace")
_ARTICLES = "0"
"""Number of the namespace of articles."""
_WITHOUT_TEXT = ("-2", "6", "14")
"""Numbers of the namespaces of files and categories, whose links show no text."""


def read_wiki(stream: Stream, options: ReadOptions) -> Iterator[Block]:
    """Yield the articles of a dump; see `wiki_records`."""
    limit = options.limits.max_document_bytes
    records = wiki_records(stream.chunks, stream.path, limit)
    return blocks_of(records, stream, options, stream.place)


def wiki_records(chunks: Iterable[bytes], path: str, limit: int) -> Iterator[Record]:
    """Yield the pages of a dump, numbered by their byte offsets, with their titles as ids.

    A document is the last revision of an article, without markup. Pages of other namespaces are
    rejected as "wiki_namespace", redirects as "wiki_redirect", and pages that are no wikitext, such as
    JSON, as "not_text"; those without text, such as templates only, as "no_main_text".

    Args:
        chunks: the dump, uncompressed.
        path: the file, for error messages.
        limit: largest bytes of a page's wikitext.

    Raises:
        DamagedFile: the dump is not valid XML, or ends inside a page.
    """
    pages = _Pages(limit)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.buffer_size = 1 << 16
    parser.StartElementHandler = lambda name, attributes: pages.start(
        name, attributes, parser.CurrentByteIndex
    )
    parser.EndElementHandler = pages.end
    parser.CharacterDataHandler = pages.characters
    # A dump has no entities of its own; they could expand without bound.
    parser.EntityDeclHandler = _refuse_entity
    try:
        for data in chunks:
            parser.Parse(data, False)
            yield from pages.take()
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError) as error:
        yield from pages.take()
        raise damaged_file(path, f"cannot be read as a dump of a wiki ({error})") from error
    yield from pages.take()


def _refuse_entity(*arguments: object) -> None:
    raise ValueError("it declares entities of its own")


@dataclass
class _Page:
    """The parts of a page that were read so far."""

    offset: int
    parts: dict[str, str] = field(default_factory=dict)
    is_redirect: bool = False
    is_long: bool = False


class _Pages:
    """Collects pages from the events of a parser."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._path: list[str] = []
        self._page: _Page | None = None
        self._pieces: list[str] = []
        self._size = 0
        self._done: list[Record] = []
        self._hidden = HIDDEN
        self._key = ""

    def take(self) -> list[Record]:
        """Return the pages that were read since the last call."""
        done, self._done = self._done, []
        return done

    def start(self, name: str, attributes: dict[str, str], offset: int) -> None:
        self._path.append(name)
        self._pieces, self._size = [], 0
        self._key = attributes.get("key", "")
        if name == "page":
            self._page = _Page(offset)
        elif self._page and name == "redirect":
            self._page.is_redirect = True
        elif self._page and name == "text":
            # Of several revisions, the last one counts.
            self._page.is_long = False

    def characters(self, data: str) -> None:
        if self._path and self._path[-1] in _KEPT:
            self._size += len(data.encode())
            if self._size <= self._limit:
                self._pieces.append(data)
            elif self._page and self._path[-1] == "text":
                self._page.is_long = True

    def end(self, name: str) -> None:
        self._path.pop()
        page = self._page
        if page and name in _KEPT and (name != "id" or self._path[-1] == "page"):
            page.parts[name] = "".join(self._pieces)
        elif page and name == "page":
            self._done.append(_record(page, self._hidden))
            self._page = None
        elif name == "namespace" and self._key in _WITHOUT_TEXT:
            self._hidden |= {"".join(self._pieces).lower()}
        self._pieces, self._size = [], 0


def _record(page: _Page, hidden: frozenset[str]) -> Record:
    title = page.parts.get("title", "")
    if page.parts.get("ns", _ARTICLES) != _ARTICLES:
        return Record(page.offset, title, title, "wiki_namespace")
    if page.is_redirect:
        return Record(page.offset, title, title, "wiki_redirect")
    if page.parts.get("model", "wikitext") != "wikitext":
        return Record(page.offset, title, title, "not_text")
    if page.is_long:
        return Record(page.offset, title, title, "oversized")
    wikitext = page.parts.get("text", "")
    text = plain_text(wikitext, hidden)
    if not text.strip():
        return Record(page.offset, wikitext or title, title, NO_MAIN_TEXT)
    return Record(page.offset, text, title)

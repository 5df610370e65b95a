"""`biloom trace`: where documents of a corpus come from, and what became of the documents of a file."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console as RichConsole

from pipeline.commands.inspection import folder_of
from pipeline.console import Console
from pipeline.lifecycle.inputs import tokenizer_folders
from pipeline.lifecycle.order import STAGE_ORDER
from pipeline.lifecycle.stage import CONFIG
from pipeline.log import tell
from preprocess.corpus.text_search import CorpusTexts
from preprocess.corpus.tracing import (
    CorpusOrigins,
    KnownDocument,
    RejectedLine,
    Table,
    Traced,
    TraceError,
)
from preprocess.files.manifest import ManifestError, read_manifest
from preprocess.files.verified import read_config
from preprocess.reading.block import escaped, shortened
from preprocess.shards.format import Corpus
from preprocess.shards.origins import ID_CHARACTERS, DocumentKey
from preprocess.text.config import SPLITS
from preprocess.tokenizers.load import Tokenizer, load_tokenizer

Rows = npt.NDArray[np.bool_]
TOKENIZER = STAGE_ORDER[0]


class Query(NamedTuple):
    """The documents to trace: one document, those of a file or with an id or text, or all duplicates.

    Attributes:
        shard: name of a shard or number of a unit, with ``number``.
        number: number of a document.
        file: name of a raw file.
        place: byte offset or row in ``file``.
        id: id of a document.
        text: text that a document contains.
        duplicates: True for all documents that were dropped as duplicates.
        source: name of a source, to which the documents are restricted.
        tokenizer: folder of the corpus's tokenizer; by default, the settings of the corpus name it.
    """

    shard: str | None = None
    number: int | None = None
    file: str | None = None
    place: int | None = None
    id: str | None = None
    text: str | None = None
    duplicates: bool = False
    source: str | None = None
    tokenizer: str | None = None


def trace(path: str, query: Query) -> int:
    """Print a line per document found, with columns separated by tabs; return 1 if there is none.

    The columns are: the document, as shard and number, or as unit and number if it was dropped; its
    split, or why it was dropped and the document of which it is a duplicate; its source; its location.
    If the query names a number or a text, the text of the document follows.

    Args:
        path: folder of the corpus.
        query: what to trace.

    Raises:
        ManifestError: there is no finished corpus.
        TraceError: the query is wrong, or origins were not recorded.
        UserError: a file of the corpus or of its tokenizer is damaged.
    """
    _check(query)
    return _Trace(path, query).run()


def _check(query: Query) -> None:
    by_file = query.file is not None or query.id is not None
    ways = (query.shard is not None, by_file, query.text is not None, query.duplicates)
    if sum(ways) != 1:
        raise TraceError(
            "name one of these: a shard and the number of a document, --file or --id, --text, "
            "--duplicates"
        )
    if query.shard is not None and query.number is None:
        raise TraceError(
            f"{query.shard}: also name the number of the document, as in `{query.shard} 17`"
        )
    if query.place is not None and query.file is None:
        raise TraceError("--place needs --file")


class _Trace:
    def __init__(self, path: str, query: Query) -> None:
        self._query = query
        self._corpus = Corpus.open(folder_of(path))
        self._details = self._corpus.manifest.details
        sources = [source["name"] for source in self._details["sources"]]
        if query.source is not None and query.source not in sources:
            raise TraceError(
                f"{self._corpus.folder} has no source '{query.source}'; it has {', '.join(sources)}"
            )
        self._origins = CorpusOrigins(self._corpus.folder, self._corpus.manifest)
        # On standard error, because other programs may read the lines.
        self._console = Console(RichConsole(stderr=True, highlight=False))

    def run(self) -> int:
        lines = 0
        for line in self._lines():
            print("\t".join(map(escaped, line)), flush=True)
            lines += 1
        if not lines:
            _note(f"{self._corpus.folder}: found no such document")
        return 0 if lines else 1

    def _lines(self) -> Iterator[list[str]]:
        query = self._query
        if query.shard is not None:
            assert query.number is not None
            document = self._origins.find(query.shard, query.number)
            tokenizer = self._tokenizer() if document.shard else None
            texts = CorpusTexts(self._corpus, tokenizer) if tokenizer else None
            shown = [texts.text(document.shard, document.number)] if texts else []
            yield self._line(document) + shown
            return
        if self._origins.untraced:
            _note(
                f"{len(self._origins.untraced):,} shards are not searched, because an earlier version "
                "of biloom read their documents; prepare the corpus again to search them"
            )
        if query.text is not None:
            yield from self._containing(query.text)
        elif query.duplicates:
            for table in self._origins.tables():
                for index in np.flatnonzero(self._dropped(table)).tolist():
                    yield self._line(self._origins.traced(table, index))
        else:
            yield from self._of_file()

    def _line(self, document: Traced) -> list[str]:
        became, fate = document.fate, document.fate
        if document.known:
            became += f" of {self._known(document.known)}"
        for number, earlier in enumerate(self._origins.chain(document)):
            became += (
                f" of {_named(earlier)}" if number == 0 else f", a {fate} of {_named(earlier)}"
            )
            fate = earlier.fate if isinstance(earlier, Traced) else ""
            if isinstance(earlier, Traced) and earlier.known:
                became += f", a {fate} of {self._known(earlier.known)}"
        return [_name(document), became, document.source, document.where]

    def _known(self, document: KnownDocument) -> str:
        """Return the name of a known document as `biloom trace` takes it, with the folder of its corpus."""
        # The origins do not depend on where the known corpora are; the config says it.
        names = self._known_folders
        known = document.corpus < len(names)
        name = names[document.corpus] if known else f"known corpus {document.content[:16]}"
        return f"{name} {document.key}"

    @cached_property
    def _known_folders(self) -> list[str]:
        folder, manifest = self._corpus.folder, self._corpus.manifest
        try:
            names = read_config(folder, manifest, CONFIG)["prepare"]["known"]
        except (FileNotFoundError, LookupError, TypeError):
            return []
        return [*dict.fromkeys([names] if isinstance(names, str) else names)]

    def _dropped(self, table: Table) -> Rows:
        return self._of_source(table) & (table.origins.fates >= len(SPLITS))

    def _of_source(self, table: Table) -> Rows:
        wanted = self._query.source in (None, table.origins.source)
        return np.full(len(table.origins), wanted)

    def _in_file(self, table: Table) -> Rows:
        """Return which documents come from the file and have the id of the query."""
        query, origins = self._query, table.origins
        rows = self._of_source(table)
        if query.file is not None:
            rows &= origins.rows_of(lambda name: query.file in (name, escaped(name)))
        if query.id is not None:
            rows &= np.array([name == query.id[:ID_CHARACTERS] for name in origins.ids] or [False])
        return rows

    def _of_file(self) -> Iterator[list[str]]:
        """Yield the lines of the documents of a file, or with an id, kept and dropped."""
        starts = None if self._query.place is None else self._starts(self._query.place)
        sources: dict[int, str] = {}

        def matches(table: Table) -> Rows:
            sources[table.unit] = table.origins.source
            rows = self._in_file(table)
            return rows if starts is None else rows & self._starts_at(table, starts)

        for document, _ in self._origins.search(matches):
            yield self._line(document)
        for line, place in self._rejected():
            source = sources.get(line.unit, "-")
            is_of_source = self._query.source in (None, source)
            if is_of_source and (starts is None or starts.get(source) == place):
                yield ["-", line.reason, source, line.where]

    def _starts(self, place: int) -> dict[str, int]:
        """Return, for each source, the largest start of a document that is at most ``place``."""
        starts: dict[str, int] = {}
        sources: dict[int, str] = {}
        for table in self._origins.tables():
            sources[table.unit] = source = table.origins.source
            before = table.origins.places[self._in_file(table) & (table.origins.places <= place)]
            if len(before):
                starts[source] = max(starts.get(source, 0), int(before.max()))
        for line, start in self._rejected():
            if start <= place:
                source = sources.get(line.unit, "-")
                starts[source] = max(starts.get(source, 0), start)
        for start in sorted({*starts.values()} - {place}):
            _note(f"no document starts at {place:,}; the last one before starts at {start:,}")
        return starts

    def _starts_at(self, table: Table, starts: dict[str, int]) -> Rows:
        rows: Rows = table.origins.places == starts.get(table.origins.source, -1)
        return rows

    def _rejected(self) -> Iterator[tuple[RejectedLine, int]]:
        """Yield the rejects that match the file and the id, and where they start."""
        query = self._query
        for line in self._origins.rejected():
            if query.id is not None and not line.where.endswith(f" id={shortened(query.id)}"):
                continue
            if query.file is None:
                yield line, 0
                continue
            shown = line._replace(where=escaped(line.where))
            places = (one.place_in(query.file) for one in (line, shown))
            place = next((place for place in places if place is not None), None)
            if place is not None:
                yield line, place

    def _containing(self, text: str) -> Iterator[list[str]]:
        """Yield the lines of the documents that contain ``text``, and of their duplicates."""
        tokenizer = self._tokenizer()
        if tokenizer is None:
            raise TraceError(
                f"{self._corpus.folder}: its tokenizer was not found; name its folder with --tokenizer"
            )
        texts = CorpusTexts(self._corpus, tokenizer)
        spellings, unknown = texts.spellings(text)
        if unknown:
            _note(
                f"{unknown:,} tokens of the text are not in the vocabulary; documents with other "
                "unknown tokens in their place are also found"
            )
        done = 0
        with self._console.bar("search", texts.tokens) as bar:

            def progress(tokens: int, shard: str) -> None:
                nonlocal done
                done += tokens
                bar.update(done, shard)

            def matches(table: Table) -> Rows:
                rows = self._of_source(table)
                places = self._origins.places
                return texts.containing(places, table, spellings, progress) if rows.any() else rows

            for document, matched in self._origins.search(matches):
                shown = [texts.text(document.shard, document.number)] if matched else []
                yield self._line(document) + shown

    def _tokenizer(self) -> Tokenizer | None:
        """Return the corpus's tokenizer, or None if it was not found and none was named.

        Raises:
            TraceError: the tokenizer that was named is another one.
        """
        for folder in self._tokenizer_folders():
            try:
                manifest = read_manifest(folder, TOKENIZER)
            except ManifestError:
                if folder == self._query.tokenizer:
                    raise
                continue
            if manifest.content == self._details["tokenizer"]:
                return load_tokenizer(folder)
            if folder == self._query.tokenizer:
                raise TraceError(f"{folder}: the corpus was prepared with another tokenizer")
        return None

    def _tokenizer_folders(self) -> Iterator[str]:
        if self._query.tokenizer is not None:
            yield self._query.tokenizer
            return
        yield from tokenizer_folders(self._corpus.folder)


def _name(document: Traced) -> str:
    """Return the document's name on the command line: a shard or a unit, and its number there."""
    return f"{document.shard} {document.number}" if document.shard else str(document.key)


def _named(document: Traced | DocumentKey) -> str:
    if isinstance(document, DocumentKey):
        return f"{document} (origin unknown)"
    return f"{_name(document)} ({document.source} {document.where})"


def _note(text: str) -> None:
    tell(text)

"""Search in the origins of a corpus, which say where documents come from and why they were dropped."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.corpus.rejects import PREFIX
from preprocess.corpus.shard_places import Segment, ShardPlaces
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import Manifest
from preprocess.files.verified import DamagedResult, damaged, read_rows, read_verified
from preprocess.shards import origins as files
from preprocess.shards.origins import FATES, KNOWN_FATES, DocumentKey, Origins
from preprocess.text.config import SPLITS

OPEN_TABLES = 256
"""Files of origins to hold in memory; a file with 100,000 documents takes 1 MB, plus its ids."""

_KNOWN_FATES = [FATES.index(fate) for fate in KNOWN_FATES]

_REJECTS = re.compile(rf"{PREFIX}(\d+)-\d+\.jsonl", re.ASCII)
_WHERE = re.compile(r":(?:row )?(\d+)(?: id=.*)?", re.ASCII)


class TraceError(UserError):
    """A document that cannot be traced."""


class Table(NamedTuple):
    """The origins of a segment: number of the unit, and of the segment in the unit."""

    unit: int
    segment: int
    origins: Origins

    @property
    def key(self) -> Segment:
        """The numbers of the segment."""
        return Segment(self.unit, self.segment)


class KnownDocument(NamedTuple):
    """A document of a known corpus.

    Attributes:
        corpus: index of the corpus in ``prepare.known``, without repeated ones.
        content: content hash of the corpus.
        key: the document there.
    """

    corpus: int
    content: str
    key: DocumentKey


@dataclass(frozen=True)
class Traced:
    """A document and what became of it.

    Attributes:
        key: its unit, and its number there.
        shard: name of its shard; empty if it was dropped.
        number: number of the document in its shard; 0 if it was dropped.
        fate: its split, or the reason why it was dropped.
        source: name of its source.
        file: name of its file.
        place: byte offset or row.
        where: its location, as in `Rejected.where`, followed by the unit of the offset if that is not
            a byte of the file itself.
        original: the earlier document that it repeats; None if it was not dropped, or for a known one.
        known: the document of a known corpus that it repeats; None if there is none.
    """

    key: DocumentKey
    shard: str
    number: int
    fate: str
    source: str
    file: str
    place: int
    where: str
    original: DocumentKey | None
    known: KnownDocument | None = None


class RejectedLine(NamedTuple):
    """A record or document that the first pass dropped, from the files of rejects.

    Attributes:
        unit: number of the unit.
        reason: why it was dropped.
        where: its location.
    """

    unit: int
    reason: str
    where: str

    def place_in(self, file: str) -> int | None:
        """Return the byte offset or row if the location is in the file with this name, else None.

        It is 0 for a whole file.
        """
        if self.where == file:
            return 0
        if self.where.startswith(file):
            match = _WHERE.fullmatch(self.where, len(file))
            return int(match[1]) if match else None
        return None


class CorpusOrigins:
    """Reader of the origins of a finished corpus.

    Args:
        folder: folder or URL of the corpus.
        manifest: its manifest.

    Attributes:
        untraced: names of the shards whose origins are unknown, because an earlier version of biloom
            began the corpus.

    Raises:
        TraceError: no origins were recorded.
    """

    def __init__(self, folder: str, manifest: Manifest) -> None:
        self._folder, self._manifest = folder, manifest
        self.places = ShardPlaces(manifest)
        self.untraced = self.places.untraced
        if not self.places.segments:
            raise TraceError(
                f"{folder}: the version of biloom that prepared it recorded no origins of documents; "
                "prepare it again to trace them"
            )
        self._numbers: dict[tuple[int, int], range] = {}
        self.read = lru_cache(OPEN_TABLES)(self._read)

    def tables(self) -> Iterator[Table]:
        """Yield the origins of all segments, in order."""
        for unit, segments in self.places.segments.items():
            for segment in segments:
                yield self.read(unit, segment)

    def _read(self, unit: int, segment: int) -> Table:
        name = f"{files.name_of(unit, segment)}.zst"
        path = storage.join(self._folder, name)
        try:
            data = read_verified(self._folder, self._manifest, name)
        except DamagedResult as error:
            raise TraceError(str(error)) from error
        origins = Origins.decode(data, path)
        self._check(unit, segment, origins, path)
        self._numbers[unit, segment] = range(origins.first, origins.first + len(origins))
        return Table(unit, segment, origins)

    def _check(self, unit: int, segment: int, origins: Origins, path: str) -> None:
        """Check that there are as many origins as the manifest has documents of the segment."""
        for split in SPLITS:
            documents = self.places.documents(Segment(unit, segment), split)
            if documents != len(origins.in_split(split)):
                reason = f"is damaged (other documents than in the {split} shard)"
                raise TraceError(str(damaged(path, reason, self._folder, self._manifest.stage)))

    def find(self, shard: str, number: int) -> Traced:
        """Return the document with this number in a shard, or in a unit.

        Args:
            shard: name of a shard, such as ``train-000012-003``, or number of a unit.
            number: number of the document, from 0 on.

        Raises:
            TraceError: there is no such document, or its origin is unknown.
        """
        if shard.isascii() and shard.isdigit():
            key = DocumentKey(int(shard), number)
            if document := self.of_key(key):
                return document
            raise TraceError(f"{self._folder}: unit {key.unit} has no document {number:,}")
        name = shard.removesuffix(".bin")
        if name in self.untraced:
            raise TraceError(
                f"{self._folder}: an earlier version of biloom read the documents of {name}, and "
                "recorded no origins; prepare the corpus again to trace them"
            )
        documents = self.places.documents_of(name)
        if documents is None:
            raise TraceError(
                f"{self._folder} has no shard '{shard}'; name one as `biloom inspect` shows it"
            )
        place = self.places.find(name, number)
        if place is None:
            raise TraceError(
                f"{self._folder}: {name} has no document {number:,}; it has {documents:,}, and the "
                "first one is 0"
            )
        segment, rank = place
        table = self.read(*segment)
        return self.traced(table, int(table.origins.in_split(name.partition("-")[0])[rank]))

    def of_key(self, key: DocumentKey) -> Traced | None:
        """Return the document with this key, or None if its origin is unknown."""
        for segment in self.places.segments.get(key.unit, []):
            # If the segment was read before, its numbers are known without reading it again.
            if key.number in self._numbers.get((key.unit, segment), [key.number]):
                table = self.read(key.unit, segment)
                if key.number in self._numbers[key.unit, segment]:
                    return self.traced(table, key.number - table.origins.first)
        return None

    def chain(self, document: Traced) -> list[Traced | DocumentKey]:
        """Return the earlier document of a duplicate, the earlier document of that one, and so on.

        Empty if ``document`` was not dropped. A document of unknown origin ends the list, as a key.
        """
        found: list[Traced | DocumentKey] = []
        while document.original:
            earlier = self.of_key(document.original)
            found.append(earlier or document.original)
            if not earlier:
                break
            document = earlier
        return found

    def traced(self, table: Table, index: int) -> Traced:
        """Return the document with this index in a segment."""
        origins = table.origins
        fate = int(origins.fates[index])
        is_kept = fate < len(SPLITS)
        shard, number = "", 0
        if is_kept:
            rank = int(origins.ranks[index])
            shard, number = self.places.place(table.key, FATES[fate], rank)
        is_known = FATES[fate] in KNOWN_FATES
        earlier = None if is_kept else origins.original_of(index)
        run = origins.file(index)
        note = "" if run.place in ("byte", "row", "line") else f" ({run.place})"
        return Traced(
            key=DocumentKey(table.unit, origins.first + index),
            shard=shard,
            number=number,
            fate=FATES[fate],
            source=origins.source,
            file=run.name,
            place=int(origins.places[index]),
            where=origins.where(index) + note,
            original=None if is_known else earlier,
            known=self._known(earlier) if earlier and is_known else None,
        )

    def _known(self, key: DocumentKey) -> KnownDocument:
        """Return the document of a known corpus, whose unit is counted over all known corpora."""
        unit = key.unit
        for index, corpus in enumerate(self._manifest.details.get("known", ())):
            if unit < corpus["units"]:
                return KnownDocument(index, corpus["content"], DocumentKey(unit, key.number))
            unit -= corpus["units"]
        raise TraceError(
            f"{self._folder}: a document was dropped for the unknown document {key}; prepare the corpus "
            "again with --overwrite"
        )

    def search(
        self, matches: Callable[[Table], npt.NDArray[np.bool_]]
    ) -> Iterator[tuple[Traced, bool]]:
        """Yield the documents that match, and the documents that were dropped as their duplicates.

        Duplicates of duplicates are included. Documents are in the order of units. The keys of all
        documents found are held in memory.

        Args:
            matches: returns which documents of a segment match, shape (documents,).

        Yields:
            The document, and True if it matches itself, False if it is a duplicate of one that does.
        """
        known: set[DocumentKey] = set()
        for table in self.tables():
            origins = table.origins
            matched = matches(table)
            found = set(np.flatnonzero(matched).tolist())
            known.update(DocumentKey(table.unit, origins.first + index) for index in found)
            if known:
                pairs = zip(origins.dropped.tolist(), origins.originals.tolist(), strict=True)
                of_known = np.isin(origins.fates[origins.dropped], _KNOWN_FATES).tolist()
                for (index, (unit, number)), is_known in zip(pairs, of_known, strict=True):
                    if not is_known and DocumentKey(unit, number) in known:
                        known.add(DocumentKey(table.unit, origins.first + index))
                        found.add(index)
            for index in sorted(found):
                yield self.traced(table, index), bool(matched[index])

    def rejected(self) -> Iterator[RejectedLine]:
        """Yield the records and documents that the first pass dropped and kept for inspection."""
        for file in self._manifest.files:
            # Duplicates are in other files, and also in the origins.
            if match := _REJECTS.fullmatch(file.name):
                for row in read_rows(self._folder, self._manifest, file.name):
                    reason, where = (str(row.get(key, "")) for key in ("reason", "where"))
                    yield RejectedLine(int(match[1]), reason, where)

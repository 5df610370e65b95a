"""Search in the origins of a corpus: where its documents come from, and what became of them."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.corpus.rejects import PREFIX
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import Manifest
from preprocess.shards import origins as files
from preprocess.shards.origins import FATES, DocumentKey, Origins
from preprocess.text.config import SPLITS

OPEN_TABLES = 64
"""Files of origins to hold in memory; one with 100,000 documents takes 2 MB."""

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-(\d+)-(\d+)", re.ASCII)
_REJECTS = re.compile(rf"{PREFIX}(\d+)-\d+\.jsonl", re.ASCII)
_WHERE = re.compile(r":(?:row )?(\d+)(?: id=.*)?", re.ASCII)


class TraceError(UserError):
    """A document that cannot be traced."""


class Table(NamedTuple):
    """The origins of a segment: number of the unit, and of the segment in the unit."""

    unit: int
    segment: int
    origins: Origins

    def shard(self, split: str) -> str:
        """Return the name of the segment's shard of a split."""
        return f"{split}-{self.unit:06d}-{self.segment:03d}"


@dataclass(frozen=True)
class Traced:
    """A document and what became of it.

    Attributes:
        key: its unit, and its number there.
        shard: name of its shard; empty if it was dropped.
        number: number of the document in its shard; 0 if it was dropped.
        fate: its split, or the reason for which it was dropped.
        source: name of its source.
        file: name of its file.
        place: byte offset or row.
        where: its location, as in `Rejected.where`, and what the offset counts if it does not count
            the bytes of the file itself.
        original: the earlier document for which it was dropped.
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
        untraced: names of the shards whose origins are unknown, because version 0.1 made them.

    Raises:
        TraceError: no origins were recorded.
    """

    def __init__(self, folder: str, manifest: Manifest) -> None:
        self._folder, self._manifest = folder, manifest
        names = {file.name for file in manifest.files}
        shards = [name.removesuffix(".bin") for name in names if name.endswith(".bin")]
        with_origins = [name for name in names if name.startswith(files.PREFIX)]
        self._segments: dict[int, list[int]] = {}
        for name in with_origins:
            unit, segment = map(int, name.removesuffix(".zst").split("-")[1:])
            self._segments.setdefault(unit, []).append(segment)
        self.untraced = sorted(
            name for name in shards if f"{files.PREFIX}{name.partition('-')[2]}.zst" not in names
        )
        if not with_origins:
            raise TraceError(
                f"{folder}: no origins of documents were recorded, because biloom "
                f"{manifest.biloom} prepared it; prepare it again to trace documents"
            )
        self.read = lru_cache(OPEN_TABLES)(self._read)

    def __len__(self) -> int:
        """Return the number of segments."""
        return sum(map(len, self._segments.values()))

    def tables(self, first: int = 0) -> Iterator[Table]:
        """Yield the origins of all segments in order, from the unit with the number ``first`` on."""
        for unit in sorted(self._segments):
            if unit >= first:
                for segment in sorted(self._segments[unit]):
                    yield self.read(unit, segment)

    def _read(self, unit: int, segment: int) -> Table:
        path = storage.join(self._folder, f"{files.name_of(unit, segment)}.zst")
        try:
            data = storage.read_bytes(path)
        except FileNotFoundError as error:
            message = f"{path} is missing; run `biloom check {self._folder}`"
            raise TraceError(message) from error
        return Table(unit, segment, Origins.decode(data, path))

    def find(self, shard: str, number: int) -> Traced:
        """Return the document with this number in a shard, or in a unit.

        Args:
            shard: name of a shard, such as ``train-000012-003``, or number of a unit.
            number: number of the document, from 0 on.

        Raises:
            TraceError: there is no such document, or its origin is unknown.
        """
        if shard.isascii() and shard.isdigit():
            return self.of_key(DocumentKey(int(shard), number))
        name = shard.removesuffix(".bin")
        match = _SHARD.fullmatch(name)
        if name in self.untraced:
            raise TraceError(
                f"{self._folder}: the origins of the documents of {name} are unknown, because version "
                "0.1 of biloom read them; prepare the corpus again to trace them"
            )
        if not match or f"{name}.bin" not in {file.name for file in self._manifest.files}:
            raise TraceError(
                f"{self._folder} has no shard '{shard}'; name one as `biloom inspect` shows it"
            )
        table = self.read(int(match[2]), int(match[3]))
        rows = table.origins.in_split(match[1])
        if not 0 <= number < len(rows):
            raise TraceError(
                f"{self._folder}: {name} has no document {number:,}; it has {len(rows):,}, and the "
                "first one is 0"
            )
        return self.traced(table, int(rows[number]))

    def of_key(self, key: DocumentKey) -> Traced:
        """Return the document with this key.

        Raises:
            TraceError: there is no such document, or its origin is unknown.
        """
        for segment in sorted(self._segments.get(key.unit, [])):
            table = self.read(key.unit, segment)
            index = key.number - table.origins.first
            if 0 <= index < len(table.origins):
                return self.traced(table, index)
        raise TraceError(f"{self._folder}: unit {key.unit} has no document {key.number:,}")

    def chain(self, document: Traced) -> list[Traced]:
        """Return the documents for which a document was dropped: the earlier one, and so on."""
        found: list[Traced] = []
        while document.original:
            document = self.of_key(document.original)
            found.append(document)
        return found

    def traced(self, table: Table, index: int) -> Traced:
        """Return the document with this index in a segment."""
        origins = table.origins
        fate = int(origins.fates[index])
        is_kept = fate < len(SPLITS)
        run = origins.file(index)
        note = "" if run.place in ("byte", "row") else f" ({run.place})"
        return Traced(
            key=DocumentKey(table.unit, origins.first + index),
            shard=table.shard(FATES[fate]) if is_kept else "",
            number=int(origins.ranks[index]) if is_kept else 0,
            fate=FATES[fate],
            source=origins.source,
            file=run.name,
            place=int(origins.places[index]),
            where=origins.where(index) + note,
            original=None if is_kept else origins.original_of(index),
        )

    def search(
        self, matches: Callable[[Table], npt.NDArray[np.bool_]], first: int = 0
    ) -> Iterator[tuple[Traced, bool]]:
        """Yield the documents that match, and the duplicates that were dropped for them.

        A duplicate of a duplicate is found, too. Documents are in the order of units.

        Args:
            matches: returns which documents of a segment match, shape (documents,).
            first: number of the first unit to search.

        Yields:
            The document, and True if it matches itself, False if it is a duplicate of one that does.
        """
        known: set[DocumentKey] = set()
        for table in self.tables(first):
            origins = table.origins
            matched = matches(table)
            found = set(np.flatnonzero(matched).tolist())
            known.update(DocumentKey(table.unit, origins.first + index) for index in found)
            if known:
                pairs = zip(origins.dropped.tolist(), origins.originals.tolist(), strict=True)
                for index, (unit, number) in pairs:
                    if DocumentKey(unit, number) in known:
                        known.add(DocumentKey(table.unit, origins.first + index))
                        found.add(index)
            for index in sorted(found):
                yield self.traced(table, index), bool(matched[index])

    def rejected(self) -> Iterator[RejectedLine]:
        """Yield the records and documents that the first pass dropped and kept for inspection."""
        for file in self._manifest.files:
            # The duplicates are in other files, and in the origins, too.
            if match := _REJECTS.fullmatch(file.name):
                data = storage.read_bytes(storage.join(self._folder, file.name))
                for row in map(json.loads, data.splitlines()):
                    yield RejectedLine(int(match[1]), row["reason"], row["where"])

"""Origins of the documents of a corpus: file, place and id of each, and why it was dropped if it was.

A segment of a unit (`preprocess.corpus.segment`) has one file, ``origins-000012-003.zst``, for all its
documents: those in the shards of its group of units (`preprocess.corpus.shard_places`), and those that
were dropped as duplicates. It is a Zstandard frame of a JSON line and columns of integers.
In a column, the lowest bytes of all integers come first, then their second bytes and so on, because
that compresses better. Documents are in the order of reading, which is also their order in the
shards of a split.

The manifest lists these files, but the ``content`` of a corpus does not depend on them. Raw files are
named by `FileInfo.name`, never by a path.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.reading.block import EXCERPT_CHARACTERS, Locations, Place, location, place_prefix
from preprocess.shards.frame import decode_frame, encode_frame
from preprocess.text.config import SPLITS

FORMAT = 2
"""Version of the file format. Files without documents of `KNOWN_FATES` are written as version 1."""

PREFIX = "origins-"
"""Prefix of the file names."""

KNOWN_FATES = ("known", "known_near_duplicate")
"""Reasons for which a document is dropped because a known corpus has it (`preprocess.corpus.known`). Its
earlier document is in that corpus, and the unit is counted over all known corpora."""

FATES = (*SPLITS, "duplicate", "near_duplicate", *KNOWN_FATES)
"""What became of a document: its split, or the reason why it was dropped. Arrays store the index in
this tuple."""

ID_CHARACTERS = EXCERPT_CHARACTERS
"""Maximum characters of an id; longer ids are truncated."""


class OriginsError(UserError):
    """A file of origins that is damaged or was written by a newer biloom."""


class FileRun(NamedTuple):
    """Consecutive documents of one file.

    Attributes:
        name: the file's name.
        place: what the numbers in ``Origins.places`` count.
        documents: number of the documents.
    """

    name: str
    place: Place
    documents: int


class DocumentKey(NamedTuple):
    """A document of a corpus: the number of its unit, and its number in the unit."""

    unit: int
    number: int

    def __str__(self) -> str:
        """Return the key as `biloom trace` takes it: ``000012 345``."""
        return f"{self.unit:06d} {self.number}"


@dataclass(frozen=True)
class Origins:
    """Origins of the documents of a segment.

    Attributes:
        source: name of the source.
        first: number in the unit of the first document; the others follow without gaps.
        files: the files, in the order of reading.
        places: byte offset or row of each document, int64, shape (documents,).
        ids: id of each document; empty if no document has an id.
        fates: index in `FATES` of what became of each document, uint8, shape (documents,).
        originals: unit and number of the earlier document for which a document was dropped, for each
            document that was dropped, uint32, shape (dropped, 2).
    """

    source: str
    first: int
    files: tuple[FileRun, ...]
    places: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    fates: npt.NDArray[np.uint8]
    originals: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.places)

    def in_split(self, split: str) -> npt.NDArray[np.intp]:
        """Return the indexes of the documents of the split's shard, in the order of the shard."""
        return np.flatnonzero(self.fates == FATES.index(split))

    @cached_property
    def ranks(self) -> npt.NDArray[np.int64]:
        """Number of each document among the documents of equal fate, int64, shape (documents,).

        For a document that was not dropped, this is its number in its shard.
        """
        ranks = np.empty(len(self), np.int64)
        for fate in range(len(FATES)):
            chosen = self.fates == fate
            ranks[chosen] = np.arange(np.count_nonzero(chosen))
        return ranks

    @cached_property
    def dropped(self) -> npt.NDArray[np.intp]:
        """Indexes of the dropped documents, in the order of ``originals``."""
        return np.flatnonzero(self.fates >= len(SPLITS))

    def drop(
        self, rows: npt.NDArray[np.bool_], reason: str, originals: npt.NDArray[np.uint32]
    ) -> "Origins":
        """Return the origins after more documents were dropped.

        Args:
            rows: True for each document to drop, shape (documents,); none is dropped already.
            reason: one of `FATES`, no split.
            originals: unit and number of the earlier document, shape (rows that are True, 2).
        """
        every = np.zeros((len(self), 2), np.uint32)
        every[self.dropped] = self.originals
        every[rows] = originals
        fates = self.fates.copy()
        fates[rows] = FATES.index(reason)
        return replace(self, fates=fates, originals=every[fates >= len(SPLITS)])

    def original_of(self, index: int) -> DocumentKey:
        """Return the earlier document for which the one with this index was dropped."""
        unit, number = self.originals[np.searchsorted(self.dropped, index)].tolist()
        return DocumentKey(unit, number)

    def file(self, index: int) -> FileRun:
        """Return the file of the document with this index."""
        return self.files[int(np.searchsorted(self._ends, index, "right"))]

    def rows_of(self, matches: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
        """Return which documents come from a file whose name matches, shape (documents,)."""
        counts = [run.documents for run in self.files]
        return np.repeat(np.array([matches(run.name) for run in self.files], bool), counts)

    def where(self, index: int) -> str:
        """Return where the document with this index is, as in `Rejected.where`."""
        run = self.file(index)
        name = self.ids[index] if self.ids else ""
        return location(place_prefix(run.name, run.place), int(self.places[index]), name)

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        """Index after the last document of each run of files."""
        return np.array([*accumulate(run.documents for run in self.files)], np.int64)

    def encode(self) -> bytes:
        """Return the content of a file."""
        head = {
            "format": FORMAT if self.fates.max(initial=0) >= FATES.index(KNOWN_FATES[0]) else 1,
            "source": self.source,
            "first": self.first,
            "documents": len(self),
            "dropped": len(self.originals),
            "ids": bool(self.ids),
            "files": self.files,
        }
        starts = np.zeros(len(self), bool)
        starts[[0, *self._ends[:-1]] if len(self) else []] = True
        before = np.concatenate([np.zeros(1, np.int64), self.places])[:-1]
        steps = self.places - np.where(starts, 0, before)
        columns = [
            _planes(steps.astype("<i8")),
            self.fates.tobytes(),
            _planes(self.originals[:, 0].astype("<u4")),
            _planes(self.originals[:, 1].astype("<u4")),
        ]
        if self.ids:
            names = [name.encode("utf-8", "surrogatepass") for name in self.ids]
            columns += [_planes(np.array([*map(len, names)], "<u4")), *names]
        return encode_frame(head, columns)

    @classmethod
    def decode(cls, data: bytes, path: str) -> "Origins":
        """Return the origins in the content of a file.

        Args:
            data: the content.
            path: path of the file, for messages.

        Raises:
            OriginsError: the content is damaged, or of a newer version of the format.
        """
        return decode_frame(data, path, FORMAT, OriginsError, cls._read)

    @classmethod
    def _read(cls, head: dict[str, Any], data: memoryview) -> "Origins":
        columns = _Columns(data)
        documents, dropped = head["documents"], head["dropped"]
        files = tuple(FileRun(name, place, number) for name, place, number in head["files"])
        sizes_of = [documents, dropped, *(run.documents for run in files)]
        if any(type(size) is not int or size < 0 for size in sizes_of):
            raise ValueError("its sizes are not whole numbers")
        steps = columns.integers(documents, "<i8")
        fates = np.frombuffer(columns.take(documents), np.uint8)
        keys = [columns.integers(dropped, "<u4") for _ in range(2)]
        originals = np.stack(keys, axis=1).astype(np.uint32)
        ids: tuple[str, ...] = ()
        if head["ids"]:
            sizes = columns.integers(documents, "<u4").tolist()
            ids = tuple(str(columns.take(size), "utf-8", "surrogatepass") for size in sizes)
        # Steps restart at each file, so sums are taken from the start of each file on.
        sums = np.cumsum(steps)
        counts = [run.documents for run in files]
        begins = np.array([0, *accumulate(counts)], np.intp)[:-1]
        before = np.concatenate([np.zeros(1, np.int64), sums])[begins]
        places = sums - np.repeat(before, counts)
        names = [head["source"], *(run.name for run in files), *(run.place for run in files)]
        if (
            np.count_nonzero(fates >= len(SPLITS)) != dropped
            or columns.left
            or fates.max(initial=0) >= len(FATES)
            or sum(counts) != documents
            or any(type(name) is not str for name in names)
            or not 0 <= head["first"] < 1 << 32
        ):
            raise ValueError("its columns do not fit together")
        return cls(head["source"], head["first"], files, places, ids, fates, originals)


class OriginsBuilder:
    """Collects the origins of the documents of a segment.

    Args:
        source: name of the source.
        first: number in the unit of the first document.
    """

    def __init__(self, source: str, first: int) -> None:
        self._source, self._first = source, first
        self._files: list[FileRun] = []
        self._places: list[npt.NDArray[np.int64]] = []
        self._ids: list[str] = []
        self._documents = 0

    def add(self, locations: Locations, indexes: npt.NDArray[np.intp]) -> None:
        """Add the documents of ``locations`` with these rising indexes."""
        if not len(indexes):
            return
        run = FileRun(locations.name, locations.place, len(indexes))
        if self._files and self._files[-1][:2] == run[:2]:
            run = run._replace(documents=self._files.pop().documents + len(indexes))
        self._files.append(run)
        self._places.append(locations.numbers[indexes])
        if locations.ids:
            self._ids += [""] * (self._documents - len(self._ids))
            self._ids += [locations.ids[index][:ID_CHARACTERS] for index in indexes]
        self._documents += len(indexes)

    def build(self, splits: npt.NDArray[np.uint8]) -> Origins:
        """Return the origins of the documents added, none of them dropped.

        Args:
            splits: index in `SPLITS` of each document's split, shape (documents,).
        """
        ids = (*self._ids, *[""] * (self._documents - len(self._ids))) if any(self._ids) else ()
        places = np.concatenate([np.empty(0, np.int64), *self._places])
        none = np.empty((0, 2), np.uint32)
        return Origins(self._source, self._first, tuple(self._files), places, ids, splits, none)


class _Columns:
    """Reads columns one after the other.

    Attributes:
        left: the bytes that were not read yet.
    """

    def __init__(self, data: memoryview) -> None:
        self.left = data

    def take(self, size: int) -> memoryview:
        if size > len(self.left):
            raise ValueError("it ends early")
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def integers(self, number: int, dtype: str) -> npt.NDArray[np.int64]:
        width = np.dtype(dtype).itemsize
        planes = np.frombuffer(self.take(number * width), np.uint8).reshape(width, number)
        values = np.ascontiguousarray(planes.T).view(dtype).reshape(number)
        return values.astype(np.int64)


def _planes(values: npt.NDArray[np.signedinteger | np.unsignedinteger]) -> bytes:
    """Return the integers as bytes: the lowest byte of each, then the second byte of each ..."""
    return values.view(np.uint8).reshape(len(values), values.dtype.itemsize).T.tobytes()


def name_of(unit: int, segment: int) -> str:
    """Return the name of the file with the origins of a segment, without ending."""
    return f"{PREFIX}{unit:06d}-{segment:03d}"

"""Blocks of documents as a reader yields them, with the records it rejected."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

EXCERPT_CHARACTERS = 1000
"""Maximum characters of `Rejected.excerpt`."""
EXCERPT_BYTES = 4 * EXCERPT_CHARACTERS
"""Bytes kept of an oversized record, enough for an excerpt in any encoding."""

_MANY = 4096

Place = Literal["byte", "unpacked byte", "UTF-8 byte", "row", "line"]
"""What the number in a location counts: bytes of the file, or of the member of an archive; bytes of the
file after decompression; bytes of its text after conversion to UTF-8; rows of a Parquet or Arrow file,
from 0; lines of a table, from 1."""


@dataclass(frozen=True)
class Rejected:
    """A record that is not a valid document.

    Attributes:
        reason: invalid_bytes, wrong_encoding, invalid_json, missing_text_field, text_not_a_string,
            invalid_csv, oversized, damaged_file, not_text, wrong_columns, not_a_file, or one of those
            of `preprocess.reading.web`.
        excerpt: the start of the record, up to 1000 characters, unprintable ones escaped; for a
            file that cannot be read, the error message.
        where: ``FILE:BYTE_OFFSET``, ``FILE:row N`` in Parquet and Arrow, ``FILE:line N`` in tables, all
            followed by `` id=ID`` if the record has an id; for a damaged file, ``FILE``. In an archive,
            ``FILE`` is ``ARCHIVE/MEMBER``.
    """

    reason: str
    excerpt: str
    where: str


@dataclass(frozen=True)
class Locations:
    """Locations of the documents of one file in a block, computed when first needed.

    Attributes:
        name: the file's name.
        place: what the numbers count.
        find_numbers: returns the byte offset or the row of each document.
        ids: id of each document; empty if documents have no ids.
    """

    name: str
    place: Place
    find_numbers: Callable[[], npt.ArrayLike]
    ids: Sequence[str] = ()

    @cached_property
    def numbers(self) -> npt.NDArray[np.int64]:
        """Byte offset or row of each document, shape (documents,)."""
        return np.asarray(self.find_numbers(), np.int64)

    def of(self, index: int) -> str:
        """Return the location of the document with this index."""
        number = int(self.numbers[index])
        return location(place_prefix(self.name, self.place), number, self.id(index))

    def id(self, index: int) -> str:
        """Return the id of the document with this index; empty if it has none."""
        return self.ids[index] if self.ids else ""


@dataclass(frozen=True)
class Block:
    """The documents and rejected records of consecutive raw bytes.

    Attributes:
        documents: texts of the documents.
        rejected: records that are not documents.
        replaced: number of U+FFFD characters put in place of invalid bytes and lone surrogates.
        raw_bytes: raw bytes read since the previous block; over a unit they sum to its bytes.
        locations: (index of the first document, locations) for each run of documents from one file.
    """

    documents: list[str]
    rejected: list[Rejected]
    replaced: int
    raw_bytes: int
    locations: tuple[tuple[int, Locations], ...] = field(default=(), repr=False, compare=False)

    def where(self, index: int) -> str:
        """Return the location of the document with this index, as in `Rejected.where`."""
        run = bisect_right(self.locations, index, key=lambda run: run[0]) - 1
        first, locations = self.locations[run]
        return locations.of(index - first)

    def ids(self) -> list[str]:
        """Return the id of each document; empty if it has none."""
        runs = self.locations_of(0, len(self.documents))
        return [locations.id(n) for locations, begin, end in runs for n in range(begin, end)]

    def locations_of(self, begin: int, end: int) -> Iterator[tuple[Locations, int, int]]:
        """Yield (locations, first index, end index) for the runs of the documents [begin, end)."""
        run = bisect_right(self.locations, begin, key=lambda run: run[0]) - 1
        while begin < end:
            first, locations = self.locations[run]
            run += 1
            stop = min(end, self.locations[run][0] if run < len(self.locations) else end)
            if stop > begin:
                yield locations, begin - first, stop - first
                begin = stop


def place_prefix(name: str, place: Place) -> str:
    """Return the start of a location, for `location`: ``FILE:``, ``FILE:row `` or ``FILE:line ``."""
    return f"{name}:{place} " if place in ("row", "line") else f"{name}:"


def location(prefix: str, number: int, name: str) -> str:
    """Return a one-line location, as in `Rejected.where`.

    Args:
        prefix: from `place_prefix`.
        number: byte offset, row or line.
        name: id of the record, with any characters; empty if it has none.
    """
    return f"{prefix}{number} id={shortened(name)}" if name else f"{prefix}{number}"


def excerpt(data: bytes, encoding: str = "utf-8") -> str:
    r"""Return the start of a record for `Rejected.excerpt`, with invalid bytes as ``\xNN``."""
    return shortened(data[:EXCERPT_BYTES].decode(encoding, "backslashreplace"))


def shortened(text: str) -> str:
    """Return the first 1000 characters of a text, with unprintable characters escaped."""
    return escaped(text[:EXCERPT_CHARACTERS])[:EXCERPT_CHARACTERS]


def escaped(text: str) -> str:
    r"""Return a text with its unprintable characters escaped, such as a tab as ``\t``."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def join_small(blocks: Iterable[Block], wanted_bytes: int) -> Iterator[Block]:
    """Join consecutive small blocks up to about ``wanted_bytes``, to save calls per block."""
    held: list[Block] = []
    total = 0
    for block in blocks:
        many = len(block.documents) > _MANY
        # In a compressed file the documents are larger than the raw bytes.
        size = wanted_bytes if many else max(block.raw_bytes, sum(map(len, block.documents)))
        if held and total + size > wanted_bytes:
            yield _join(held)
            held, total = [], 0
        held.append(block)
        total += size
    if held:
        yield _join(held)


def _join(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    documents: list[str] = []
    rejected: list[Rejected] = []
    locations: list[tuple[int, Locations]] = []
    for block in blocks:
        locations += [(len(documents) + first, run) for first, run in block.locations]
        documents += block.documents
        rejected += block.rejected
    replaced = sum(block.replaced for block in blocks)
    raw_bytes = sum(block.raw_bytes for block in blocks)
    return Block(documents, rejected, replaced, raw_bytes, tuple(locations))

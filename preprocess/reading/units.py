"""Work units: the byte ranges that one worker reads in one go.

A plan is drawn from names, sizes and the configuration alone, so that it costs no reading and every
machine draws the same one. A unit is a few megabytes of one source: a big plain file is cut into
ranges, small files are packed together in the order of their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preprocess.config import Source
from preprocess.files.storage import FileInfo
from preprocess.reading.formats import is_never_cut

SMALL_UNIT_BYTES = 8 * 1024**2
LARGE_UNIT_BYTES = 32 * 1024**2
EVEN = 4
"""Units of one size, a multiple of so many: two or four workers then have the same to do."""
LARGE_INPUT_BYTES = 2 * 1024**3
"""Below it, a worker that has one large unit more than another would cost more than more units do."""


@dataclass(frozen=True, slots=True)
class Range:
    """The records of a raw file whose first byte lies in ``[start, end)``."""

    name: str
    path: str
    start: int
    end: int
    bytes: int
    """Size of the whole file; ``start == 0 and end == bytes`` is all of it."""
    version: str


@dataclass(frozen=True)
class Unit:
    """What one worker reads: ranges of the source with the number ``source``, in order."""

    index: int
    source: int
    ranges: tuple[Range, ...]

    def to_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only, for JSON."""
        names = Range.__slots__
        ranges = [{name: getattr(piece, name) for name in names} for piece in self.ranges]
        return {"index": self.index, "source": self.source, "ranges": ranges}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> "Unit":
        """The unit that ``to_dict`` wrote."""
        ranges = tuple(Range(**piece) for piece in plain["ranges"])
        return Unit(plain["index"], plain["source"], ranges)


def plan_units(
    sources: Sequence[Source], files: Sequence[Sequence[FileInfo]], unit_bytes: int | None
) -> list[Unit]:
    """The units of a corpus, in the order of sources and, within one, of file names.

    Args:
        sources: the parts of the corpus.
        files: for each source its files, ordered by name, as ``sources.list_source`` gives them.
        unit_bytes: raw bytes a unit; none: at most 8 MiB below 2 GiB of input, else 32 MiB, all alike
            and their number a multiple of 4. What must be read from its start (compressed, a
            document a file, UTF-16, a Python source) is never cut and may be larger. An empty file
            is in no unit.
    """
    if unit_bytes is None:
        total = sum(file.bytes for group in files for file in group)
        most = SMALL_UNIT_BYTES if total < LARGE_INPUT_BYTES else LARGE_UNIT_BYTES
        number = -(-total // most)
        if number > 1:
            number = -(-number // EVEN) * EVEN
        unit_bytes = -(-total // max(number, 1)) or most
    units: list[Unit] = []
    for number, (source, group) in enumerate(zip(sources, files, strict=True)):
        packed: list[Range] = []
        size = 0
        for piece in _ranges(source, group, unit_bytes):
            length = piece.end - piece.start
            if packed and size + length > unit_bytes:
                units.append(Unit(len(units), number, tuple(packed)))
                packed, size = [], 0
            packed.append(piece)
            size += length
        if packed:
            units.append(Unit(len(units), number, tuple(packed)))
    return units


def _ranges(source: Source, files: Sequence[FileInfo], unit_bytes: int) -> Iterator[Range]:
    for file in files:
        # Size first: of a million small files no name is looked at.
        if file.bytes <= unit_bytes or is_never_cut(source, file.name):
            if file.bytes:
                yield Range(file.name, file.path, 0, file.bytes, file.bytes, file.version)
            continue
        for start in range(0, file.bytes, unit_bytes):
            end = min(start + unit_bytes, file.bytes)
            yield Range(file.name, file.path, start, end, file.bytes, file.version)

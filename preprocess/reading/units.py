"""Work units: byte ranges that a worker reads in one call.

The plan follows from file names, sizes and settings only, so planning reads no file and every
machine makes the same plan. A unit is a few megabytes of one source: a large uncompressed file is
cut into ranges, and small files are packed together in the order of their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preprocess.config import Source
from preprocess.files.search.found import FileInfo
from preprocess.reading.formats.detection import is_never_cut, is_never_empty

SMALL_UNIT_BYTES = 8 * 1024**2
LARGE_UNIT_BYTES = 32 * 1024**2
"""Maximum raw bytes of a unit, for an input below and from `LARGE_INPUT_BYTES`."""
EVEN = 4
"""The number of equal units is a multiple of this, so that two or four workers have equal work."""
LARGE_INPUT_BYTES = 2 * 1024**3
"""Input size in bytes from which units are large. Large units of a smaller input would be too few to
keep many workers equally busy."""


@dataclass(frozen=True, slots=True)
class Range:
    """A byte range of a raw file; it stands for the records whose first byte is in ``[start, end)``.

    Attributes:
        name: name of the file in its source, see `FileInfo.name`.
        path: path or URL.
        start: first byte.
        end: byte after the last one.
        bytes: size of the whole file in bytes.
        version: see `FileInfo.version`.
        in_folder: see `FileInfo.in_folder`.
    """

    name: str
    path: str
    start: int
    end: int
    bytes: int
    version: str
    in_folder: bool = False


@dataclass(frozen=True)
class Unit:
    """The input of one worker call.

    Attributes:
        index: number of the unit in the plan.
        source: index of the source in `PrepareConfig.sources`.
        ranges: ranges of the source's files, in the order of names.
    """

    index: int
    source: int
    ranges: tuple[Range, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the unit as JSON types."""
        names = Range.__slots__
        ranges = [{name: getattr(piece, name) for name in names} for piece in self.ranges]
        return {"index": self.index, "source": self.source, "ranges": ranges}

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> "Unit":
        """Return the unit from the result of `to_dict`."""
        ranges = tuple(Range(**piece) for piece in plain["ranges"])
        return Unit(plain["index"], plain["source"], ranges)


def plan_units(
    sources: Sequence[Source], files: Sequence[Sequence[FileInfo]], unit_bytes: int | None
) -> list[Unit]:
    """Plan the units of a corpus, in the order of sources and of file names.

    Files that must be read from their start (compressed, UTF-16, Python sources, one document per
    file) are never cut, so their units may be larger. Empty files are in no unit, except those that
    are damaged if they are empty (`is_never_empty`).

    Args:
        sources: the sources of the corpus.
        files: the files of each source, ordered by name as `list_source` returns them.
        unit_bytes: raw bytes per unit. None means equal units of at most 8 MiB, or 32 MiB if the
            input has 2 GiB or more; their number is a multiple of 4.
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
        size, about = file.bytes, (file.bytes, file.version, file.in_folder)
        # Check the size first, which is faster for a million small files.
        if size <= unit_bytes or is_never_cut(source, file.name):
            # No reader sees other empty files, but these show that a copy has failed.
            if size or is_never_empty(source, file.name):
                yield Range(file.name, file.path, 0, size, *about)
            continue
        for start in range(0, size, unit_bytes):
            yield Range(file.name, file.path, start, min(start + unit_bytes, size), *about)

"""The choice of the parts of files that a sample reads; it depends on names, sizes and a seed only.

A source is read at places that are spread evenly over its bytes, one random place in each of equal
stretches, so that a large file is read at more places than a small one. Two kinds of files are added:
the first file of each source, whose documents are shown, and a file of each name ending that the places
do not reach.
"""

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from preprocess.config import Source
from preprocess.files.search.found import FileInfo
from preprocess.files.storage import is_remote

FEWEST_PLACES = 4
"""Places of a small source, if it is large enough."""
MOST_ENDINGS = 50
"""Most files that are added because no other file of the sample has their name ending."""
LONGEST_ENDING = 10
"""Most characters of an ending, such as 5 in ".jsonl"."""
COMPRESSED = ("gz", "bgz", "bz2", "xz", "zst", "zstd")
"""Endings that follow another one, as in ".jsonl.gz"."""


class SampleSize(NamedTuple):
    """Limits of a sample.

    Attributes:
        raw_bytes: raw bytes to read. The same number limits the characters of text, so that compressed
            files do not take longer.
        places: number of places at which they are read.
        files: number of places if the files are local and smaller than a place.
    """

    raw_bytes: int = 64 << 20
    places: int = 128
    files: int = 1000

    def places_of(self, files: Sequence[Sequence[FileInfo]]) -> int:
        """Return the number of places at which these files are read."""
        number = sum(map(len, files))
        first = next((file for group in files for file in group), None)
        if first is None or is_remote(first.path):
            return self.places
        mean = sum(file.bytes for group in files for file in group) / number
        return max(self.places, min(self.files, int(self.raw_bytes / max(mean, 1))))


@dataclass(frozen=True)
class Places:
    """The places of one file at which a sample reads it.

    Attributes:
        source: index of its source.
        file: the file.
        starts: byte offset of each place, in rising order.
        bytes: raw bytes to read at each place.
        hits: how much of its source the file stands for: the number of random places in it, or its bytes
            if every file is read. 0 if no random place reached it, so that it does not count in estimates.
        is_whole: True if the file is read from its start to its end.
    """

    source: int
    file: FileInfo
    starts: tuple[int, ...]
    bytes: int
    hits: int
    is_whole: bool = False


def choose_places(
    sources: Sequence[Source], files: Sequence[Sequence[FileInfo]], seed: int, size: SampleSize
) -> list[Places]:
    """Return the places at which the files of each source are read, in the order of names.

    An input that is not larger than the sample is read completely.

    Args:
        sources: the sources.
        files: the files of each source, from `preprocess.reading.listing.list_source`.
        seed: seed of the places.
        size: limits of the sample.
    """
    total = sum(file.bytes for group in files for file in group)
    places = size.places_of(files)
    if total <= size.raw_bytes and sum(map(len, files)) <= places:
        return [
            Places(number, file, (0,), max(1, file.bytes), hits=file.bytes, is_whole=True)
            for number, group in enumerate(files)
            for file in group
        ]
    fewest = max(1, min(FEWEST_PLACES, places // len(sources)))
    wanted = [
        max(fewest, places * sum(file.bytes for file in group) // max(total, 1)) for group in files
    ]
    place_bytes = max(1, size.raw_bytes // sum(wanted))
    chosen: list[Places] = []
    for number, group in enumerate(files):
        # By its number, because the files of a source must not change the places of another.
        draw = random.Random(f"{seed} {number}")
        chosen += _of_source(number, group, wanted[number], place_bytes, draw)
    return chosen


def ending(name: str) -> str:
    """Return the ending of a file's name in lower case, such as ".txt" or ".jsonl.gz"; or ""."""
    stem, dot, last = name.rpartition("/")[2].lower().rpartition(".")
    # The name of a hidden file, and a part such as a date or a number, are no endings.
    if not stem or not dot or not _is_ending(last):
        return ""
    if last not in COMPRESSED:
        return f".{last}"
    _, dot, inner = stem.rpartition(".")
    return f".{inner}.{last}" if dot and _is_ending(inner) else f".{last}"


def _is_ending(part: str) -> bool:
    return 0 < len(part) <= LONGEST_ENDING and part.isalnum() and not part.isdigit()


def _of_source(
    number: int, files: Sequence[FileInfo], wanted: int, place_bytes: int, draw: random.Random
) -> list[Places]:
    ends = list(accumulate(file.bytes for file in files))
    starts: dict[int, set[int]] = {}
    hits: Counter[int] = Counter()
    if ends and ends[-1]:
        for place in range(wanted):
            offset = int((place + draw.random()) / wanted * ends[-1])
            index = bisect_right(ends, offset)
            within = offset - (ends[index] - files[index].bytes)
            # At multiples, so that two places do not overlap.
            starts.setdefault(index, set()).add(within - within % place_bytes)
            hits[index] += 1
    if 0 in starts:
        starts[0].add(0)  # the documents at its start are shown
    added = _added(files, starts.keys())
    rows = []
    for index in sorted({*starts, *added}):
        file, places = files[index], tuple(sorted(starts.get(index, {0})))
        whole = file.bytes <= len(places) * place_bytes
        rows.append(
            Places(
                number,
                file,
                (0,) if whole else places,
                max(1, file.bytes) if whole else place_bytes,
                hits[index],
                is_whole=whole,
            )
        )
    return rows


def _added(files: Sequence[FileInfo], reached: Collection[int]) -> list[int]:
    """Return the indexes of the first file, and of a file of each ending that is not reached."""
    known = {ending(files[index].name) for index in reached}
    added = [0] if files and 0 not in reached else []
    known |= {ending(files[index].name) for index in added}
    for index, file in enumerate(files):
        if len(added) > MOST_ENDINGS:
            break
        if (name := ending(file.name)) not in known:
            known.add(name)
            added.append(index)
    return added

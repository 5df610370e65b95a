"""A shuffle through files: rows written by many units are read bucket by bucket.

1. A unit writes *parts*: files with its rows grouped by bucket (`Shuffle.write`).
2. The parts of up to `RUN_UNITS` consecutive units, a *run*, are merged into a few *pieces*, files of
   about `PIECE_BYTES` that are also grouped by bucket (`Shuffle.merge`).
3. The reader of a list, which is a range of buckets, reads these buckets from all pieces
   (`Shuffle.read`).

So the number of requests to a store grows with units + lists x pieces, and not with units x buckets.
Rows never pass through the Beam runner, so its memory does not grow with the corpus. The result does
not depend on the order of the work, and work that is done twice writes the same bytes.

    000003/000768-0000.bin   part 0 of unit 768, which belongs to run 3 (of 256 units each)
    merged/000003-0000.bin   piece 0 of run 3
    merged/000003-0001.end   its last piece, written last

Former versions wrote the parts directly into the folder; these are merged too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from preprocess.files.storage import is_remote, join, list_names
from preprocess.files.temporary import temporary_file
from preprocess.work.damage import damaged_work
from preprocess.work.groups import GroupFile, read_groups, write_groups, write_pieces

RUN_UNITS = 256
"""Maximum number of units in a run."""
LEAST_RUNS = 64
"""A run has several units only if there are at least this many runs, so that many workers can merge."""
MOST_LISTS = 256
"""Maximum number of lists. Each is read by one worker call, from every piece."""
PIECE_BYTES = 256 << 20
"""Bytes of parts in a piece. Merging holds twice as many in memory, and the parts of one more unit."""
READ_BYTES = 128 << 20
"""Bytes that the reader of a list holds, unless a single bucket has more."""

_PIECE, _END = ".bin", ".end"


@dataclass(frozen=True)
class Layout:
    """The numbers that a shuffle depends on. They follow from the corpus, so that every rerun agrees.

    Attributes:
        units: number of units of the corpus, and of known corpora, whose numbers follow.
        buckets: number of buckets.
        known: number of units of known corpora.
    """

    units: int
    buckets: int
    known: int = 0

    @property
    def own(self) -> int:
        """Number of units of the corpus."""
        return self.units - self.known

    @property
    def run_units(self) -> int:
        """Number of units in a run; the last run may have fewer."""
        return min(RUN_UNITS, max(1, self.units // LEAST_RUNS))

    @property
    def runs(self) -> int:
        """Number of runs."""
        return -(-self.units // self.run_units)

    def run_of(self, unit: int) -> int:
        """Return the run of a unit."""
        return unit // self.run_units

    def units_of(self, run: int) -> range:
        """Return the units of a run."""
        first = run * self.run_units
        return range(first, min(first + self.run_units, self.units))

    @property
    def lists(self) -> int:
        """Number of lists."""
        return min(self.buckets, MOST_LISTS)

    def buckets_of(self, number: int) -> range:
        """Return the buckets of a list."""
        return range(number * self.buckets // self.lists, (number + 1) * self.buckets // self.lists)


class Slices(NamedTuple):
    """Rows of one or more buckets, in the order of units and of their parts within each bucket.

    Attributes:
        units: unit of each slice, uint32, shape (slices,).
        sizes: bytes of each slice, uint32, shape (slices,).
        data: the slices, concatenated.
    """

    units: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.uint32]
    data: bytes


class Part(NamedTuple):
    """A part of a unit: number of the unit, number of the part, and its file."""

    unit: int
    number: int
    path: str


def group_rows(
    rows: npt.NDArray[Any], bucket_of: npt.NDArray[Any], buckets: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Sort rows by bucket, keeping their order within a bucket.

    Args:
        rows: shape (rows, ...).
        bucket_of: the bucket of each row, shape (rows,).
        buckets: number of buckets.

    Returns:
        The sorted rows, and the row where each bucket starts and the last one ends, (buckets + 1,).
    """
    order = np.argsort(bucket_of, kind="stable")
    return rows[order], np.searchsorted(bucket_of[order], np.arange(buckets + 1))


class Shuffle:
    """The files of a shuffle in a folder.

    Args:
        folder: path or URL; created at the first write.
        layout: the same in all calls for this folder.
    """

    def __init__(self, folder: str, layout: Layout) -> None:
        self._folder, self._layout = folder, layout
        self._merged = join(folder, "merged")

    def write(self, unit: int, part: int, data: bytes, bounds: npt.ArrayLike) -> None:
        """Write a numbered part of a unit; ``data`` and ``bounds`` as in `write_groups`."""
        name = f"{self._layout.run_of(unit):06d}/{unit:06d}-{part:04d}{_PIECE}"
        write_groups(join(self._folder, name), data, bounds)

    def write_rows(
        self, unit: int, part: int, rows: npt.NDArray[Any], bucket_of: npt.NDArray[Any]
    ) -> None:
        """Write rows as one part of a unit; arguments as in `group_rows`."""
        grouped, bounds = group_rows(rows, bucket_of, self._layout.buckets)
        row_bytes = rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64))
        self.write(unit, part, grouped.tobytes(), bounds * row_bytes)

    def parts(self, run: int) -> list[Part]:
        """Return the parts of a run, in the order of units and of their numbers."""
        units, found = self._layout.units_of(run), dict[tuple[int, int], str]()
        # Parts in the folder itself are of a former version. It may have as many files as there are units, so
        # it is listed only if the first part of a unit is not in the folder of the run.
        for folder in (join(self._folder, f"{run:06d}"), self._folder):
            for name in () if all((unit, 0) in found for unit in units) else list_names(folder):
                if name.endswith(_PIECE):
                    unit, number = map(int, name.removesuffix(_PIECE).split("-"))
                    if unit in units:
                        found.setdefault((unit, number), join(folder, name))
        # By number, because names with more digits than the padding do not sort as text.
        return [Part(*key, found[key]) for key in sorted(found)]

    def merge(self, run: int, read: Callable[[Part], Sequence[bytes]] | None = None) -> None:
        """Merge the parts of a run into pieces, unless it is merged; all its units must be written.

        Args:
            run: number of the run.
            read: returns the groups of a part, one per bucket; `read_part` by default.

        Raises:
            DamagedWork: a part is damaged.
        """
        if run in self._pieces():
            return
        held: list[tuple[int, Sequence[bytes]]] = []
        size = piece = 0
        for part in self.parts(run):
            groups = (read or self.read_part)(part)
            if held and size + sum(map(len, groups)) > PIECE_BYTES:
                self._write_piece(run, piece, held, _PIECE)
                held, size, piece = [], 0, piece + 1
            held.append((part.unit, groups))
            size += sum(map(len, groups))
        self._write_piece(run, piece, held, _END)

    def read_part(self, part: Part) -> list[bytes]:
        """Return the groups of a part, one per bucket.

        Raises:
            DamagedWork: the part is damaged, or has another number of buckets.
        """
        groups = read_groups(part.path)
        if len(groups) != self._layout.buckets:
            reason = f"it has {len(groups):,} buckets, not {self._layout.buckets:,}"
            raise damaged_work(part.path, reason)
        return groups

    def _write_piece(
        self, run: int, piece: int, parts: Sequence[tuple[int, Sequence[bytes]]], ending: str
    ) -> None:
        """Write a piece. A group is u4: number of slices n; u4 (n, 2): units and sizes; the slices."""
        merged: list[list[bytes]] = []
        for bucket in range(self._layout.buckets):
            slices = [(unit, groups[bucket]) for unit, groups in parts if groups[bucket]]
            sizes = np.array([(unit, len(data)) for unit, data in slices], "<u4").tobytes()
            head = [len(slices).to_bytes(4, "little"), sizes] if slices else []
            merged.append([*head, *(data for _, data in slices)])
        write_pieces(self._path(run, piece, ending), merged)

    def _pieces(self) -> dict[int, list[str]]:
        """Return the pieces of each run that is merged completely, in order.

        Raises:
            DamagedWork: a piece is missing.
        """
        found: dict[tuple[int, int], str] = {}
        last: dict[int, int] = {}
        for name in list_names(self._merged):
            if name.endswith((_PIECE, _END)):
                run, piece = map(int, name[: -len(_PIECE)].split("-"))
                found[run, piece] = join(self._merged, name)
                if name.endswith(_END):
                    last[run] = piece
        # Pieces after the last one are of a killed run with other limits.
        for run, piece in ((run, n) for run, end in last.items() for n in range(end)):
            if (run, piece) not in found:
                raise damaged_work(self._path(run, piece, _PIECE), "it is missing")
        return {run: [found[run, n] for n in range(last[run] + 1)] for run in sorted(last)}

    def _path(self, run: int, piece: int, ending: str) -> str:
        return join(self._merged, f"{run:06d}-{piece:04d}{ending}")

    def read(self, number: int) -> Iterator[Slices]:
        """Yield the rows of the buckets of a list; all runs must be merged.

        A bucket is never divided. Several are yielded at once if they have at most `READ_BYTES`. If a list
        on a store has more, it is copied to a temporary file, so that each piece is requested once and
        not once for each `READ_BYTES`.

        Args:
            number: number of the list.

        Raises:
            DamagedWork: a piece is damaged or missing.
            StorageError: the temporary file cannot be written.
        """
        buckets = self._layout.buckets_of(number)
        pieces = self._open(buckets)
        total = np.zeros(len(buckets), np.int64)
        for piece in pieces:
            total += piece.sizes
        with ExitStack() as stack:
            if total.sum() > READ_BYTES and is_remote(self._folder):
                copy = stack.enter_context(temporary_file())
                for piece in pieces:
                    piece.copy_to(copy)
            first, held = buckets.start, 0
            for bucket, size in zip(buckets, total.tolist(), strict=True):
                if held and held + size > READ_BYTES:
                    yield _joined(_slices(piece, first, bucket) for piece in pieces)
                    first, held = bucket, 0
                held += size
            yield _joined(_slices(piece, first, buckets.stop) for piece in pieces)

    def read_by_piece(self, number: int) -> Iterator[Slices]:
        """Yield the rows of a list piece by piece, so that memory does not grow with the corpus.

        Arguments and errors as in `read`.
        """
        buckets = self._layout.buckets_of(number)
        for piece in self._open(buckets):
            yield _slices(piece, buckets.start, buckets.stop)

    def _open(self, buckets: range) -> list[GroupFile]:
        pieces = self._pieces()
        for run in range(self._layout.runs):
            if run not in pieces:
                raise damaged_work(self._path(run, 0, _END), "it is missing")
        return [GroupFile(path, buckets) for run in pieces.values() for path in run]


def _slices(piece: GroupFile, first: int, end: int) -> Slices:
    """Return the slices of the buckets from ``first`` to before ``end`` of a piece."""
    heads: list[npt.NDArray[np.uint32]] = [np.empty((0, 2), "<u4")]
    found: list[memoryview] = []
    for group in piece.read(first, end):
        if len(group):
            begin = 4 + 8 * int.from_bytes(group[:4], "little")
            heads.append(np.frombuffer(group[4:begin], "<u4").reshape(-1, 2))
            found.append(group[begin:])
    head = np.concatenate(heads)
    return Slices(head[:, 0], head[:, 1], b"".join(found))


def _joined(slices: Iterable[Slices]) -> Slices:
    none = np.empty(0, np.uint32)
    units, sizes, data = zip(Slices(none, none, b""), *slices, strict=True)
    return Slices(np.concatenate(units), np.concatenate(sizes), b"".join(data))

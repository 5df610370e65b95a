"""Reading the places of a sample with the reader of prepare, until each has given enough text."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO, cast

from preprocess.config import PrepareConfig, Source
from preprocess.corpus.sampling.choice import Places
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.errors import StoreError
from preprocess.reading.archives.detection import find_archive
from preprocess.reading.block import Block
from preprocess.reading.byte_range import HEAD_BYTES, UnreadableFile, read_errors_as_damaged
from preprocess.reading.compression import find_compression
from preprocess.reading.encodings.decoding import is_cuttable
from preprocess.reading.formats.detection import Format, is_never_cut, is_never_empty
from preprocess.reading.formats.parquet import open_parquet
from preprocess.reading.formats.table import READERS
from preprocess.reading.kinds.detector import Detector
from preprocess.reading.options import ReadOptions
from preprocess.reading.reader import Limits, UnitReader, read_unit
from preprocess.reading.stream import Findings, Stream, read_at
from preprocess.reading.units import Range, Unit

TAR = "tar"
"""Value of `Findings.format` for a tar archive."""
SMALL_BYTES = 1 << 20
"""A file of at most this size that is read completely is read in the same way whatever it is."""
REMOTE_THREADS = 8
"""Files of a store that are read at the same time, because each request waits for the store."""


@dataclass
class FileSample:
    """What was read of one file.

    Attributes:
        places: where it was read.
        kind: what the file is; its format is empty if it cannot be read.
        blocks: its documents and rejected records.
        raw_bytes: raw bytes that hold them.
        seconds: CPU seconds of the thread that read them.
        problem: why nothing or no more could be read; the error of the reader.
    """

    places: Places
    kind: Findings = field(default_factory=Findings)
    blocks: list[Block] = field(default_factory=list)
    raw_bytes: float = 0
    seconds: float = 0
    problem: UserError | None = None

    @property
    def weight(self) -> float:
        """How much of the source a raw byte that was read stands for, in a unit that all files share.

        Places are drawn with a probability in proportion to the size of a file, so each document counts
        with the inverse (Hansen and Hurwitz, "On the theory of sampling from finite populations", 1943).
        """
        return self.places.hits / self.raw_bytes if self.raw_bytes else 0.0


def read_sample(
    chosen: Sequence[Places],
    config: PrepareConfig,
    sources: Sequence[Source],
    report: Callable[[int], None] = lambda done: None,
) -> list[FileSample]:
    """Read the files of a sample.

    Args:
        chosen: places from `choose_places`.
        config: settings of prepare.
        sources: the sources to which `Places.source` refers.
        report: called with the number of finished files.

    Raises:
        StoreError: a store fails.
    """

    def read(places: Places) -> FileSample:
        return _FileReader(places, sources[places.source], config).read()

    found: list[FileSample] = []
    if not any(storage.is_remote(places.file.path) for places in chosen):
        for places in chosen:
            found.append(read(places))
            report(len(found))
        return found
    pool = ThreadPoolExecutor(REMOTE_THREADS)
    try:
        for sample in pool.map(read, chosen):
            found.append(sample)
            report(len(found))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found


class _FileReader:
    def __init__(self, places: Places, source: Source, config: PrepareConfig) -> None:
        self._places, self._file = places, places.file
        self._source, self._cleaning = source, config.cleaning_of(source)
        # A damaged file is told with its message.
        self._limits = replace(Limits.of(config), skip_damaged=False)
        self._sample = FileSample(places)

    def read(self) -> FileSample:
        sample = self._sample
        if not self._file.bytes and not is_never_empty(self._source, self._file.name):
            return sample
        # A thread's own time, because other threads read other files.
        began = time.thread_time()
        try:
            is_small = self._places.is_whole and self._file.bytes <= SMALL_BYTES
            if is_small or not self._read_columns():
                for piece, most in self._ranges():
                    self._read_range(piece, most)
        except StoreError:
            raise
        except UserError as error:
            # The cause of an error about several files is that about this one.
            cause = error.__cause__
            sample.problem = cause if isinstance(cause, UnreadableFile) else error
        sample.seconds = time.thread_time() - began
        return sample

    def _reader(self, piece: Range) -> UnitReader:
        unit = Unit(0, self._places.source, (piece,))
        return read_unit(unit, self._source, self._cleaning, self._limits)

    def _ranges(self) -> Iterator[tuple[Range, float]]:
        """Yield the ranges to read, and the raw bytes or characters after which to stop in each."""
        places, wanted, size = self._places, self._wanted, self._file.bytes
        whole = Range(
            *(self._file.name, self._file.path, 0, size, size, self._file.version),
            in_folder=self._file.in_folder,
        )
        if places.is_whole:
            yield whole, wanted
            return
        probe = self._reader(replace(whole, end=min(places.bytes, size)))
        next(iter(probe), None)
        kind = self._sample.kind = probe.findings[0]
        if _is_stream(kind) or is_never_cut(self._source, self._file.name):
            yield whole, wanted
        else:
            for start in places.starts:
                # A member of a zip archive may be large; text has no more characters than bytes.
                yield replace(whole, start=start, end=min(start + places.bytes, size)), places.bytes

    @property
    def _wanted(self) -> int:
        """Raw bytes or characters to read of the file."""
        return self._places.bytes * len(self._places.starts)

    def _read_range(self, piece: Range, most: float) -> None:
        """Add the blocks of a range to the sample, until there are enough."""
        reader, sample = self._reader(piece), self._sample
        raw = characters = 0
        try:
            for block in reader:
                # Blocks without raw bytes come from the raw bytes before them.
                if block.raw_bytes and max(raw, characters) >= most:
                    break
                raw += block.raw_bytes
                characters += sum(map(len, block.documents))
                sample.blocks.append(block)
                sample.raw_bytes += block.raw_bytes
        finally:
            # Also if the file is refused.
            sample.kind = reader.findings[0] if reader.findings else sample.kind

    def _read_columns(self) -> bool:
        """Read the first rows of a table of columns; return False if the file is none.

        The reader of units would first hash the columns of the range, which may be gigabytes.

        Raises:
            UserError: the file is refused or damaged.
        """
        file, sample = self._file, self._sample
        with read_errors_as_damaged(file.path), storage.open_read(file.path) as opened:
            head = opened.read(min(HEAD_BYTES, file.bytes))
            if find_compression(head) or find_archive(head, file.name):
                return False
            stream = Stream(
                *(file.name, file.path, head, (), partial(read_at, opened)),
                size=file.bytes,
                file=opened,
            )
            drop_invalid = self._cleaning.invalid_bytes == "drop"
            options = ReadOptions(self._source, self._limits, drop_invalid)
            found = Detector(self._source, stream, self._limits.max_document_bytes).find()
            if found is None or READERS[found].needs != "file":
                return False
            sample.kind = Findings(format=found)
            characters = 0
            for block in READERS[found].read(stream, options):
                characters += sum(map(len, block.documents))
                sample.blocks.append(block)
                if characters >= self._wanted:
                    break
            # Batches of other formats than Parquet are read in the order of their bytes.
            sample.raw_bytes = min(opened.tell(), file.bytes)
            if found == "parquet":
                sample.raw_bytes = file.bytes * self._share_of_rows(opened)
        return True

    def _share_of_rows(self, opened: BinaryIO) -> float:
        rows = sum(len(block.documents) + len(block.rejected) for block in self._sample.blocks)
        opened.seek(0)
        with open_parquet(opened, self._file.path) as (_, table):
            return float(min(1, rows / max(1, table.metadata.num_rows)))


def _is_stream(kind: Findings) -> bool:
    """Return True if a file must be read from its start."""
    if kind.compression or not is_cuttable(kind.stored_encoding or "utf-8"):
        return True
    found = READERS.get(cast(Format, kind.format))
    return kind.format == TAR or (found is not None and not found.is_cut)

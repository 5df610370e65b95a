"""Both passes of prepare over documents in memory, in this process and without an engine."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from preprocess.config import PrepareConfig
from preprocess.corpus.comparison import do_item, phases
from preprocess.corpus.first_pass import tokenize_unit
from preprocess.corpus.job import Job
from preprocess.corpus.last_pass import finish_group
from preprocess.corpus.near.blocks import Blocks
from preprocess.files.storage import join
from preprocess.reading.block import Block
from preprocess.reading.byte_range import RangeRead
from preprocess.reading.units import Unit
from preprocess.tokenizers.load import cached_tokenizer


class Passed(NamedTuple):
    """What the passes wrote, and how long they took.

    Attributes:
        work, output: folders of the unfinished work and of the result.
        first_seconds: CPU seconds of the first pass.
        rest_seconds: CPU seconds of deduplication and the last pass.
    """

    work: str
    output: str
    first_seconds: float
    rest_seconds: float


class _Sampled:
    """Blocks of a sample, in place of the reader of a unit."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks)

    def read_so_far(self) -> list[RangeRead]:
        return []


def run_passes(
    folder: str,
    config: PrepareConfig,
    tokenizer: tuple[str, str],
    blocks: Mapping[int, Sequence[Block]],
) -> Passed:
    """Prepare documents as one unit of work for each source.

    Args:
        folder: where the work and the result are written.
        config: settings of prepare.
        tokenizer: folder and content hash of the tokenizer.
        blocks: documents of each source, by its index.
    """
    units = [Unit(index, source, ()) for index, source in enumerate(blocks)]
    job = Job(
        work=join(folder, "work"),
        output=join(folder, "result"),
        config=config.model_copy(update={"known": ()}),
        tokenizer=tokenizer[0],
        tokenizer_content=tokenizer[1],
        vocabulary=cached_tokenizer(*tokenizer).vocabulary,
        buckets=1,
        band_buckets=1,
        units=len(units),
        group_units=len(units),
        blocks=Blocks.of(len(units), 0),
    )
    began = time.process_time()
    for unit in units:
        tokenize_unit(job, unit, _Sampled(blocks[unit.source]))
    first = time.process_time() - began
    for phase in phases(job):
        for item in phase:
            do_item(job, item)
    for group in range(job.groups):
        finish_group(job, group)
    return Passed(job.work, job.output, first, time.process_time() - began - first)

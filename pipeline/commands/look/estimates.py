"""Estimates of the time, memory and disk of the tokenizer and prepare stages, from a sample.

Time and disk are those of a trial on the sample (`preprocess.corpus.sampling.trial`), multiplied by the
size of the input. Memory follows from the sizes of what a process holds. `benchmarks/estimates.py`
measured the constants, and compares the estimates with runs.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.config.runners import DirectOptions, RunnerConfig
from pipeline.config.schema import Config
from preprocess.config import CharConfig, SentencePieceConfig, TokenizerConfig
from preprocess.corpus.sampling.summary import SourceSummary
from preprocess.corpus.sampling.trial import Costs
from preprocess.files import storage
from preprocess.reading.units import Unit
from preprocess.shards.format import token_dtype
from preprocess.text.minhash import bands_and_rows
from preprocess.tokenizers.sample import READ_BYTES, unit_bytes
from preprocess.tokenizers.text_sample import WHOLE

START_SECONDS = 2.5
"""CPU seconds for starting a process with Beam: this one, and each worker process."""
DRIVER_BYTES, WORKER_BYTES = 205_000_000, 200_000_000
"""Memory of this process with Beam, and of each worker process, before they hold any text."""
TOKENIZER_STAGE_BYTES = 110_000_000
"""Memory of the tokenizer stage, without Beam, before it holds any text."""
BATCH_BYTES = 13_000_000
"""Memory of a batch of documents while it is cleaned and tokenised."""
COPIES_OF_IDS = 7.5
"""Memory of a segment while it is written, as a multiple of its token ids."""
BYTES_A_DOCUMENT = 150
"""Memory of a document of a segment, apart from its tokens and bands."""
COPIES_OF_BANDS = 3
"""Memory of the MinHash bands of a segment, as a multiple of their keys."""
STREAM_BYTES = 18_000_000
"""Memory of the uncompressed bytes that are kept while a compressed file is read."""
FILES_BYTES = 100_000
"""Bytes of the pages, tables and manifest of a small corpus."""
NEAR_TIMES = 1.3
"""CPU time of prepare with near-duplicates, as a multiple of that of the trial, which has few keys."""
CLEAN_SECONDS = 0.02
"""CPU seconds a megabyte of text to clean, hash and choose the documents of a tokenizer's sample."""
COVERAGE_SECONDS = 2.0
"""CPU seconds to measure a tokenizer's coverage."""
WORD_BYTES = 200
"""Memory of a word of a word tokenizer."""
TIME, TOKENIZER_TIME, MEMORY, DISK = 1.3, 1.6, 1.25, 1.15
"""Factors by which time, time of training a tokenizer, memory and disk may differ from the estimate."""


class Training(NamedTuple):
    """What training a tokenizer costs.

    Attributes:
        growth: CPU time a byte, as a multiple of that of the training of the trial, which has less text, if
            most characters are of one byte.
        wide_growth: the same for other scripts, whose texts have more distinct substrings.
        memory: bytes of memory a byte of the sample.
    """

    growth: float
    wide_growth: float
    memory: float


TRAININGS = {
    "unigram": Training(1.05, 3.1, 21),
    "bpe": Training(1.0, 1.0, 7),
    "char": Training(1.5, 1.5, 5),
}
WIDE_BYTES = 1.5
"""Bytes per character above which `Training.wide_growth` holds."""


class Amount(NamedTuple):
    """An estimate with the range in which the true value is expected."""

    likely: float
    low: float
    high: float

    @staticmethod
    def around(likely: float, factor: float) -> "Amount":
        return Amount(likely, likely / factor, likely * factor)


class Estimate(NamedTuple):
    """What a stage needs.

    Attributes:
        seconds: time on this machine; None if the speed or the number of the workers is not known.
        cpu_seconds: CPU time of all processes.
        memory: bytes of memory of all processes on this machine at the same time; for another engine,
            of one worker.
        disk: bytes of the folder of the stage while it runs.
        result: bytes of the folder of the finished stage.
        processes: number of processes; None if the engine decides.
        is_elsewhere: True if the workers run in an engine outside this process.
        tokens: number of tokens of the result; 0 for the tokenizer stage.
    """

    seconds: Amount | None
    cpu_seconds: Amount
    memory: Amount
    disk: Amount
    result: Amount
    processes: int | None = 1
    is_elsewhere: bool = False
    tokens: float = 0


class Totals(NamedTuple):
    """The whole input, estimated from the sample.

    Attributes:
        raw_bytes: bytes of the files.
        text_bytes: UTF-8 bytes of the documents.
        documents: number of the documents.
        characters: number of their characters.
        read_seconds: CPU seconds of reading.
        repeated: share of the text in documents that repeat earlier ones.
    """

    raw_bytes: int
    text_bytes: float
    documents: float
    characters: float
    read_seconds: float
    repeated: float


def totals_of(summaries: Sequence[SourceSummary], sizes: Sequence[int]) -> Totals:
    """Return what the whole input has.

    Args:
        summaries: what the sample of each source has.
        sizes: raw bytes of the files of each source.
    """
    text = sum(found.text_bytes for found in summaries)
    repeated = 0.0
    for found, size in zip(summaries, sizes, strict=True):
        if found.raw_bytes:
            repeated += found.text_bytes * found.repeats.share_of(size / found.raw_bytes)
    return Totals(
        sum(sizes),
        text,
        sum(found.documents for found in summaries),
        sum(found.characters for found in summaries),
        sum(found.seconds for found in summaries),
        repeated / text if text else 0.0,
    )


def prepare_estimate(
    config: Config, totals: Totals, costs: Costs, units: Sequence[Unit], has_streams: bool
) -> Estimate:
    """Return what the prepare stage needs.

    Args:
        config: the settings.
        totals: the whole input.
        costs: of the trial.
        units: the units of work.
        has_streams: True if the input has compressed files.
    """
    prepare, number = config.prepare, max(1, len(units))
    times = totals.text_bytes / costs.text_bytes
    repeated = totals.repeated if prepare.deduplicate else 0.0
    kept = min(1 - repeated, costs.kept_tokens) if _drops(config) else 1.0
    tokens, documents = costs.tokens * times, totals.documents
    itemsize = token_dtype(vocabulary_of(config.tokenizer, costs, times)).itemsize
    result = (
        (tokens * itemsize + costs.result_bytes * times) * kept
        + 8 * vocabulary_of(config.tokenizer, costs, times)
        + FILES_BYTES
    )
    work = tokens * itemsize + costs.work_bytes * times
    has_links = costs.has_links and not storage.is_remote(config.run.output)
    if has_links and documents * (1 - kept) < number:
        work -= tokens * itemsize * kept
    seconds = times * (costs.first_seconds + costs.rest_seconds)
    if prepare.near_duplicates.similarity is not None:
        seconds *= NEAR_TIMES
    seconds += totals.read_seconds
    largest = max(map(unit_bytes, units), default=0) / max(1, totals.raw_bytes)
    in_segment = min(prepare.part_tokens, tokens * largest)
    held = BATCH_BYTES + COPIES_OF_IDS * itemsize * in_segment + STREAM_BYTES * has_streams
    held += BYTES_A_DOCUMENT * documents * in_segment / max(1, tokens)
    if prepare.near_duplicates.similarity is not None:
        bands, _ = bands_and_rows(prepare.near_duplicates.similarity)
        held += COPIES_OF_BANDS * 8 * bands * documents * in_segment / max(1, tokens)
    if config.tokenizer.kind == "word":
        held += WORD_BYTES * vocabulary_of(config.tokenizer, costs, times)
    found = _on_engine(
        config.runner, totals.raw_bytes, number, seconds, held, work + result, result
    )
    return found._replace(tokens=tokens * kept)


def _on_engine(
    runner: RunnerConfig,
    raw_bytes: int,
    units: int,
    seconds: float,
    held: float,
    disk: float,
    result: float,
) -> Estimate:
    """Return the estimate for an engine.

    Args:
        runner: the engine.
        raw_bytes: raw bytes of the input.
        units: number of the units.
        seconds: CPU seconds of the work.
        held: bytes of memory that a worker holds.
        disk: bytes of the folder while the stage runs.
        result: bytes of the result.
    """
    disks = Amount.around(disk, DISK), Amount.around(result, DISK)
    if not isinstance(runner.options, DirectOptions):
        workers = getattr(runner.options, "parallelism", None)
        wall = START_SECONDS + seconds / workers if workers else None
        return Estimate(
            Amount.around(wall, TIME) if wall else None,
            Amount.around(seconds, TIME),
            Amount.around(WORKER_BYTES + held, MEMORY),
            *disks,
            processes=workers,
            is_elsewhere=True,
        )
    mode, workers = runner.options.workers_for(raw_bytes)
    busy = min(workers, units)
    starts = 1 + (workers if mode == "multi_processing" else 0)
    cpu = START_SECONDS * starts + seconds
    wall = START_SECONDS * min(starts, 2) + seconds / (busy if mode == "multi_processing" else 1)
    memory = DRIVER_BYTES + held * busy
    if mode == "multi_processing":
        memory += WORKER_BYTES * workers
    return Estimate(
        Amount.around(wall, TIME),
        Amount.around(cpu, TIME),
        Amount.around(memory, MEMORY),
        *disks,
        processes=starts,
    )


def tokenizer_estimate(config: Config, totals: Totals, costs: Costs) -> Estimate:
    """Return what the tokenizer stage needs; its time is less certain than that of prepare.

    Args:
        config: the settings.
        totals: the whole input.
        costs: of the trial, for which a tokenizer with these settings was trained.
    """
    settings = config.tokenizer
    text = totals.text_bytes * (1 - config.prepare.valid_fraction - config.prepare.test_fraction)
    reading = (totals.read_seconds + CLEAN_SECONDS * totals.text_bytes / 1e6) / max(
        1.0, totals.text_bytes
    )
    nothing = Amount(0.0, 0.0, 0.0)
    if settings.kind == "word" or (isinstance(settings, SentencePieceConfig) and settings.file):
        read = min(text, 10e6) if isinstance(settings, SentencePieceConfig) else text
        seconds = START_SECONDS + COVERAGE_SECONDS + 2 * reading * read
        memory = DRIVER_BYTES + BATCH_BYTES
        return Estimate(
            Amount.around(seconds, TOKENIZER_TIME),
            Amount.around(seconds, TOKENIZER_TIME),
            Amount.around(memory, MEMORY),
            nothing,
            nothing,
        )
    assert isinstance(settings, SentencePieceConfig | CharConfig)
    sample = min(text, settings.sample_bytes)
    read = min(text, max(READ_BYTES, WHOLE * settings.sample_bytes))
    cost = TRAININGS[settings.model if isinstance(settings, SentencePieceConfig) else "char"]
    is_wide = totals.text_bytes > WIDE_BYTES * totals.characters
    training = (cost.wide_growth if is_wide else cost.growth) * costs.made.seconds * sample / 1e6
    seconds = START_SECONDS + COVERAGE_SECONDS + reading * read + training
    return Estimate(
        Amount.around(seconds, TOKENIZER_TIME),
        Amount.around(seconds, TOKENIZER_TIME),
        Amount.around(TOKENIZER_STAGE_BYTES + cost.memory * sample, MEMORY),
        nothing,
        nothing,
    )


def vocabulary_of(settings: TokenizerConfig, costs: Costs, times: float) -> int:
    """Return the number of ids of the final tokenizer.

    Args:
        settings: settings of the tokenizer.
        costs: of the trial, which has the tokenizer of the trial.
        times: size of the input as a multiple of the trial's text.
    """
    known = costs.made.tokenizer.vocabulary
    return math.ceil(known * math.pow(max(1.0, times), costs.made.growth))


def _drops(config: Config) -> bool:
    prepare = config.prepare
    return prepare.deduplicate or prepare.near_duplicates.similarity is not None

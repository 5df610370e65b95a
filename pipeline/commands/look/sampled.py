"""The sample of an input, and the estimates that follow from it; for `biloom look` and ``--dry-run``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.commands.look.estimates import (
    Estimate,
    Totals,
    prepare_estimate,
    tokenizer_estimate,
    totals_of,
)
from pipeline.config.schema import Config
from pipeline.lifecycle.inputs import stage_folder
from preprocess.config import Source
from preprocess.corpus.sampling.choice import SampleSize, choose_places
from preprocess.corpus.sampling.reading import FileSample, read_sample
from preprocess.corpus.sampling.summary import SourceSummary, summarise
from preprocess.corpus.sampling.trial import run_trial
from preprocess.files.manifest import ManifestError, read_manifest
from preprocess.files.search.found import FileInfo
from preprocess.reading.units import Unit, plan_units

TRIAL_BYTES = 8_000_000
QUICK = SampleSize(raw_bytes=16 << 20, places=32, files=200)
"""A sample for ``--dry-run``."""
QUICK_TRIAL_BYTES = 4_000_000
"""Bytes of text of the trial, for a sample of the default size and for `QUICK`."""


@dataclass(frozen=True)
class InputSample:
    """The sample of an input.

    Attributes:
        config: the settings.
        sources: the sources.
        files: the files of each source.
        samples: what was read of the files.
        seed: seed of the sample.
    """

    config: Config
    sources: Sequence[Source]
    files: Sequence[Sequence[FileInfo]]
    samples: Sequence[FileSample]
    seed: int

    @cached_property
    def summaries(self) -> list[SourceSummary]:
        """What the sample of each source contains."""
        return [
            summarise(self.of_source(number), source, self.config.prepare, size, self.seed)
            for number, (source, size) in enumerate(zip(self.sources, self.sizes, strict=True))
        ]

    @property
    def sizes(self) -> list[int]:
        """Raw bytes of the files of each source."""
        return [sum(file.bytes for file in files) for files in self.files]

    @cached_property
    def totals(self) -> Totals:
        """The whole input, estimated."""
        return totals_of(self.summaries, self.sizes)

    @cached_property
    def units(self) -> list[Unit]:
        """The units of work of prepare."""
        return plan_units(self.sources, self.files, self.config.prepare.unit_bytes)

    def of_source(self, number: int) -> list[FileSample]:
        """Return the files of the sample that belong to a source."""
        return [sample for sample in self.samples if sample.places.source == number]

    @property
    def raw_bytes(self) -> float:
        """Raw bytes that were read."""
        return sum(sample.raw_bytes for sample in self.samples)


def take_sample(
    config: Config,
    files: Sequence[Sequence[FileInfo]],
    size: SampleSize,
    seed: int,
    report: Callable[[int, int], None] = lambda done, all_: None,
) -> InputSample:
    """Read a sample of ``prepare.input``.

    Args:
        config: the settings.
        files: the files of each source.
        size: limits of the sample.
        seed: its seed.
        report: called with the numbers of files that were read and that are to be read.

    Raises:
        StoreError: a store fails.
    """
    sources = config.prepare.sources
    places = choose_places(sources, files, seed, size)
    samples = read_sample(places, config.prepare, sources, lambda done: report(done, len(places)))
    return InputSample(config, sources, files, samples, seed)


def estimate_stages(
    sample: InputSample, stages: Sequence[str], trial_bytes: int, is_stale: bool = False
) -> dict[str, Estimate]:
    """Return what the tokenizer and prepare stages need; empty if the sample has no text.

    Args:
        sample: the sample.
        stages: names of stages; only the tokenizer and prepare have estimates.
        trial_bytes: bytes of text of the trial.
        is_stale: True if a finished tokenizer of this run will be made again.

    Raises:
        UserError: the tokenizer cannot be trained or read.
    """
    found: dict[str, Estimate] = {}
    if not sample.totals.text_bytes:
        return found
    config = sample.config
    has_no_tokenizer = is_stale or "tokenizer" in stages
    finished = None if has_no_tokenizer else finished_tokenizer(config)
    costs = run_trial(
        sample.samples, config.prepare, config.tokenizer, finished, sample.seed, trial_bytes
    )
    if costs is None:
        return found
    if "tokenizer" in stages:
        found["tokenizer"] = tokenizer_estimate(config, sample.totals, costs)
    if "prepare" in stages:
        has_streams = any(one.kind.compression for one in sample.samples)
        found["prepare"] = prepare_estimate(config, sample.totals, costs, sample.units, has_streams)
    return found


def finished_tokenizer(config: Config) -> tuple[str, str] | None:
    """Return the folder and the content hash of the tokenizer of prepare; None if there is none."""
    folder = stage_folder(config, "tokenizer", config.prepare.tokenizer)
    try:
        return folder, read_manifest(folder, "tokenizer").content
    except ManifestError:
        return None

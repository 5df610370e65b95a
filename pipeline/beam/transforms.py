"""PTransforms that connect the functions of the other packages; they hold no logic of their own.

Only the portable subset of Beam is used (no tagged outputs, no output from finish_bundle, integer
keys, one terminal PCollection). An element is the number of a unit or a bucket, never a document:
an element costs tens of microseconds, and its data stays in the runner's memory.
"""

import pickle
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import apache_beam as beam

from pipeline.beam.worker_call import WorkerCall, running_job
from preprocess.corpus.dedup import Kind, deduplicate_bucket
from preprocess.corpus.first_pass import Job, tokenize_unit
from preprocess.corpus.last_pass import finish_unit
from preprocess.reading.plan_file import read_planned
from preprocess.tokenizers.word_counts import CountJob, count_unit, merge_bucket


class ForEach(beam.PTransform):
    """Calls ``work(*arguments, item)`` for each item, in any order on any worker.

    Input: items. Output: the results.
    """

    def __init__(self, work_folder: str, work: Callable[..., Any], *arguments: Any) -> None:
        super().__init__()
        self._work, self._call = work_folder, WorkerCall(work_folder, work, arguments)

    def expand(self, items: Any) -> Any:
        self._call.job = running_job(self._work)
        return items | "spread" >> _Spread() | "work" >> beam.Map(self._call)


class ForEachUnit(ForEach):
    """Calls ``work(job, unit)`` for each unit.

    Input: numbers of units, which are read from the job's plan. Output: the results.
    """

    def __init__(self, work: Callable[..., Any], job: Any) -> None:
        super().__init__(job.work, on_unit, work, job)


class _Spread(beam.PTransform):
    """Redistributes the items over all workers."""

    def expand(self, items: Any) -> Any:
        # On Dask, Reshuffle does nothing, so all items would stay in one task.
        if type(items.pipeline.runner).__name__ != "DaskRunner":
            return items | "reshuffle" >> beam.Reshuffle()
        return (
            items
            | "key" >> beam.Map(_keyed)
            | "spread by key" >> beam.GroupByKey()
            | "items" >> beam.FlatMap(_grouped)
        )


class WhenAllAreDone(beam.PTransform):
    """Waits for all elements, then outputs the items of ``then`` instead."""

    def __init__(self, then: Sequence[Any]) -> None:
        super().__init__()
        self._then = then

    def expand(self, items: Any) -> Any:
        return (
            items
            | "one key" >> beam.Map(_same)
            | "wait" >> beam.GroupByKey()
            | "continue" >> beam.FlatMap(_items, self._then)
        )


class PrepareCorpus(beam.PTransform):
    """Prepares a corpus: first pass by unit, drop lists by bucket, last pass by unit.

    Output: numbers of the finished units.
    """

    def __init__(self, job: Job, units: int) -> None:
        super().__init__()
        self._job, self._units = job, units

    def expand(self, begin: Any) -> Any:
        job, units = self._job, self._units
        tokenised = (
            begin
            | "units" >> beam.Create(range(units))
            | "first pass" >> ForEachUnit(tokenize_unit, job)
        )
        buckets: list[tuple[Kind, int]] = []
        if job.config.deduplicate:
            buckets += [("hashes", bucket) for bucket in range(job.buckets)]
        if job.config.near_duplicates.similarity is not None:
            buckets += [("bands", bucket) for bucket in range(job.band_buckets)]
        if buckets:
            tokenised = (
                tokenised
                | "all tokenised" >> WhenAllAreDone(buckets)
                | "duplicates" >> ForEach(job.work, deduplicate, job.work, units)
            )
        return (
            tokenised
            | "all compared" >> WhenAllAreDone(range(units))
            | "last pass" >> ForEachUnit(finish_unit, job)
        )


class EmbedTexts(beam.PTransform):
    """Embeds texts: keys of the texts by unit, drop lists by bucket, vectors by unit.

    Output: numbers of the finished units.
    """

    def __init__(self, job: Any, units: int) -> None:
        super().__init__()
        self._job, self._units = job, units

    def expand(self, begin: Any) -> Any:
        # Imported here so that prepare does not load torch.
        from lightning_modules.vectors.embedding import embed_unit, hash_texts

        job, units = self._job, self._units
        buckets: list[tuple[Kind, int]] = [("hashes", bucket) for bucket in range(job.buckets)]
        return (
            begin
            | "units" >> beam.Create(range(units))
            | "keys" >> ForEachUnit(hash_texts, job)
            | "all hashed" >> WhenAllAreDone(buckets)
            | "duplicates" >> ForEach(job.work, deduplicate, job.work, units)
            | "all compared" >> WhenAllAreDone(range(units))
            | "embed" >> ForEachUnit(embed_unit, job)
        )


class CountWords(beam.PTransform):
    """Counts words: counts by unit, sorted words by bucket.

    Output: numbers of the buckets.
    """

    def __init__(self, job: CountJob, units: int) -> None:
        super().__init__()
        self._job, self._units = job, units

    def expand(self, begin: Any) -> Any:
        job = self._job
        return (
            begin
            | "units" >> beam.Create(range(self._units))
            | "count" >> ForEachUnit(count_unit, job)
            | "all counted" >> WhenAllAreDone(range(job.buckets))
            | "merge" >> ForEach(job.work, merge_bucket, job)
        )


def on_unit(work: Callable[..., Any], job: Any, index: int) -> Any:
    """Run ``work`` on the unit with this number."""
    return work(job, read_planned(job.work, index))


def deduplicate(work: str, units: int, bucket: tuple[Kind, int]) -> int:
    """Write the drop list of a bucket, and return the bucket's number."""
    deduplicate_bucket(work, bucket[0], units, bucket[1])
    return bucket[1]


def _same(_: Any) -> tuple[int, int]:
    return (0, 0)


def _items(_: Any, then: Any) -> Any:
    return then


def _keyed(item: Any) -> tuple[int, Any]:
    return (zlib.crc32(pickle.dumps(item)), item)


def _grouped(group: Any) -> Any:
    return group[1]

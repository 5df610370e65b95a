"""PTransforms: they wire functions of ``preprocess`` and hold no logic of their own.

Only the portable subset of Beam is used (no tagged outputs, no output from finish_bundle, integer
keys, one terminal PCollection). An element is a unit or a bucket, never a line: an element costs
tens of microseconds, and what passes through stays in the runner's memory.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam

from preprocess import storage
from preprocess.dedup import deduplicate_bucket
from preprocess.errors import UserError
from preprocess.first_pass import Job, read_done, tokenize_unit
from preprocess.last_pass import finish_unit
from preprocess.units import Unit


class ForEach(beam.PTransform):
    """Calls ``work`` once an item, in any order on any worker; the output is its results.

    A user's mistake found by a worker is written to the folder ``work_folder``, where the driver
    finds it: a runner hands on the text of a traceback at best.
    """

    def __init__(self, work_folder: str, work: Callable[..., Any], *arguments: Any) -> None:
        super().__init__()
        self._call = _Call(work_folder, work, arguments)

    def expand(self, items: Any) -> Any:
        return items | "spread" >> beam.Reshuffle() | "work" >> beam.Map(self._call)


class _Call:
    def __init__(self, folder: str, work: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self._folder, self._work, self._arguments = folder, work, arguments

    def __call__(self, item: Any) -> Any:
        try:
            return self._work(*self._arguments, item)
        except UserError as error:
            storage.write_bytes(_failure(self._folder), str(error).encode())
            raise


class WhenAllAreDone(beam.PTransform):
    """Waits for every element, then gives the items that ``then`` holds, whatever came in."""

    def __init__(self, then: Sequence[Any]) -> None:
        super().__init__()
        self._then = then

    def expand(self, items: Any) -> Any:
        return (
            items
            | "one key" >> beam.Map(_same)
            | "wait" >> beam.GroupByKey()
            | "go on" >> beam.FlatMap(_items, self._then)
        )


class PrepareCorpus(beam.PTransform):
    """Units -> first pass -> drop lists by bucket -> shards; gives each finished unit's index."""

    def __init__(self, job: Job, units: Sequence[Unit]) -> None:
        super().__init__()
        self._job, self._units = job, units

    def expand(self, begin: Any) -> Any:
        job, units = self._job, self._units
        numbers = [unit.index for unit in units]
        tokenised = (
            begin
            | "units" >> beam.Create(units)
            | "first pass" >> ForEach(job.work, tokenize_unit, job)
        )
        if job.config.deduplicate:
            tokenised = (
                tokenised
                | "all tokenised" >> WhenAllAreDone([*range(job.buckets)])
                | "duplicates" >> ForEach(job.work, deduplicate, job.work, numbers)
            )
        return (
            tokenised
            | "all compared" >> WhenAllAreDone(units)
            | "last pass" >> ForEach(job.work, finish_unit, job)
        )


class EmbedTexts(beam.PTransform):
    """Units -> keys of their texts -> drop lists by bucket -> cache shards; gives units' indices."""

    def __init__(self, job: Any, units: Sequence[Unit]) -> None:
        super().__init__()
        self._job, self._units = job, units

    def expand(self, begin: Any) -> Any:
        # Imported here, so that preparing a corpus does not load torch.
        from lightning_modules.embedding import embed_unit, hash_texts

        job, units = self._job, self._units
        numbers = [unit.index for unit in units]
        return (
            begin
            | "units" >> beam.Create(units)
            | "keys" >> ForEach(job.work, hash_texts, job)
            | "all hashed" >> WhenAllAreDone([*range(job.buckets)])
            | "duplicates" >> ForEach(job.work, deduplicate, job.work, numbers)
            | "all compared" >> WhenAllAreDone(units)
            | "embed" >> ForEach(job.work, embed_unit, job)
        )


@contextmanager
def user_errors(work_folder: str) -> Iterator[None]:
    """Raise what a worker found wrong as the user's mistake that it is."""
    storage.remove(_failure(work_folder))
    try:
        yield
    except Exception as error:
        if not storage.exists(_failure(work_folder)):
            raise
        raise UserError(storage.read_bytes(_failure(work_folder)).decode()) from error


def deduplicate(work: str, units: Sequence[int], bucket: int) -> int:
    """Write the drop list of a bucket from the bounds in the units' done-records."""
    bounds = [(unit, *read_done(work, unit)["bounds"][bucket : bucket + 2]) for unit in units]
    deduplicate_bucket(work, bucket, bounds)
    return bucket


def _failure(folder: str) -> str:
    return storage.join(folder, "failure.txt")


def _same(item: Any) -> tuple[int, int]:
    return (0, 0)


def _items(group: Any, then: Sequence[Any]) -> Sequence[Any]:
    return then

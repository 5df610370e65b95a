"""PTransforms that connect the functions of the other packages; they hold no logic of their own.

Only the portable subset of Beam is used (no tagged outputs, no output from finish_bundle, integer
keys, one terminal PCollection). An element is the number of a unit, a run or a list of buckets, never a document:
an element costs tens of microseconds, and its data stays in the runner's memory.
"""

import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apache_beam as beam

from pipeline.beam.worker_call import WorkerCall, running_job
from preprocess.corpus.comparison import do_item, phases, write_known
from preprocess.corpus.dedup import Kind, collect_drops, compare_keys, merge_keys
from preprocess.corpus.first_pass import tokenize_unit
from preprocess.corpus.job import Job
from preprocess.corpus.last_pass import finish_group
from preprocess.reading.plan_file import read_planned
from preprocess.tokenizers.word_counts import CountJob, count_unit, merge_bucket, merge_run
from preprocess.work.shuffle import Layout


class Numbers(beam.PTransform):
    """The numbers from 0 to ``count`` - 1.

    The pipeline's size does not depend on ``count``, as that of `beam.Create` of all numbers does.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def expand(self, begin: Any) -> Any:
        return begin | "one" >> beam.Create([0]) | "all" >> beam.FlatMap(_items, range(self._count))


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


class CompareKeys(beam.PTransform):
    """Finds repeated keys: merged keys by run, drop lists by list of buckets, drops by run.

    Input: numbers of the units that have written their keys. Output: numbers of the runs.
    """

    def __init__(self, work: str, layouts: Mapping[Kind, Layout]) -> None:
        super().__init__()
        self._work, self._layouts = work, layouts

    def expand(self, units: Any) -> Any:
        steps: list[tuple[str, Callable[..., Any], str]] = [
            ("merge", merge_keys, "runs"),
            ("compare", compare_keys, "lists"),
            ("collect", collect_drops, "runs"),
        ]
        done = units
        for name, work, number in steps:
            items = [
                (kind, item)
                for kind, layout in self._layouts.items()
                for item in range(getattr(layout, number))
            ]
            done = (
                done
                | f"before {name}" >> WhenAllAreDone(items)
                | name >> ForEach(self._work, on_keys, work, self._work, self._layouts)
            )
        return done


class PrepareCorpus(beam.PTransform):
    """Prepares a corpus: first pass by unit, phases of the comparison of keys, last pass by group.

    Output: numbers of the finished groups.
    """

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, begin: Any) -> Any:
        job = self._job
        if job.known_units:
            units = (
                begin
                | "known units" >> Numbers(job.known_units)
                | "known keys" >> ForEach(job.work, write_known, job)
                | "all known" >> WhenAllAreDone(range(job.units))
            )
        else:
            units = begin | "units" >> Numbers(job.units)
        done = units | "first pass" >> ForEachUnit(tokenize_unit, job)
        for number, items in enumerate(phases(job)):
            done = (
                done
                | f"before phase {number}" >> WhenAllAreDone(items)
                | f"phase {number}" >> ForEach(job.work, do_item, job)
            )
        return (
            done
            | "all compared" >> WhenAllAreDone(range(job.groups))
            | "last pass" >> ForEach(job.work, finish_group, job)
        )


class EmbedTexts(beam.PTransform):
    """Embeds texts: keys of the texts by unit, comparison of keys, vectors by unit.

    Output: numbers of the finished units.
    """

    def __init__(self, job: Any) -> None:
        super().__init__()
        self._job = job

    def expand(self, begin: Any) -> Any:
        # Imported here so that prepare does not load torch.
        from lightning_modules.vectors.embedding import embed_unit, hash_texts

        job = self._job
        return (
            begin
            | "units" >> Numbers(job.units)
            | "keys" >> ForEachUnit(hash_texts, job)
            | "duplicates" >> CompareKeys(job.work, {"hashes": job.layout})
            | "all compared" >> WhenAllAreDone(range(job.units))
            | "embed" >> ForEachUnit(embed_unit, job)
        )


class CountWords(beam.PTransform):
    """Counts words: counts by unit, merged counts by run, sorted words by bucket.

    Output: numbers of the buckets.
    """

    def __init__(self, job: CountJob) -> None:
        super().__init__()
        self._job = job

    def expand(self, begin: Any) -> Any:
        job = self._job
        return (
            begin
            | "units" >> Numbers(job.units)
            | "count" >> ForEachUnit(count_unit, job)
            | "all counted" >> WhenAllAreDone(range(job.layout.runs))
            | "merge runs" >> ForEach(job.work, merge_run, job)
            | "all merged" >> WhenAllAreDone(range(job.buckets))
            | "merge" >> ForEach(job.work, merge_bucket, job)
        )


def on_unit(work: Callable[..., Any], job: Any, index: int) -> Any:
    """Run ``work`` on the unit with this number."""
    return work(job, read_planned(job.work, index))


def on_keys(
    step: Callable[[str, Kind, Layout, int], None],
    work: str,
    layouts: Mapping[Kind, Layout],
    item: tuple[Kind, int],
) -> int:
    """Run a step of the comparison of keys on the run or list with this number, and return it."""
    kind, number = item
    step(work, kind, layouts[kind], number)
    return number


def _same(_: Any) -> tuple[int, int]:
    return (0, 0)


def _items(_: Any, then: Any) -> Any:
    return then


def _keyed(item: Any) -> tuple[int, Any]:
    return (zlib.crc32(pickle.dumps(item)), item)


def _grouped(group: Any) -> Any:
    return group[1]

"""The comparison of keys in one process, as the Beam pipeline does it."""

from preprocess.corpus.comparison import do_item, phases, write_known
from preprocess.corpus.dedup import Kind, collect_drops, compare_keys, merge_keys
from preprocess.corpus.job import Job
from preprocess.work.shuffle import Layout


def compare_all(work: str, kind: Kind, layout: Layout, only_known: bool = False) -> None:
    """Merge, compare and collect the keys of all units, from the last run and list to the first."""
    for run in reversed(range(layout.runs)):
        merge_keys(work, kind, layout, run)
    for number in reversed(range(layout.lists)):
        compare_keys(work, kind, layout, number, only_known)
    for run in reversed(range(layout.runs)):
        collect_drops(work, kind, layout, run)


def compare_job(job: Job) -> None:
    """Do all phases of a job, the items of each from the last to the first."""
    for number in reversed(range(job.known_units)):
        write_known(job, number)
    for items in phases(job):
        for item in reversed(items):
            do_item(job, item)

"""The steps of prepare between first and last pass, in which the keys of documents are compared.

The items of a phase can be done in any order on any worker; a phase begins when the one before is done.
"""

from collections.abc import Callable

from preprocess.corpus.dedup import collect_drops, compare_keys, merge_keys
from preprocess.corpus.job import Job
from preprocess.corpus.known import write_known_keys
from preprocess.corpus.near.duplicates import decide_block, find_near_pairs

Item = tuple[str, int]
"""A step, and the number of a run, a list, a block or a round and block."""

_ROUND = 1000
"""The item of `decide_block` is the number of the round times this, plus the block."""


def phases(job: Job) -> list[list[Item]]:
    """Return the items of each phase; no phases if no keys are compared."""
    found: list[list[Item]] = [[], [], []]
    for kind in job.kinds:
        layout = job.layout(kind)
        found[0] += [(f"merge {kind}", run) for run in range(layout.runs)]
        found[1] += [(f"compare {kind}", number) for number in range(layout.lists)]
        if kind == "hashes":
            found[2] += [("collect", run) for run in range(layout.runs)]
        else:
            rounds = range(job.blocks.rounds)
            of_rounds = [
                [("decide", _ROUND * number + block) for block in range(job.blocks.number)]
                for number in rounds
            ]
            found[2] += of_rounds[0]
            found += of_rounds[1:]
    return [items for items in found if items]


def do_item(job: Job, item: Item) -> int:
    """Do an item of a phase, unless it is done, and return its number."""
    step, number = item
    _STEPS[step](job, number)
    return number


def write_known(job: Job, number: int) -> int:
    """Write the keys of a unit of the known corpora, unless they are written, and return its number."""
    layouts = job.layout("hashes"), job.layout("bands")
    return write_known_keys(job.work, job.known, *layouts, number)


def _compare_hashes(job: Job, number: int) -> None:
    only_known = not job.config.deduplicate
    compare_keys(job.work, "hashes", job.layout("hashes"), number, only_known)


def _compare_bands(job: Job, number: int) -> None:
    similarity = job.config.near_duplicates.similarity
    assert similarity is not None
    find_near_pairs(job.work, job.layout("bands"), job.blocks, similarity, number)


def _decide(job: Job, number: int) -> None:
    lists = job.layout("bands").lists
    decide_block(job.work, lists, job.blocks, *divmod(number, _ROUND))


_STEPS: dict[str, Callable[[Job, int], None]] = {
    "merge hashes": lambda job, run: merge_keys(job.work, "hashes", job.layout("hashes"), run),
    "merge bands": lambda job, run: merge_keys(job.work, "bands", job.layout("bands"), run),
    "compare hashes": _compare_hashes,
    "compare bands": _compare_bands,
    "collect": lambda job, run: collect_drops(job.work, "hashes", job.layout("hashes"), run),
    "decide": _decide,
}

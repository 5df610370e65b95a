"""Near-duplicates through files: pairs by list of buckets, decisions by block, drops by unit.

1. The first pass writes the keys and sketches of documents, which are merged (`preprocess.corpus.dedup`).
2. The documents of a list of buckets that share a key are compared (`find_near_pairs`).
3. The blocks decide in rounds which documents are dropped (`decide_block`).
4. The last pass reads the drops of its unit (`read_near_duplicates`).

The work per document and the memory are bounded, also if a million documents share a key. The number
of requests grows with lists x blocks and with rounds x blocks x blocks.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.corpus.dedup import DROP, KEYS
from preprocess.corpus.near.blocks import (
    FATE,
    PAIR,
    QUESTION,
    Blocks,
    Decided,
    decide,
    document_key,
    sorted_pairs,
)
from preprocess.corpus.near.pairs import find_pairs
from preprocess.files.storage import exists
from preprocess.text.minhash import most_differing
from preprocess.work import folder, near_files
from preprocess.work.groups import GroupFile, read_group, write_groups
from preprocess.work.progress import Progress
from preprocess.work.shuffle import Layout, Shuffle, Slices

_DROPPED, _PAIRS, _QUESTIONS, _ANSWERS = range(4)
# Groups of the file of a round; the answers to block 0 are the fourth one.


def find_near_pairs(
    work: str, layout: Layout, blocks: Blocks, similarity: float, number: int
) -> None:
    """Write the pairs of similar documents in a list, unless they are written; all runs must be merged.

    The file has the pairs by block of the later document, then the questions by block of the earlier
    one. Memory is proportional to `preprocess.work.shuffle.READ_BYTES` of keys, or to the largest
    bucket, and to the pairs, 18 bytes each.

    Args:
        work: folder of unfinished work.
        layout: layout of the keys of bands.
        blocks: the blocks of the corpus.
        similarity: smallest estimated Jaccard similarity of a pair.
        number: number of the list.
    """
    target = near_files.near_pairs(work, number)
    if exists(target):
        return
    progress = Progress(work, number, "pairs")
    found = [np.empty(0, PAIR)]
    for slices in Shuffle(folder.shuffle_folder(work, "bands"), layout).read(number):
        found.append(_pairs_of(slices, layout.own, most_differing(similarity)))
        progress.write()
    pairs = sorted_pairs(np.concatenate(found))
    later, earlier = (blocks.of_documents(pairs[name]) for name in ("later", "earlier"))
    asked = (later != earlier) & (earlier < blocks.number)
    questions = np.empty(np.count_nonzero(asked), QUESTION)
    questions["document"], questions["block"] = pairs["earlier"][asked], later[asked]
    groups = [pairs[later == block] for block in range(blocks.number)]
    groups += [np.unique(questions[earlier[asked] == block]) for block in range(blocks.number)]
    _write(target, groups)


def decide_block(work: str, lists: int, blocks: Blocks, number: int, block: int) -> None:
    """Decide documents of a block in a round, unless it is done; the round before must be done.

    Args:
        work: folder of unfinished work.
        lists: number of lists of pairs.
        blocks: the blocks of the corpus.
        number: number of the round.
        block: number of the block.
    """
    is_last = number == blocks.rounds - 1
    target = (
        near_files.near_drops(work, block)
        if is_last
        else near_files.near_round(work, block, number)
    )
    if exists(target):
        return
    progress = Progress(work, block, f"round-{number}")
    told = np.empty(0, FATE)
    if number == 0:
        dropped = told
        paths = [near_files.near_pairs(work, one) for one in range(lists)]
        pairs = sorted_pairs(_read(paths, block, PAIR, progress))
        questions = np.unique(_read(paths, blocks.number + block, QUESTION, progress))
    else:
        before = [near_files.near_round(work, block, number - 1)]
        dropped = _read(before, _DROPPED, FATE, progress)
        pairs = _read(before, _PAIRS, PAIR, progress)
        questions = _read(before, _QUESTIONS, QUESTION, progress)
        asked = np.unique(blocks.of_documents(pairs["earlier"])).tolist()
        paths = [near_files.near_round(work, one, number - 1) for one in asked if one < block]
        told = _read(paths, _ANSWERS + block, FATE, progress)
    decided = decide(blocks, block, pairs, questions, dropped, told, is_last)
    if is_last:
        _write(target, _by_unit(decided.dropped, blocks.units_of(block)))
    else:
        _write_round(target, decided, blocks.number)


def read_near_duplicates(
    work: str, blocks: Blocks, units: range
) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]]:
    """Yield the near-duplicates of consecutive units to drop, in two requests per block.

    Yields:
        For each unit, the numbers of the documents, sorted and distinct, uint32, shape (documents,); unit
        and number of the kept documents that they are similar to, uint32, shape (documents, 2).
    """
    keys = np.arange(units.start, units.stop, dtype=np.uint64) << np.uint64(32)
    for block in np.unique(blocks.of_documents(keys)).tolist():
        of_block = blocks.units_of(block)
        first = max(units.start, of_block.start) - of_block.start
        end = min(units.stop, of_block.stop) - of_block.start
        file = GroupFile(near_files.near_drops(work, block), range(first, end))
        for data in file.read(first, end):
            rows = np.frombuffer(data, DROP)
            original = rows["original"]
            yield rows["document"], np.stack([original["unit"], original["number"]], axis=1)


def _pairs_of(slices: Slices, own: int, most: int) -> npt.NDArray[Any]:
    """Return the pairs among the keys of some buckets; known documents come first."""
    table = np.frombuffer(slices.data, KEYS["bands"])
    units = np.repeat(slices.units, slices.sizes // np.uint32(table.itemsize))
    order = np.argsort(units < own, kind="stable")
    table, units = table[order], units[order]
    found = find_pairs(
        np.ascontiguousarray(table["low"]), np.ascontiguousarray(table["sketch"]), most
    )
    of_own = units[found.later] < own
    documents = document_key(units, table["document"])
    pairs = np.empty(np.count_nonzero(of_own), PAIR)
    for name, values in (("later", documents[found.later]), ("earlier", documents[found.earlier])):
        pairs[name] = values[of_own]
    pairs["differing"] = found.differing[of_own]
    return pairs


def _by_unit(dropped: npt.NDArray[Any], units: range) -> list[npt.NDArray[Any]]:
    """Return the drops of a block, `DROP`, by unit."""
    low = np.uint64(2**32 - 1)
    rows = np.empty(len(dropped), DROP)
    rows["document"] = dropped["document"] & low
    rows["original"]["unit"] = dropped["original"] >> np.uint64(32)
    rows["original"]["number"] = dropped["original"] & low
    unit_of = dropped["document"] >> np.uint64(32)
    bounds = np.searchsorted(unit_of, np.arange(units.start, units.stop + 1, dtype=np.uint64))
    return [rows[begin:end] for begin, end in pairwise(bounds.tolist())]


def _write_round(path: str, decided: Decided, blocks: int) -> None:
    none = np.empty(0, FATE)
    answers = [decided.answers.get(block, none) for block in range(blocks)]
    _write(path, [decided.dropped, decided.pairs, decided.questions, *answers])


def _write(path: str, groups: list[npt.NDArray[Any]]) -> None:
    data = [group.tobytes() for group in groups]
    write_groups(path, b"".join(data), np.cumsum([0, *map(len, data)]))


def _read(
    paths: list[str], group: int, dtype: np.dtype[Any], progress: Progress
) -> npt.NDArray[Any]:
    """Return the rows of one group of each file."""
    found = [np.empty(0, dtype)]
    for path in paths:
        found.append(np.frombuffer(read_group(path, group), dtype))
        progress.write()
    return np.concatenate(found)

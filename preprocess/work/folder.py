"""The layout of a stage's folder of unfinished work; no other module knows it.

    _work/lock.json            the process that writes the stage
    _work/move.json            the folder is being moved aside on a store (`preprocess.work.aside`)
    _work/FINGERPRINT/         all unfinished work for one request, and nothing else
      asked.json               settings and inputs that the work was started with
      versions.json            versions of Unicode's and SentencePiece's tables
      status.json              progress of the stage (`pipeline.progress`), for `biloom status`
      replaces.json            content hashes of the finished results that this work continues
      result/...               files of the result, until the driver publishes them
      held-out.json            shares of the documents of the valid and the test split (prepare)
      plan.bin                 the units of work (`preprocess.reading.plan_file`)
      sample.jsonl             the sample of the corpus that is embedded, with its hash in sample.jsonl.json
      sample-inputs.json       the raw ranges that were read for this sample
      units/000012.json        record of a unit: its first pass is finished
      segments/000012.json     record of a unit's closed segments, while its first pass runs
      parts/train-000012-003.bin, .npy    tokens and documents of a closed segment (prepare)
      parts/origins-000012-003.zst        origins of the documents of a closed segment (prepare)
      parts/keys-000012-003.zst           keys of the documents of a closed segment (prepare)
      parts/000012-003.json    record of a written vector shard (embed)
      counts/000003.bin        token counts of a group of units
      finished/000012.json     record of a unit: its last pass is finished (embed)
      groups/000000-000256.json           record of a group of units: its last pass is finished (prepare)
      hashes/, bands/          keys for deduplication (`preprocess.corpus.dedup`), a `Shuffle` each
      drops/hashes-000012.runs            documents to drop according to list 12 of the hashes,
                               each with the earlier document, grouped by run
      copies/hashes-000012.json           how often the repeated keys of this list occur
      run-drops/hashes-000003.units       documents to drop in run 3, grouped by unit
      near/, known/            files of near-duplicates and known corpora (`preprocess.work.near_files`)
      word-counts/             word counts (`preprocess.tokenizers.word_counts`), a `Shuffle`
      word-counts/000012.json  record of a unit: its words are counted
      vocabulary/000012.words  words of a bucket in the order of their ids
      progress/000012.json     counts of a unit, rewritten while it runs
      job.json                 name of the Beam job that runs
      failures/...             messages of workers that failed
      step-000001000.ckpt      checkpoints of an unfinished training
      best-000001000.ckpt      its weights at the evaluations that were better than all before

A record is a JSON file that is written after the files it describes, so these are complete. It has a
checksum of itself, and the record of a unit has the hashes of its parts. A damaged file raises
`DamagedWork`; it never becomes part of the result. In the functions below, ``work`` is the path or URL of the
folder of one request, ``unit`` the number of a unit of work, and ``kind`` "hashes" or "bands".

Workers write into ``work`` only. A worker that outlives its driver may continue to write there, so the
folder's name is the fingerprint of the request, and records of finished work repeat it.
"""

import re
from typing import Any

from preprocess.errors import UserError
from preprocess.files.storage import (
    exists,
    join,
    list_folders,
    list_names,
    move_entries,
    remove,
    remove_tree,
)
from preprocess.work.damage import damaged_work
from preprocess.work.records import read_record as read_record
from preprocess.work.records import read_record_if_written as read_record_if_written
from preprocess.work.records import write_record as write_record

NAME = "_work"
ASKED = "asked.json"
RESULT = "result"
LOCK = "lock.json"
_CHECKPOINT = re.compile(r"(step|best)-(\d+)\.ckpt")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_STAMP = "fingerprint"


def work_root(stage_folder: str) -> str:
    """Return the folder that holds all unfinished work of a stage."""
    return join(stage_folder, NAME)


def work_folder(stage_folder: str, fingerprint: str) -> str:
    """Return the folder of the unfinished work for one request.

    Args:
        stage_folder: folder of the stage.
        fingerprint: fingerprint of the request, 64 hexadecimal digits.
    """
    return join(work_root(stage_folder), fingerprint)


def unfinished_work(stage_folder: str) -> list[tuple[str, dict[str, Any]]]:
    """Return (folder, request) for each request that a stage has unfinished work for.

    The folder may be ``_work`` itself, into which version 0.1 wrote.
    """
    root = work_root(stage_folder)
    folders = [root, *(join(root, name) for name in _work_names(root))]
    requests = [(folder, read_record_if_written(asked_file(folder))) for folder in folders]
    return [(folder, request) for folder, request in requests if request is not None]


def adopt_former_work(stage_folder: str, work: str, results: list[str]) -> None:
    """Move unfinished work of version 0.1 into the folder ``work``.

    Args:
        stage_folder: folder of the stage.
        work: the new folder.
        results: names of files in ``stage_folder`` that belong to the unfinished result.
    """
    root = work_root(stage_folder)
    # The request is moved last: until then, a killed call is repeated.
    names = [*list_names(root), *list_folders(root)]
    keep = {LOCK, ASKED, *_work_names(root)}
    move_entries(stage_folder, result_folder(work), results)
    move_entries(root, work, [name for name in names if name not in keep])
    move_entries(root, work, [ASKED])


def remove_strays(stage_folder: str) -> list[str]:
    """Remove work folders without ``asked.json``, and return their paths.

    They are written by workers that outlive their driver.
    """
    root = work_root(stage_folder)
    if exists(asked_file(root)):
        # The folders beside a request of version 0.1 belong to it, or it is being moved into one.
        return []
    folders = [join(root, name) for name in list_folders(root)]
    strays = [folder for folder in folders if not exists(asked_file(folder))]
    for folder in strays:
        remove_tree(folder)
    return strays


def is_begun(work: str) -> bool:
    """Return True if unfinished work holds anything that would have to be done again."""
    folders = ("units", "segments", "word-counts", RESULT)
    done = any(list_names(join(work, name)) for name in folders)
    return done or bool(checkpoint_steps(work))


def remove_work(stage_folder: str, work: str) -> None:
    """Remove the unfinished work in ``work``.

    If that is ``_work`` itself, as version 0.1 used it, the lock and the work for other requests stay.
    """
    # First, because work without it is not resumed: a kill in the middle may leave a part.
    remove(asked_file(work))
    root = work_root(stage_folder)
    if work == root:
        for name in list_folders(root):
            if not _FINGERPRINT.fullmatch(name):
                remove_tree(join(root, name))
        for name in list_names(root):
            if name != LOCK:
                remove(join(root, name))
    else:
        remove_tree(work)


def _work_names(root: str) -> list[str]:
    return [name for name in list_folders(root) if _FINGERPRINT.fullmatch(name)]


def sample_file(work: str) -> str:
    return join(work, "sample.jsonl")


def sample_inputs_file(work: str) -> str:
    return join(work, "sample-inputs.json")


def asked_file(work: str) -> str:
    return join(work, ASKED)


def versions_file(work: str) -> str:
    return join(work, "versions.json")


def switches_file(work: str) -> str:
    return join(work, "switches.json")


def status_file(work: str) -> str:
    return join(work, "status.json")


def replaces_file(work: str) -> str:
    return join(work, "replaces.json")


def result_folder(work: str) -> str:
    """Return the folder of files that become part of the stage's result."""
    return join(work, RESULT)


def lock_file(stage_folder: str) -> str:
    return join(work_root(stage_folder), LOCK)


def held_out_record(work: str) -> str:
    return join(work, "held-out.json")


def plan_file(work: str) -> str:
    return join(work, "plan.bin")


def unit_record(work: str, unit: int) -> str:
    return join(work, "units", f"{unit:06d}.json")


def segments_record(work: str, unit: int) -> str:
    return join(work, "segments", f"{unit:06d}.json")


def part_file(work: str, name: str) -> str:
    return join(work, "parts", name)


def packed_part(work: str, name: str) -> str:
    return part_file(work, f"{name}.zst")


def part_record(work: str, unit: int, part: int) -> str:
    return part_file(work, f"{unit:06d}-{part:03d}.json")


def counts_file(work: str, group: int) -> str:
    return join(work, "counts", f"{group:06d}.bin")


def group_record(work: str, units: range) -> str:
    """Return the path of the record of a group of units whose last pass is finished."""
    return join(work, "groups", f"{units.start:06d}-{units.stop:06d}.json")


def finished_record(work: str, unit: int) -> str:
    return join(work, "finished", f"{unit:06d}.json")


def drop_list(work: str, kind: str, number: int) -> str:
    # Lists of former versions, grouped by unit, are called .bin and .pairs and not read.
    return join(work, "drops", f"{kind}-{number:06d}.runs")


def run_drops(work: str, kind: str, run: int) -> str:
    return join(work, "run-drops", f"{kind}-{run:06d}.units")


def copies_record(work: str, kind: str, number: int) -> str:
    return join(work, "copies", f"{kind}-{number:06d}.json")


def shuffle_folder(work: str, name: str) -> str:
    """Return the folder of the `Shuffle` with this name: "hashes", "bands" or "word-counts"."""
    return join(work, name)


def word_record(work: str, unit: int) -> str:
    return join(work, "word-counts", f"{unit:06d}.json")


def sorted_words(work: str, bucket: int) -> str:
    # Lists of former versions, without checksums, are called .bin and not read.
    return join(work, "vocabulary", f"{bucket:06d}.words")


def progress_folder(work: str) -> str:
    return join(work, "progress")


def job_file(work: str) -> str:
    return join(work, "job.json")


def failures_folder(work: str) -> str:
    return join(work, "failures")


def checkpoint_file(work: str, step: int) -> str:
    return join(work, f"step-{step:09d}.ckpt")


def checkpoint_steps(work: str) -> list[int]:
    """Return the steps that have a checkpoint, in rising order."""
    return _steps(work, "step")


def best_file(work: str, step: int) -> str:
    return join(work, f"best-{step:09d}.ckpt")


def best_steps(work: str) -> list[int]:
    """Return the steps whose weights are kept because their evaluation was the best, in rising order."""
    return _steps(work, "best")


def _steps(work: str, kind: str) -> list[int]:
    matches = (_CHECKPOINT.fullmatch(name) for name in list_names(work))
    return sorted(int(match[2]) for match in matches if match and match[1] == kind)


def read_unit_record(work: str, unit: int) -> dict[str, Any]:
    """Return the record of a unit's first pass: its counts, parts and raw byte ranges."""
    return read_done(work, unit_record(work, unit))


def read_finished_record(work: str, unit: int) -> dict[str, Any]:
    """Return the record of a unit's last pass: its files and what was dropped."""
    return read_done(work, finished_record(work, unit))


def write_done(work: str, path: str, record: dict[str, Any]) -> None:
    """Write a record of finished work, which repeats the fingerprint of its request."""
    write_record(path, {**record, _STAMP: _name(work)})


def is_done(work: str, path: str) -> bool:
    """Return True if a record of finished work exists; it may raise the errors of `read_done`."""
    # One request; to ask a store whether a missing object exists takes two.
    try:
        read_done(work, path)
    except FileNotFoundError:
        return False
    return True


def read_done(work: str, path: str) -> dict[str, Any]:
    """Return a record of finished work.

    Raises:
        FileNotFoundError: the record has not been written.
        UserError: the record is damaged, or belongs to another request.
    """
    record: dict[str, Any] = read_record(path)
    if not isinstance(record, dict):
        raise damaged_work(path, "it is not a JSON object")
    # Version 0.1 did not write it.
    stamp = record.pop(_STAMP, _name(work))
    if stamp != _name(work):
        raise UserError(
            f"{path}: this record belongs to other settings or inputs ({stamp}); delete {work} to "
            "start again"
        )
    return record


def _name(work: str) -> str:
    return work.rstrip("/").rpartition("/")[2]

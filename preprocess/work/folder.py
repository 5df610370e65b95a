"""The layout of a stage's folder of unfinished work; no other module knows it.

    _work/
      asked.json               settings and inputs that the work was started with
      lock.json                the process that writes the stage
      plan.bin                 the units of work (`preprocess.reading.plan_file`)
      units/000012.json        record of a unit: its first pass is finished
      segments/000012.json     record of a unit's closed segments, while its first pass runs
      parts/train-000012-003.bin, .npy    tokens and documents of a closed segment (prepare)
      parts/000012-003.json    record of a written vector shard (embed)
      counts/000012.bin        token counts of a unit
      finished/000012.json     record of a unit: its last pass is finished
      hashes/, bands/          keys for deduplication (`preprocess.corpus.dedup`), a `Shuffle` each
      drops/hashes-000012.bin  documents to drop according to bucket 12 of the hashes
      copies/hashes-000012.json           how often the repeated keys of this bucket occur
      word-counts/             word counts (`preprocess.tokenizers.word_counts`), a `Shuffle`
      word-counts/000012.json  record of a unit: its words are counted
      vocabulary/000012.bin    words of a bucket in the order of their ids
      progress/000012.json     counts of a unit, rewritten while it runs
      failures/...             messages of workers that failed
      step-000001000.ckpt      checkpoints of an unfinished training

A record is a JSON file that is written after the files it describes, so these are complete. In the
functions below, ``work`` is the path or URL of this folder, ``unit`` the number of a unit of work,
and ``kind`` "hashes" or "bands".
"""

import json
import re
from typing import Any

from preprocess.files.storage import exists, join, list_names, read_bytes, write_bytes

NAME = "_work"
ASKED = "asked.json"
_CHECKPOINT = re.compile(r"step-(\d+)\.ckpt")


def work_folder(stage_folder: str) -> str:
    """Return the folder of unfinished work in the folder of a stage."""
    return join(stage_folder, NAME)


def asked_file(work: str) -> str:
    return join(work, ASKED)


def lock_file(work: str) -> str:
    return join(work, "lock.json")


def plan_file(work: str) -> str:
    return join(work, "plan.bin")


def unit_record(work: str, unit: int) -> str:
    return join(work, "units", f"{unit:06d}.json")


def segments_record(work: str, unit: int) -> str:
    return join(work, "segments", f"{unit:06d}.json")


def part_file(work: str, name: str) -> str:
    return join(work, "parts", name)


def part_record(work: str, unit: int, part: int) -> str:
    return part_file(work, f"{unit:06d}-{part:03d}.json")


def counts_file(work: str, unit: int) -> str:
    return join(work, "counts", f"{unit:06d}.bin")


def finished_record(work: str, unit: int) -> str:
    return join(work, "finished", f"{unit:06d}.json")


def drop_list(work: str, kind: str, bucket: int) -> str:
    return join(work, "drops", f"{kind}-{bucket:06d}.bin")


def copies_record(work: str, kind: str, bucket: int) -> str:
    return join(work, "copies", f"{kind}-{bucket:06d}.json")


def shuffle_folder(work: str, name: str) -> str:
    """Return the folder of the `Shuffle` with this name: "hashes", "bands" or "word-counts"."""
    return join(work, name)


def word_record(work: str, unit: int) -> str:
    return join(work, "word-counts", f"{unit:06d}.json")


def sorted_words(work: str, bucket: int) -> str:
    return join(work, "vocabulary", f"{bucket:06d}.bin")


def progress_folder(work: str) -> str:
    return join(work, "progress")


def failures_folder(work: str) -> str:
    return join(work, "failures")


def checkpoint_file(work: str, step: int) -> str:
    return join(work, f"step-{step:09d}.ckpt")


def checkpoint_steps(work: str) -> list[int]:
    """Return the steps that have a checkpoint, in rising order."""
    matches = (_CHECKPOINT.fullmatch(name) for name in list_names(work))
    return sorted(int(match[1]) for match in matches if match)


def read_unit_record(work: str, unit: int) -> dict[str, Any]:
    """Return the record of a unit's first pass: its counts, parts and raw byte ranges."""
    return read_record(unit_record(work, unit))


def read_finished_record(work: str, unit: int) -> dict[str, Any]:
    """Return the record of a unit's last pass: its files and what was dropped."""
    return read_record(finished_record(work, unit))


def write_record(path: str, record: Any) -> None:
    """Write a JSON record atomically."""
    write_bytes(path, json.dumps(record).encode())


def read_record(path: str) -> dict[str, Any]:
    """Return a record.

    Raises:
        FileNotFoundError: the record has not been written.
    """
    record: dict[str, Any] = json.loads(read_bytes(path))
    return record


def read_record_if_written(path: str) -> dict[str, Any] | None:
    """Return a record, or None if it has not been written."""
    return read_record(path) if exists(path) else None


def record_counts(work: str) -> tuple[int, int, int]:
    """Return how many unit records, drop lists and finished records have been written."""
    units, drops, finished = (
        len(list_names(join(work, name))) for name in ("units", "drops", "finished")
    )
    return units, drops, finished


def unit_records(work: str) -> list[str]:
    """Return the paths of all unit records, in the order of units."""
    folder = join(work, "units")
    return [join(folder, name) for name in list_names(folder)]


def word_records(work: str) -> list[str]:
    """Return the paths of the records of all units whose words are counted, in the order of units."""
    folder = join(work, "word-counts")
    return [join(folder, name) for name in list_names(folder) if name.endswith(".json")]

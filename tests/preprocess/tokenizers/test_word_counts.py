"""Word counts through files: the vocabulary does not depend on units, memory or interruptions."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.config import PrepareConfig
from preprocess.files.storage import TEMPORARY
from preprocess.reading.listing import list_source
from preprocess.reading.units import Unit, plan_units
from preprocess.text.config import SPLITS
from preprocess.text.splits import splits_of, text_hash
from preprocess.tokenizers import word_counts
from preprocess.tokenizers.word_counts import (
    CountJob,
    count_unit,
    merge_bucket,
    merge_run,
    merged_words,
    read_counted,
    word_buckets,
)
from preprocess.work.damage import DamagedWork

LINES = [f"w{n % 7} слово{n % 23} 猫{n * n % 41} only{n}" for n in range(240)]


def split_of(content: int, valid_fraction: float, test_fraction: float) -> str:
    """Return the split of a content hash."""
    high = np.array([content >> 64], np.uint64)
    return SPLITS[int(splits_of(high, valid_fraction, test_fraction)[0])]


def plan(
    folder: Path, lines: list[str], min_count: int = 1, buckets: int = 3, **settings_: Any
) -> tuple[CountJob, list[Unit]]:
    text = folder / "text.txt"
    text.write_text("".join(f"{line}\n" for line in lines))
    config = PrepareConfig(**{"input": str(text), "valid_fraction": 0.3, **settings_})
    files = [list_source(source) for source in config.sources]
    units = plan_units(config.sources, files, config.unit_bytes)
    return CountJob(str(folder / "_work"), config, min_count, buckets, len(units)), units


def run(job: CountJob, units: list[Unit]) -> list[str]:
    for unit in reversed(units):
        assert count_unit(job, unit) == unit.index
    for number in range(job.layout.runs):
        assert merge_run(job, number) == number
    for bucket in range(job.buckets):
        assert merge_bucket(job, bucket) == bucket
    return [word.decode() for word in merged_words(job)]


def expected(lines: list[str], config: PrepareConfig, min_count: int = 1) -> list[str]:
    sides: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for line in lines:
        split = split_of(text_hash(line.encode()), config.valid_fraction, config.test_fraction)
        sides[split == "train"].update(line.split())
    train, held_out = sides[True], sides[False]
    words = [word for word in train if train[word] >= min_count]
    words.sort(key=lambda word: (-train[word], word))
    if min_count > 1:
        return words
    rest = sorted(held_out.keys() - train.keys(), key=lambda w: (-held_out[w], w.encode()))
    return words + rest


def test_words_are_sorted_by_count_in_train_then_in_held_out_text(tmp_path: Path) -> None:
    job, units = plan(tmp_path, LINES)
    words = run(job, units)
    assert words == expected(LINES, job.config)
    train = [w for w in words if any(w in line.split() for line in LINES)]
    assert len(train) == len({word for line in LINES for word in line.split()})
    counted = read_counted(job)
    sides = [split_of(text_hash(line.encode()), 0.3, 0.0) for line in LINES]
    assert counted["documents"] == sides.count("train")
    own = [line for line, side in zip(LINES, sides, strict=True) if side == "train"]
    assert counted["bytes"] == sum(len(line.encode()) for line in own)


def test_words_below_min_count_and_held_out_words_are_left_out(tmp_path: Path) -> None:
    job, units = plan(tmp_path, LINES, min_count=3)
    words = run(job, units)
    assert words == expected(LINES, job.config, 3)
    assert not [word for word in words if word.startswith("only")]


@pytest.mark.parametrize(("unit_bytes", "buckets", "held"), [(1024, 1, 10**6), (1300, 5, 20)])
def test_the_vocabulary_does_not_depend_on_units_buckets_or_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit_bytes: int, buckets: int, held: int
) -> None:
    monkeypatch.setattr(word_counts, "TYPES_HELD", held)
    monkeypatch.setattr(word_counts, "BLOCK_WORDS", 4)
    job, units = plan(tmp_path, LINES, buckets=buckets, unit_bytes=unit_bytes)
    assert len(units) > 3
    assert run(job, units) == expected(LINES, job.config)


def test_counts_written_early_are_not_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_counts, "TYPES_HELD", 20)
    job, units = plan(tmp_path, LINES, min_count=2)
    assert run(job, units) == expected(LINES, job.config, 2)


def test_the_split_of_a_source_and_filters_apply_to_word_counts(tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("held-out\nx\n")
    sources = [
        {"name": "a", "path": str(tmp_path / "text.txt"), "split": "train"},
        {"name": "b", "path": str(tmp_path / "held.txt"), "split": "valid"},
    ]
    filters = {"min_characters": 3}
    job, units = plan(tmp_path, ["aaa bbb", "aaa", "c"], input=sources, filters=filters)
    assert run(job, units) == ["aaa", "bbb", "held-out"]
    assert read_counted(job) == {"documents": 2, "bytes": 10}


def test_a_rerun_makes_only_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, units = plan(tmp_path, LINES, unit_bytes=1024)
    words = run(job, units)
    work = Path(job.work)
    files = [*work.rglob("*.bin"), *work.rglob("*.words")]
    stamps = {path: path.stat().st_mtime_ns for path in files}
    records = sorted((work / "word-counts").glob("*.json"))
    records[1].unlink()
    lost = work / "vocabulary" / "000001.words"
    lost.unlink()
    assert run(job, units) == words
    changed = {path.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"000001-0000.bin", "000001.words"}
    assert not list(work.rglob(f"{TEMPORARY}*"))
    assert json.loads(records[0].read_text())["documents"] > 0


def test_a_damaged_list_of_words_is_told(tmp_path: Path) -> None:
    job, units = plan(tmp_path, LINES)
    run(job, units)
    path = Path(job.work) / "vocabulary" / "000000.words"
    whole = path.read_bytes()
    for index in range(len(whole)):
        damaged = bytearray(whole)
        damaged[index] ^= 1 << index % 8
        path.write_bytes(damaged)
        with pytest.raises(DamagedWork, match=r"000000\.words is damaged \(.*\); delete "):
            list(merged_words(job))
    path.write_bytes(whole[:-1])
    with pytest.raises(DamagedWork, match="its checksum does not match"):
        list(merged_words(job))


def test_an_interrupted_bucket_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, units = plan(tmp_path, LINES)
    words = run(job, units)
    (Path(job.work) / "vocabulary" / "000000.words").unlink()

    def die(rows: Any) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(word_counts, "_block", die)
        with pytest.raises(KeyboardInterrupt):
            merge_bucket(job, 0)
    assert not (Path(job.work) / "vocabulary" / "000000.bin").exists()
    assert run(job, units) == words


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**63), st.integers(0, 2**63), st.binary(max_size=20))),
)
def test_a_block_of_rows_reads_back(rows: list[tuple[int, int, bytes]]) -> None:
    file = io.BytesIO(word_counts._block(rows) + b"next")
    assert list(word_counts._read_block(file)) == rows
    assert file.read() == b"next"


def test_the_number_of_buckets_follows_from_the_size_up_to_a_limit() -> None:
    assert word_buckets(0) == word_buckets(4 << 20) == 1
    assert word_buckets(100 << 20) == 25
    assert word_buckets(1 << 50) == 256

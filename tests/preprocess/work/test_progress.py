"""Progress records: when they are written, and their sums."""

import json
from collections import Counter
from pathlib import Path

import pytest

from preprocess.files.storage import TEMPORARY, read_bytes
from preprocess.work import progress
from preprocess.work.progress import WRITE_SECONDS, Progress, ProgressSums


def report(work: Path, unit: int, final: bool = True, tokens: int = 5) -> Progress:
    """Write a progress record with some counts."""
    one = Progress(str(work), unit)
    one.bytes, one.documents, one.tokens = 10, 2, tokens
    one.dropped = (Counter(empty=3),)
    one.write(final=True)
    if not final:
        record = work / "progress" / f"{unit:06d}.json"
        record.write_text(record.read_text().replace("true", "false"))
    return one


def test_counts_are_written_every_few_seconds_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    one = Progress(str(tmp_path), 7)
    record = tmp_path / "progress" / "000007.json"
    one.bytes, one.documents, one.tokens = 10, 2, 5
    one.dropped = (Counter(invalid_json=1), Counter(empty=2))
    one.write()
    begun = {"bytes": 0, "documents": 0, "tokens": 0, "writes": 1}
    assert json.loads(record.read_text()) == {"final": False, "counts": begun}
    now += WRITE_SECONDS + 0.1
    one.write()
    dropped = {"dropped.invalid_json": 1, "dropped.empty": 2}
    counts = {"bytes": 10, "documents": 2, "tokens": 5, "writes": 2, **dropped}
    assert json.loads(record.read_text()) == {"final": False, "counts": counts}
    one.tokens = 6
    one.write()
    assert json.loads(record.read_text())["counts"]["tokens"] == 5
    one.write(final=True)
    assert json.loads(record.read_text()) == {
        "final": True,
        "counts": {**counts, "tokens": 6, "writes": 3},
    }


def test_sums_ignore_temporary_files_of_killed_writers(tmp_path: Path) -> None:
    assert ProgressSums(str(tmp_path)).read() == {}
    for unit in (0, 1):
        report(tmp_path, unit)
    (tmp_path / "progress" / f"{TEMPORARY}host-1-000002.json").write_text('{"byt')
    expected = {"bytes": 20, "documents": 4, "tokens": 10, "writes": 4, "dropped.empty": 6}
    assert ProgressSums(str(tmp_path)).read() == expected


def test_a_finished_unit_is_read_once_and_a_running_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def reading(path: str) -> bytes:
        read.append(Path(path).stem)
        return read_bytes(path)

    monkeypatch.setattr(progress, "read_bytes", reading)
    sums = ProgressSums(str(tmp_path))
    report(tmp_path, 0)
    report(tmp_path, 1, final=False)
    assert sums.read()["tokens"] == 10
    report(tmp_path, 1, final=False, tokens=7)
    report(tmp_path, 2, final=False)
    assert sums.read()["tokens"] == 17
    report(tmp_path, 1, tokens=8)
    assert sums.read()["tokens"] == 18
    assert sums.read() == {
        "bytes": 30,
        "documents": 6,
        "tokens": 18,
        "writes": 6,
        "dropped.empty": 9,
    }
    assert read == ["000000", "000001", "000001", "000002", "000001", "000002", "000002"]


def test_a_half_written_record_raises_and_later_reads_are_right(tmp_path: Path) -> None:
    sums = ProgressSums(str(tmp_path))
    report(tmp_path, 0)
    report(tmp_path, 1)
    record = tmp_path / "progress" / "000001.json"
    whole = record.read_text()
    record.write_text(whole[:10])
    with pytest.raises(ValueError, match="Expecting value"):
        sums.read()
    record.write_text(whole)
    assert sums.read()["tokens"] == 10


def test_a_further_step_reports_that_it_runs_if_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    sums = ProgressSums(str(tmp_path))
    report(tmp_path, 3)
    before = sums.read()
    quick = Progress(str(tmp_path), 3, "last-pass")
    quick.write()
    quick.write(final=True)
    assert sums.read() == before
    slow = Progress(str(tmp_path), 3, "last-pass")
    for writes in (1, 2):
        now += WRITE_SECONDS + 0.1
        slow.write()
        assert sums.read() == before + Counter(writes=writes)
    slow.write(final=True)
    assert sums.read() == before + Counter(writes=3)

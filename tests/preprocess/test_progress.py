"""Progress through files: rarely written, summed whole."""

import json
from pathlib import Path

import pytest

from preprocess import progress
from preprocess.progress import TELL_SECONDS, Progress, progress_sums
from preprocess.storage import TEMPORARY


def test_a_unit_tells_its_counts_when_they_are_due_and_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    one = Progress(str(tmp_path), 7)
    record = tmp_path / "progress" / "000007.json"
    one.bytes, one.documents, one.tokens = 10, 2, 5
    one.tell()
    assert not record.exists()
    now += TELL_SECONDS + 0.1
    one.tell()
    assert json.loads(record.read_text()) == {"bytes": 10, "documents": 2, "tokens": 5}
    one.tokens = 6
    one.tell()
    assert json.loads(record.read_text())["tokens"] == 5
    one.tell(final=True)
    assert json.loads(record.read_text())["tokens"] == 6


def test_sums_leave_out_what_a_killed_writer_left(tmp_path: Path) -> None:
    assert progress_sums(str(tmp_path)) == {}
    for unit in (0, 1):
        one = Progress(str(tmp_path), unit)
        one.bytes, one.documents, one.tokens = 10, 2, 5
        one.tell(final=True)
    (tmp_path / "progress" / f"{TEMPORARY}host-1-000002.json").write_text('{"byt')
    assert progress_sums(str(tmp_path)) == {"bytes": 20, "documents": 4, "tokens": 10}

"""The file of metrics."""

import json
from pathlib import Path

import pytest

from lightning_modules.training.metrics_file import MetricsFile
from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.write_checks import checked_writes


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_can_be_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(str(path), 0)
    file.put({"step": 1, "loss": 2.5})

    assert rows(path) == [{"step": 1, "loss": 2.5}]


def test_lines_after_the_step_and_an_incomplete_line_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {n}}}\n' for n in (1, 2, 2, 3, 4)) + '{"step": 2, "lo')

    MetricsFile(str(path), 2).put({"step": 3, "again": True})

    assert rows(path) == [{"step": 1}, {"step": 2}, {"step": 2}, {"step": 3, "again": True}]


@pytest.mark.parametrize(
    "damaged",
    [b'{"step": 2, "lo\xeass": 1}', b'{"stfp": 2}', b"[2]", b'{"step": null}', b"\xff\xfe"],
)
def test_a_damaged_line_is_removed(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damaged + b'\n{"step": 3}\n')

    MetricsFile(str(path), 3)

    assert rows(path) == [{"step": 1}, {"step": 3}]


def test_infinity_and_nan_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsFile(str(path), 0).put({"step": 1, "loss": float("nan"), "norm": float("inf")})

    assert rows(path) == [{"step": 1, "loss": None, "norm": None}]


def test_on_a_remote_store_save_uploads_the_whole_file() -> None:
    path = "memory://metrics-file/metrics.jsonl"
    file = MetricsFile(path, 0)
    file.put({"step": 1})
    before = storage.read_bytes(path)
    file.save()

    assert before == b""
    assert storage.read_bytes(path) == b'{"step": 1}\n'


def test_a_full_disk_is_reported_with_the_path() -> None:
    file = MetricsFile.__new__(MetricsFile)
    file._path, file._remote, file._lines = "/dev/full", False, []

    with pytest.raises(StorageError, match=r"/dev/full: cannot be written \(No space left"):
        file.put({"step": 1})


def test_a_process_that_may_not_write_appends_nothing(tmp_path: Path) -> None:
    metrics = MetricsFile(str(tmp_path / "metrics.jsonl"), 0)
    metrics.put({"step": 1})

    def refuse() -> None:
        raise StorageError("not yours")

    with (
        checked_writes("name", str(tmp_path), refuse),
        pytest.raises(StorageError, match="not yours"),
    ):
        metrics.put({"step": 2})
    assert rows(tmp_path / "metrics.jsonl") == [{"step": 1}]

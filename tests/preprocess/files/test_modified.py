"""The time of a file's last writing, where its store tells it."""

import os
import time
from pathlib import Path

import fsspec
import pytest

from preprocess.files import storage
from preprocess.files.modified import modified


def test_a_local_file_has_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    os.utime(path, (0, 1_700_000_000.5))
    assert modified(str(path)) == 1_700_000_000.5


def test_a_file_in_a_store_has_its_time() -> None:
    storage.write_bytes("memory://modified/a", b"")
    written = modified("memory://modified/a")
    assert written is not None
    assert abs(written - time.time()) < 60


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    for path in (f"{tmp_path}/none", "memory://modified/none"):
        with pytest.raises(FileNotFoundError):
            modified(path)


def test_a_store_that_tells_no_time_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_time(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "modified", no_time)
    storage.write_bytes("memory://modified/a", b"")
    assert modified("memory://modified/a") is None

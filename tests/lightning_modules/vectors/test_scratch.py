"""Arrays in memory, or in a temporary file if they are too large."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from lightning_modules.vectors.scratch import ScratchError, allocate


def test_a_small_array_is_in_memory_and_a_large_one_in_an_unnamed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    small, large = allocate((2, 3, 4), 96), allocate((2, 3, 4), 95)

    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    large[:] = 7
    assert large.sum() == 7 * 24
    assert list(tmp_path.iterdir()) == [], "the file has no name"


def test_a_full_disk_is_reported_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(
        ScratchError, match=r"no room for 96 bytes .* set TMPDIR to a folder on a larger"
    ):
        allocate((2, 3, 4), 10)

"""Which files and directory entries are flushed to disk, and when."""

import os
from pathlib import Path

import pytest

from preprocess.files.durability import never_synced, synced_together
from preprocess.files.storage import write_bytes


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files and folders that were flushed (fsync), in order."""
    names: list[str] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)  # noqa: PTH115
        fsync(handle)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell the name of an open file")
    monkeypatch.setattr(os, "fsync", record)
    return names


def test_a_single_file_is_flushed_under_its_temporary_name(
    tmp_path: Path, synced: list[str]
) -> None:
    write_bytes(str(tmp_path / "a"), b"1")
    assert len(synced) == 2
    assert synced[0].endswith("-a")
    assert synced[1] == tmp_path.name


def test_files_of_a_block_are_flushed_at_its_end(tmp_path: Path, synced: list[str]) -> None:
    with synced_together():
        write_bytes(str(tmp_path / "x" / "a"), b"1")
        write_bytes(str(tmp_path / "x" / "b"), b"2")
        write_bytes(str(tmp_path / "y" / "c"), b"3")
        assert not synced
        assert (tmp_path / "x" / "a").read_bytes() == b"1"
    assert synced == ["a", "b", "c", "x", "y"]
    write_bytes(str(tmp_path / "d"), b"4")
    assert len(synced) == 7


def test_a_block_that_raises_flushes_nothing(tmp_path: Path, synced: list[str]) -> None:
    with pytest.raises(KeyError), synced_together():  # noqa: PT012
        write_bytes(str(tmp_path / "a"), b"1")
        raise KeyError
    assert not synced
    write_bytes(str(tmp_path / "b"), b"1")
    assert len(synced) == 2


def test_files_written_in_never_synced_are_not_flushed(tmp_path: Path, synced: list[str]) -> None:
    with synced_together():
        write_bytes(str(tmp_path / "a"), b"1")
        with never_synced():
            write_bytes(str(tmp_path / "b"), b"1")
    assert synced == ["a", tmp_path.name]

"""Troubles with files and stores: which are told, with what path, and which pass as they are."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from preprocess.files import storage
from preprocess.files.errors import ToldStore
from preprocess.files.storage import StorageError, StoreError


class ClientError(Exception):
    """What the client of a store raises: no OSError."""


class Failing:
    """A file system, or a file of one, that fails in one way."""

    size = 5

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.closed = False

    def read(self, *arguments: Any) -> bytes:
        raise self._error

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "(No space left on device); make room"),
        (errno.EFBIG, "(File too large); make room"),
        (errno.EROFS, "(Read-only file system); give the right to write there"),
    ],
)
def test_a_write_that_fails_for_want_of_room_or_rights_names_its_file_and_leaves_the_old_one(
    number: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a.bin"
    storage.write_bytes(str(path), b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(str(path), b"new")
    assert str(caught.value) == (
        f"{path}: cannot be written {hint} and the same command goes on from here, or choose "
        "another run.output"
    )
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]


def test_a_broken_disk_is_no_mistake_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        storage.write_bytes(str(tmp_path / "a.bin"), b"new")


@pytest.mark.parametrize(
    "error", [ClientError("slow\ndown"), OSError(121, "out of order"), TimeoutError("too long")]
)
def test_what_a_store_or_its_client_finds_wrong_is_told_with_the_path(error: Exception) -> None:
    with (
        pytest.raises(StoreError) as caught,
        ToldStore(Failing(error), "s3://corpora/a.txt") as file,
    ):
        file.read(3)
    text = " ".join(str(error).split())
    assert str(caught.value) == (
        f"s3://corpora/a.txt: the store gave an error ({type(error).__name__}: {text}); see that it "
        "answers, and the same command goes on from here"
    )


def test_a_missing_file_and_a_fault_of_ours_pass_as_they_are() -> None:
    for error in (FileNotFoundError("no such key"), TypeError("an argument is missing")):
        with pytest.raises(type(error)) as caught:
            ToldStore(Failing(error), "s3://corpora/a.txt").read()
        assert caught.value is error


def test_a_missing_right_in_a_stores_words_gets_its_number_and_path() -> None:
    with pytest.raises(PermissionError) as caught:
        ToldStore(Failing(PermissionError("Access Denied")), "s3://corpora/a.txt").read()
    assert (caught.value.errno, caught.value.strerror) == (errno.EACCES, "Access Denied")
    assert caught.value.filename == "s3://corpora/a.txt"


def test_what_is_no_call_is_handed_on_and_a_block_closes_the_file() -> None:
    inner = Failing(ValueError())
    with ToldStore(inner, "s3://corpora/a.txt") as file:
        assert file.size == 5
    assert inner.closed

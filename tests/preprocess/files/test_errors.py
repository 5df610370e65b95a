"""Errors of disks and stores: which are converted to messages with the path, and which pass."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from preprocess.files import storage
from preprocess.files.errors import DiskFull, ReportingStore, StorageError, StoreError


class ClientError(Exception):
    """An error of a store's client that is not an OSError."""


class Failing:
    """A file system or file whose reads raise an error."""

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
        (errno.ENOSPC, "(No space left on device); free some space"),
        (errno.EFBIG, "(File too large); free some space"),
        (errno.EROFS, "(Read-only file system); change its permissions"),
    ],
)
def test_a_write_without_space_or_permission_names_the_file_and_keeps_the_old_one(
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
        f"{path}: cannot be written {hint} and run the same command to resume, or choose another "
        "run.output"
    )
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"]


def test_a_broken_disk_is_not_reported_as_a_user_error(
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
def test_errors_of_a_store_or_its_client_name_the_path(error: Exception) -> None:
    with (
        pytest.raises(StoreError) as caught,
        ReportingStore(Failing(error), "s3://corpora/a.txt") as file,
    ):
        file.read(3)
    text = " ".join(str(error).split())
    assert str(caught.value) == (
        f"s3://corpora/a.txt: the store reported an error ({type(error).__name__}: {text}); check "
        "that it is reachable and run the same command to resume"
    )


@pytest.mark.parametrize(
    ("status", "code", "is_full"),
    [
        (507, "XMinioStorageFull", True),
        (403, "QuotaExceeded", True),
        (400, "XMinioAdminBucketQuotaExceeded", True),
        (503, "SlowDown", False),
        (500, "InternalError", False),
    ],
)
def test_a_store_without_room_is_told_from_one_that_fails(
    status: int, code: str, is_full: bool
) -> None:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = OSError(errno.EIO, "no thanks")
    error.__cause__ = ClientError(code)
    error.__cause__.response = response  # type: ignore[attr-defined]
    with pytest.raises(StorageError) as caught:
        ReportingStore(Failing(error), "s3://corpora/a.txt").read()
    assert type(caught.value) is (DiskFull if is_full else StoreError)
    if is_full:
        assert str(caught.value) == (
            f"s3://corpora/a.txt: the store is full ({code}: OSError: [Errno 5] no thanks); free some "
            "space or raise its quota, and run the same command to resume"
        )


def test_a_missing_file_and_a_bug_of_ours_pass_unchanged() -> None:
    for error in (FileNotFoundError("no such key"), TypeError("an argument is missing")):
        with pytest.raises(type(error)) as caught:
            ReportingStore(Failing(error), "s3://corpora/a.txt").read()
        assert caught.value is error


@pytest.mark.parametrize(
    "error", [PermissionError("Access Denied"), PermissionError(errno.EACCES, "Access Denied")]
)
def test_refused_access_is_not_an_error_that_may_pass(error: PermissionError) -> None:
    with pytest.raises(StorageError) as caught:
        ReportingStore(Failing(error), "s3://corpora/a.txt").read()
    assert type(caught.value) is StorageError
    assert str(caught.value) == (
        "s3://corpora/a.txt: access was refused (Access Denied); check the credentials and their rights"
    )


def test_attributes_are_passed_through_and_a_with_block_closes_the_file() -> None:
    inner = Failing(ValueError())
    with ReportingStore(inner, "s3://corpora/a.txt") as file:
        assert file.size == 5
    assert inner.closed

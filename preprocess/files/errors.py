"""Errors of local disks and object stores, reported with the path and a remedy."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any

from preprocess.errors import JobError, UserError, one_line, without_secrets_of

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, an exhausted quota, or a file above the size limit."""
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
# Stores without folders, where a missing path at a write means that the bucket is missing.
_BUCKET_PROTOCOLS = ("s3", "s3a", "gs", "gcs")

# Codes of MinIO and Ceph for an exhausted quota; a full store answers with the status 507.
_FULL = ("QuotaExceeded", "XMinioAdminBucketQuotaExceeded")


class StorageError(UserError):
    """A path or URL that cannot be read or written; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class DiskFull(StorageError, JobError):  # noqa: N818
    """A disk without room for a file, or a file above the size limit; the same command resumes."""


class StoreError(StorageError):
    """An error of a remote store that may be temporary, so a Beam engine may retry."""


def store_failed(path: str, error: Exception) -> StorageError:
    """Return the error of a store or its client, with the URL and what to do.

    It is `DiskFull` if the store has no room, and otherwise `StoreError`.
    """
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    reason = without_secrets_of(path, reason)
    if code := _full(error):
        return DiskFull(
            f"{path}: the store is full ({code}: {reason}); free some space or raise its quota, and "
            "run the same command to resume"
        )
    return StoreError(
        f"{path}: the store reported an error ({reason}); check that it is reachable and run the "
        "same command to resume"
    )


def _full(error: Exception) -> str:
    """Return the code by which an S3 store says that it has no room; empty for other errors."""
    # s3fs replaces the client's error, and keeps it as the cause.
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    if not isinstance(response, dict):
        return ""
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return code if status == HTTPStatus.INSUFFICIENT_STORAGE or code in _FULL else ""


class DamagedArchive(OSError):  # noqa: N818
    """An archive or a member of one that cannot be read; ``strerror`` says why."""


_ARCHIVE_MODULES = ("zipfile", "tarfile", "zlib", "_lzma", "gzip")


@contextmanager
def archive_errors(path: str) -> Iterator[None]:
    """Convert the errors of a damaged archive in the block to `DamagedArchive`.

    Args:
        path: chained URL of the member, for the message.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__ in _ARCHIVE_MODULES or isinstance(error, EOFError):
            raise DamagedArchive(errno.EIO, str(error), path) from error
        raise


@contextmanager
def report_write_errors(path: str) -> Iterator[None]:
    """Convert the `OSError` of a full disk or missing permissions in the block to `StorageError`.

    Args:
        path: the file that the block writes, for the message.

    Raises:
        DiskFull: the disk is full. Other errors than the two pass unchanged.
        StorageError: ``path`` may not be written.
    """
    try:
        yield
    except OSError as error:
        kind = StorageError
        if error.errno in NO_SPACE:
            kind, hint = DiskFull, "free some space"
        elif error.errno in _NO_PERMISSION:
            hint = "change its permissions"
        else:
            raise
        raise kind(
            f"{path}: cannot be written ({error.strerror}); {hint} and run the same command to "
            "resume, or choose another run.output"
        ) from error


class ReportingStore:
    """Wrapper of an fsspec file system or open file, whose errors name the path.

    Attributes and methods are those of the wrapped object. A method call raises `StoreError` if the
    store or its client fails, `DiskFull` if the store is full, and `StorageError` if access is refused.
    `FileNotFoundError` and builtin exceptions other than `OSError` pass unchanged.

    Args:
        inner: the file system or file.
        path: the URL for messages.
    """

    def __init__(self, inner: Any, path: str) -> None:
        self._inner, self._path = inner, path

    def __enter__(self) -> "ReportingStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()

    def put_finished(self, inner: str, put: Callable[[], object]) -> None:
        """Call ``put``; if the parent folder is missing, create it and call ``put`` again.

        Args:
            inner: path of the file inside the store.
            put: writes the file.

        Raises:
            StorageError: the bucket does not exist.
        """
        try:
            put()
        except FileNotFoundError as error:
            if self._path.split("://", 1)[0] in _BUCKET_PROTOCOLS:
                raise StorageError(
                    f"{self._path}: the bucket does not exist; create it or use another one"
                ) from error
            self.makedirs(str(PurePosixPath(inner).parent), exist_ok=True)
            put()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        return self._reporting(attribute) if callable(attribute) else attribute

    def _reporting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def reporting(*arguments: Any, **options: Any) -> Any:
            try:
                with archive_errors(self._path):
                    return call(*arguments, **options)
            except (FileNotFoundError, DamagedArchive):
                raise
            except PermissionError as error:
                reason = without_secrets_of(self._path, error.strerror or str(error))
                raise StorageError(
                    f"{self._path}: access was refused ({reason}); check the credentials and their "
                    "rights"
                ) from error
            except Exception as error:
                # Clients raise classes of their own; a bug of ours raises a builtin class.
                if not isinstance(error, OSError) and type(error).__module__ == "builtins":
                    raise
                raise store_failed(self._path, error) from error

        return reporting

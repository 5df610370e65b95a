"""Troubles with files and stores, told with the path and with what can be done."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import PurePosixPath
from typing import Any

from preprocess.errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


class StorageError(UserError):
    """A path that cannot be used as asked; the message says what to do."""


class StoreError(StorageError):
    """A store that does not answer as it should, which may pass: an engine may try again."""


@contextmanager
def told_writes(path: str) -> Iterator[None]:
    """Tell that ``path`` cannot be written for want of room or rights.

    Raises:
        StorageError: with the path.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            hint = "make room"
        elif error.errno in NO_RIGHT:
            hint = "give the right to write there"
        else:
            raise
        raise StorageError(
            f"{path}: cannot be written ({error.strerror}); {hint} and the same command goes on "
            "from here, or choose another run.output"
        ) from error


BUCKETS = ("s3", "s3a", "gs", "gcs")
"""Protocols of stores without folders: where a file cannot be put, the bucket is missing."""


class ToldStore:
    """A file system of fsspec, or a file of one, whose troubles are told with the path asked for.

    Every call raises StoreError for what the store or its client finds wrong, but for files that
    are missing and rights that are.
    """

    def __init__(self, inner: Any, path: str) -> None:
        self._inner, self._path = inner, path

    def __enter__(self) -> "ToldStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()

    def put_finished(self, inner: str, put: Callable[[], object]) -> None:
        """Put a file as ``inner``, first without a look at its folder, which most stores lack.

        Raises:
            StorageError: there is no such bucket.
        """
        try:
            put()
        except FileNotFoundError as error:
            if self._path.split("://", 1)[0] in BUCKETS:
                raise StorageError(
                    f"{self._path}: there is no such bucket; make it, or name another"
                ) from error
            self.makedirs(str(PurePosixPath(inner).parent), exist_ok=True)
            put()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._told(found) if callable(found) else found

    def _told(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def told(*arguments: Any, **options: Any) -> Any:
            try:
                return call(*arguments, **options)
            except FileNotFoundError:
                raise
            except PermissionError as error:
                # Some are made of the store's words alone.
                words = error.strerror or str(error)
                raise PermissionError(errno.EACCES, words, self._path) from error
            except Exception as error:
                # A client's errors need not be OSErrors; a fault of ours is of Python's own.
                if not isinstance(error, OSError) and type(error).__module__ == "builtins":
                    raise
                what = " ".join(f"{type(error).__name__}: {error}".split())
                raise StoreError(
                    f"{self._path}: the store gave an error ({what}); see that it answers, and the "
                    "same command goes on from here"
                ) from error

        return told

"""Checks that run before this process changes something in a folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from preprocess.files.errors import StorageError
from preprocess.files.paths import is_remote, local_path

_checks: dict[str, tuple[str, Callable[[], None]]] = {}


@contextmanager
def checked_writes(name: str, folder: str, check: Callable[[], None]) -> Iterator[None]:
    """Call ``check`` before each change in ``folder`` and below while the block runs, in all threads.

    If ``check`` raises, `preprocess.files.storage` changes nothing.

    Args:
        name: name of the check, unique in this process.
        folder: an absolute path or a URL.
        check: raises an error if this process may not write.
    """
    _checks[name] = (folder.rstrip("/"), check)
    try:
        yield
    finally:
        del _checks[name]


def check_write(path: str) -> None:
    """Run the checks of the folders that hold ``path``, an absolute path or a URL."""
    for folder, check in tuple(_checks.values()):
        if path == folder or path.startswith(f"{folder}/"):
            check()


def check_no_folder(path: str) -> None:
    """Raise StorageError if a file that is to be written is an existing local folder."""
    if not is_remote(path) and local_path(path).is_dir():
        raise StorageError(f"{path}: cannot be written, because it is a folder; name a file")

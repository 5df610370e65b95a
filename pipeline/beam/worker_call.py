"""What a worker is given to call: by the driver's own biloom, and so that its mistakes are told.

An engine hands on the text of a traceback at best, so what a user can mend travels through the
store: a worker writes it below the folder of unfinished work, where the driver looks.
"""

import pickle
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import lightning_modules
import pipeline
import preprocess
from pipeline.version import biloom_version
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.work.folder import failures_folder

PACKAGES = (pipeline, lightning_modules, preprocess)
NAMES = ("utf-8", "surrogateescape")
"""How a file's name is written that is no text in UTF-8."""
_STORAGE_ERROR = re.compile(r"^preprocess\.storage_errors\.Stor\w+Error: (.*)$", re.MULTILINE)
_WHERE_IN_BEAM = " [while running"


class WorkerCall:
    """``work(*arguments, item)`` on a worker.

    Raises:
        UserError: what the work raises, or that the worker's biloom is not the driver's.
    """

    def __init__(
        self, work_folder: str, work: Callable[..., Any], arguments: Sequence[Any]
    ) -> None:
        self._folder, self._driver = work_folder, source_version()
        # Apart, since what another version packed may not open, or open as something else.
        self._packed = pickle.dumps((work, tuple(arguments)))

    def __call__(self, item: Any) -> Any:
        try:
            if self._driver != source_version():
                raise UserError(
                    f"a worker has another biloom than this one: {source_version()}, not "
                    f"{self._driver}; install the same on every worker"
                )
            work, arguments = _unpacked(self._packed)
            return work(*arguments, item)
        except storage.StoreError:
            # It may pass: told here, it would end a job that its engine goes on with.
            raise
        except UserError as error:
            # Under a name of its own: several may fail at once, as threads of one process too.
            path = storage.join(failures_folder(self._folder), f"{uuid.uuid4().hex}.txt")
            storage.write_bytes(path, str(error).encode(*NAMES))
            raise


@cache
def source_version() -> str:
    """This biloom: its version and a hash of its source, as ``0.1.0 (source 3f2a91c07d54)``."""
    digest = sha256()
    for package in PACKAGES:
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py"), key=lambda file: file.relative_to(folder).parts):
            digest.update(repr(file.relative_to(folder).parts).encode())
            digest.update(file.read_bytes())
    return f"{biloom_version()} (source {digest.hexdigest()[:12]})"


@contextmanager
def user_errors(work_folder: str) -> Iterator[None]:
    """Raise what workers found wrong as the user's mistake that it is.

    Raises:
        UserError: with the message of every worker that told one.
    """
    storage.remove_tree(failures_folder(work_folder))
    try:
        yield
    except Exception as error:
        told = failures(work_folder) or _trouble_with_storage(error)
        if not told:
            raise
        raise UserError("\n".join(told)) from error


def failures(work_folder: str) -> list[str]:
    """What workers of this job found wrong, each once."""
    folder = failures_folder(work_folder)
    files = (storage.join(folder, name) for name in storage.list_names(folder))
    return sorted({storage.read_bytes(file).decode(*NAMES) for file in files})


def _trouble_with_storage(error: Exception) -> list[str]:
    """What an engine's error tells of a full disk or a failing store, which keep no note of it."""
    text = str(error)
    if isinstance(error, storage.StorageError):
        return [text.partition(_WHERE_IN_BEAM)[0]]
    return [found[1].partition(_WHERE_IN_BEAM)[0] for found in _STORAGE_ERROR.finditer(text)][-1:]


@lru_cache(4)
def _unpacked(packed: bytes) -> Any:
    return pickle.loads(packed)

"""Calls that workers run, and how their user errors reach the driver.

An engine returns at best the text of a traceback, so a worker writes the message of a user error
into the folder of unfinished work, where the driver reads it. A worker also checks that it runs the
same biloom as the driver, and that the driver has not stopped the job or begun another one. Not every
engine ends a job that is cancelled or whose driver was killed.
"""

import pickle
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import lightning_modules
import pipeline
import preprocess
from pipeline.version import biloom_version
from preprocess.errors import JobError, UserError
from preprocess.files import storage
from preprocess.files.errors import DiskFull, StorageError, StoreError
from preprocess.text.versions import optional_versions, table_versions
from preprocess.work.folder import failures_folder, job_file, read_record, write_record

PACKAGES = (pipeline, lightning_modules, preprocess)
ENCODING = ("utf-8", "surrogateescape")
"""Encoding of messages, which may contain file names that are not valid UTF-8."""
_STORAGE_ERROR = re.compile(
    rf"^{re.escape(StorageError.__module__)}\.(Stor\w+Error|DiskFull): (.*)$", re.MULTILINE
)
OF_JOB = ".job.txt"
"""End of the name of a file with the message of a `JobError`."""
_WHERE_IN_BEAM = " [while running"


class JobEnded(Exception):  # noqa: N818
    """The job of a worker has ended. Not a `UserError`, because its message would reach a later job."""


class WorkerCall:
    """A picklable function that runs ``work(*arguments, item)`` on a worker.

    Args:
        work_folder: folder of unfinished work, into which messages of user errors are written.
        work: a function of a module that workers can import.
        arguments: its first arguments.

    Attributes:
        job: name of the job that the call belongs to, from `running_job`; None disables the check.

    Raises:
        UserError: ``work`` raises one, or the worker's biloom is not the driver's.
        JobEnded: the job has ended.
    """

    job: str | None = None

    def __init__(
        self, work_folder: str, work: Callable[..., Any], arguments: Sequence[Any]
    ) -> None:
        self._folder, self._driver = work_folder, source_version()
        self._packages = optional_versions()
        # Pickled separately, because another version of biloom may not unpickle it correctly.
        self._packed = pickle.dumps((work, tuple(arguments)))

    def __call__(self, item: Any) -> Any:
        if self.job and running_job(self._folder) != self.job:
            raise JobEnded("this job was stopped, or its command was started again")
        try:
            if self._driver != source_version():
                raise UserError(
                    f"a worker runs biloom {source_version()}, but this process runs biloom "
                    f"{self._driver}; install the same versions on every worker"
                )
            # A worker without one of them raises an error if a file needs it.
            for package, here in optional_versions().items():
                version = self._packages.get(package, here)
                if here != version:
                    raise UserError(
                        f"a worker has another version of {package} ({here}) than this process "
                        f"({version}), so that it may {_DIFFERENCES[package]}; install the same version "
                        "on every worker"
                    )
            work, arguments = _unpacked(self._packed)
            return work(*arguments, item)
        except StoreError:
            # It may be temporary: reported here, it would stop a job that the engine retries.
            raise
        except UserError as error:
            # A unique name, because several workers and threads may fail at once.
            end = OF_JOB if isinstance(error, JobError) else ".txt"
            path = storage.join(failures_folder(self._folder), f"{uuid.uuid4().hex}{end}")
            storage.write_bytes(path, str(error).encode(*ENCODING))
            raise


_DIFFERENCES = {
    "chardet": "find other encodings",
    "resiliparse": "extract other text",
    "tokenizers": "find other tokens",
}


@cache
def source_version() -> str:
    """Return the versions of biloom, its source and the tables that decide bytes.

    For example ``0.1.0 (source 3f2a91c07d54, Unicode 15.0.0, SentencePiece 0.2.1)``.
    """
    digest = sha256()
    for package in PACKAGES:
        folder = Path(package.__path__[0])
        for file in sorted(folder.rglob("*.py"), key=lambda file: file.relative_to(folder).parts):
            digest.update(repr(file.relative_to(folder).parts).encode())
            digest.update(file.read_bytes())
    tables = "".join(f", {name} {version}" for name, version in table_versions().items())
    return f"{biloom_version()} (source {digest.hexdigest()[:12]}{tables})"


@contextmanager
def user_errors(work_folder: str) -> Iterator[None]:
    """Replace an engine's error by the user errors that workers reported while the block ran.

    Raises:
        JobError: if all messages of workers are of such errors.
        UserError: with the messages of all workers.
    """
    storage.remove_tree(failures_folder(work_folder))
    try:
        yield
    except Exception as error:
        if found := reported(work_folder) or _storage_error(error):
            raise found from error
        raise


@contextmanager
def job_runs(work_folder: str) -> Iterator[None]:
    """Let the calls of one job run while the block runs, and no calls of a former job."""
    path = job_file(work_folder)
    write_record(path, {"name": uuid.uuid4().hex})
    try:
        yield
    finally:
        # A store that cannot be reached must not hide the error of the job.
        with suppress(StorageError, OSError):
            storage.remove(path)


def running_job(work_folder: str) -> str | None:
    """Return the name of the job that runs on this work; None if there is none."""
    try:
        return str(read_record(job_file(work_folder))["name"])
    except FileNotFoundError:
        return None


def failures(work_folder: str) -> list[str]:
    """Return the distinct messages that workers of this job reported, sorted."""
    folder = failures_folder(work_folder)
    files = (storage.join(folder, name) for name in storage.list_names(folder))
    return sorted({storage.read_bytes(file).decode(*ENCODING) for file in files})


def reported(work_folder: str) -> UserError | None:
    """Return an error with all messages that workers of this job reported; None if there are none."""
    messages = failures(work_folder)
    names = storage.list_names(failures_folder(work_folder))
    kind = JobError if all(name.endswith(OF_JOB) for name in names) else UserError
    return kind("\n".join(messages)) if messages else None


def _storage_error(error: Exception) -> UserError | None:
    """Return the storage error in an engine's error; None if there is none.

    A worker cannot report a full disk or a failing store through that same store.
    """
    text = str(error)
    if isinstance(error, StorageError):
        return type(error)(text.partition(_WHERE_IN_BEAM)[0])
    found = _STORAGE_ERROR.findall(text)
    if not found:
        return None
    name, message = found[-1]
    kind = DiskFull if name == DiskFull.__name__ else StorageError
    return kind(message.partition(_WHERE_IN_BEAM)[0])


@lru_cache(4)
def _unpacked(packed: bytes) -> Any:
    return pickle.loads(packed)

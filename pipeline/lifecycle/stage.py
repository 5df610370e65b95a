"""The types that describe a stage, its folder and its result."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.schema import Config
from pipeline.console import Console
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import FileRecord, hash_file
from preprocess.work.folder import lock_file, work_folder

CONFIG, STATS = "config.yaml", "stats.json"
"""Files beside the manifest: the config of the stage, and figures about it."""


class StageError(UserError):
    """A stage cannot run with these settings; the message says what to do."""


@dataclass(frozen=True)
class Made:
    """The result of a stage's work, from which its manifest is written.

    Attributes:
        files: the files that the manifest lists.
        details: further entries of the manifest.
        stats: figures for stats.json.
        content: hash of the result if it is not the hash of all files (a model: of its tensors).
    """

    files: tuple[FileRecord, ...]
    details: dict[str, Any]
    stats: dict[str, Any] = field(default_factory=dict)
    content: str | None = None


@dataclass(frozen=True)
class StageFolder:
    """The folder of a stage, which holds its result and below it the unfinished work."""

    folder: str

    @property
    def work(self) -> str:
        """Folder of the unfinished work."""
        return work_folder(self.folder)

    @property
    def lock(self) -> str:
        """Path of the lock file."""
        return lock_file(self.work)

    def file(self, name: str) -> str:
        """Return the path of a file of the folder."""
        return storage.join(self.folder, name)

    def record(self, name: str) -> FileRecord:
        """Hash a file of the folder, and return its record for the manifest."""
        return FileRecord(name, *hash_file(self.file(name)))


@dataclass(frozen=True)
class Stage:
    """What decides a stage's result. Imports neither Beam nor torch, so that a check is fast.

    Attributes:
        name: name of the stage, of its command and of its folder.
        version: number that is raised when the same settings give another result.
        request: returns the settings and inputs that decide the result, as one mapping from dotted keys
            to values.
        needs: modules that the stage imports, each with the pip extra that installs it.
        changed: returns the names of raw files whose contents changed at equal size, which the
            fingerprint cannot show; called with the config and the stage's folder.
        grows: called with the config, the old and the new request; returns True if the finished
            result is a prefix of the requested one (fewer training steps, fewer texts).
        may_differ: returns prefixes of the keys that may differ if the result is to grow; a refusal
            does not list them beside the keys that may not.
        adds: how a result grows. True: files are added, and the finished result stays readable until
            the new manifest is written. False: the result becomes unfinished work and is resumed.
        sweep: prefixes of the names of files to remove when no manifest lists them.
    """

    name: str
    version: int
    request: Callable[[Config], dict[str, Any]]
    needs: Mapping[str, str] = field(default_factory=dict)
    changed: Callable[[Config, str], list[str]] | None = None
    grows: Callable[[Config, dict[str, Any], dict[str, Any]], bool] | None = None
    may_differ: Callable[[Config], tuple[str, ...]] = lambda _: ()
    adds: bool = False
    sweep: tuple[str, ...] = ()

    def folder(self, config: Config) -> str:
        """Return the absolute path of the stage's folder in the run folder of ``config``."""
        return storage.join(storage.absolute(config.run.output), self.name)


@dataclass(frozen=True)
class StageWork:
    """The functions that do a stage's work; loading them imports Beam or torch.

    Attributes:
        make: does the work, resuming unfinished work if there is some.
        reopen: turns a finished result back into unfinished work, so that it can be resumed.
    """

    make: Callable[[Config, StageFolder, Console], Made]
    reopen: Callable[[Config, StageFolder], None] | None = None


def require(command: str, needs: Mapping[str, str]) -> None:
    """Check that the modules in ``needs`` are installed.

    Args:
        command: the command that needs them, for the message.
        needs: modules, each with the pip extra that installs it.

    Raises:
        StageError: a module is not installed; the message names the extra.
    """
    for module, extra in needs.items():
        if importlib.util.find_spec(module) is None:
            raise StageError(
                f"`biloom {command}` needs {module}, which is not installed; "
                f"pip install 'biloom[{extra}]'"
            )

"""The types that describe a stage, its folder and its result."""

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.phases import MOVING, REMOVING, phase
from preprocess.config import HuggingFaceConfig, Source
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.details import Entries, check_types
from preprocess.files.manifest import FileRecord, Manifest, hash_file
from preprocess.files.verified import damaged, read_config
from preprocess.reading.formats.detection import names_pages
from preprocess.text.versions import (
    detector_version,
    extractor_version,
    near_duplicate_version,
    table_versions,
    tokenizers_version,
)
from preprocess.work.aside import move_aside
from preprocess.work.folder import lock_file, remove_work, result_folder

CONFIG, STATS = "config.yaml", "stats.json"
"""Files beside the manifest: the config of the stage, and figures about it."""

SETTINGS, VERSIONS, REPLACES, HELD = "settings", "versions", "replaces", "held"
"""Entries of a manifest's details: settings that a finished result takes over (`Stage.settings`),
versions of tables, the contents of the results that this one continues, and the requests of earlier
results that this one contains."""

Request = dict[str, Any]
"""The settings and inputs that decide a result, by dotted keys; or a manifest's details."""


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
        after: called once the result is published.
    """

    files: tuple[FileRecord, ...]
    details: dict[str, Any]
    stats: dict[str, Any] = field(default_factory=dict)
    content: str | None = None
    after: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class StageFolder:
    """The folder of a stage: its finished result, and the unfinished work for one request.

    Only the process that holds the stage's lease changes the result. Work is done in `work`, so that
    a worker that outlives its driver cannot change a result or the work for another request.

    Attributes:
        folder: path or URL of the folder.
        work: folder of the unfinished work; empty if only the result is read.
        check: raises an error if this process has lost the lease.
    """

    folder: str
    work: str = ""
    check: Callable[[], None] = lambda: None

    @property
    def lock(self) -> str:
        """Path of the lock file."""
        return lock_file(self.folder)

    @property
    def unpublished(self) -> str:
        """Folder of the files that are to become part of the result."""
        return result_folder(self.work)

    def file(self, name: str) -> str:
        """Return the path of a file of the finished result."""
        return storage.join(self.folder, name)

    def new_file(self, name: str) -> str:
        """Return the path of a file that is to become part of the result."""
        return storage.join(self.unpublished, name)

    def record(self, name: str) -> FileRecord:
        """Hash a new file of the result, published or not, and return its record for the manifest."""
        path = self.new_file(name)
        return FileRecord(name, *hash_file(path if storage.exists(path) else self.file(name)))

    def publish(self, names: Iterable[str]) -> None:
        """Move files of `unpublished` into the folder; names that are there already are skipped.

        Raises:
            UserError: this process has lost the lease.
        """
        self.check()
        every = [*names]
        with phase(MOVING, "files", len(every)) as moved:
            storage.move_entries(self.unpublished, self.folder, every, moved.add)

    def move_aside(self) -> "StageFolder":
        """Rename the folder, as `preprocess.work.aside.move_aside` does, and return it with its new name."""
        with phase(MOVING, "files") as moved:
            return StageFolder(move_aside(self.folder, moved.add))

    def remove_work(self, work: str) -> None:
        """Remove the unfinished work in the folder ``work``."""
        with phase(REMOVING):
            remove_work(self.folder, work)


Grows = Callable[[Config, Request, Request, Request], bool]


@dataclass(frozen=True)
class Stage:
    """A stage: its name, and the functions that decide whether it is done. Imports no Beam or torch.

    Attributes:
        name: name of the stage, of its command and of its folder.
        version: number that is raised when the same settings give another result.
        request: returns the settings and inputs that decide the result, as one mapping from dotted keys
            to values.
        needs: modules that the stage imports, each with the pip extra that installs it.
        grows: called with the config, the old and the new request, and the details of the finished
            result; returns True if the requested result continues the finished one (more training
            steps, more texts). The finished result stays readable until the new manifest is written.
        may_differ: returns prefixes of the keys that may differ if the result is to grow; a refusal
            does not list them beside the keys that may not.
        may_rise: keys that may change while work is unfinished, as `rises` says; they do not name the
            work folder.
        rises: called with the request of unfinished work and the new one; returns True if the work can be
            continued for the new request.
        sweep: prefixes of the names of files to remove when no manifest lists them.
        beside: names of files in the folder that are no part of the result.
        descriptive: prefixes of the names of files that only describe the result or its input. They
            may be replaced while a reader has the former result open.
        text_sources: returns the sources of raw text that the stage cleans or tokenises, if it does.
            Files that change at equal size, which the fingerprint cannot show, are then noticed, and
            the versions of the tables that decide the bytes are recorded.
        settings: returns settings that a finished result can take over without its work, such as
            the weights of sources. They are no part of the request.
        switches: returns settings that are no part of the request, but decide what the stage keeps beside
            its result. Unfinished work that was begun without it cannot be continued with it.
        restated: prefixes of the `settings` that a finished result takes over; a change of the others is
            only reported.
        advice: returns further lines for a refusal, from the config and the differing keys.
        settled: returns the config with the settings that follow from the stage's input, such as the
            number of steps from ``train.passes``. ``request`` and the stage's work get this config.
    """

    name: str
    version: int
    request: Callable[[Config], dict[str, Any]]
    needs: Mapping[str, str] = field(default_factory=dict)
    grows: Grows | None = None
    may_differ: Callable[[Config], tuple[str, ...]] = lambda _: ()
    may_rise: tuple[str, ...] = ()
    rises: Callable[[Request, Request], bool] = lambda *_: False
    sweep: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    descriptive: tuple[str, ...] = ()
    text_sources: Callable[[Config], tuple[Source, ...]] | None = None
    settings: Callable[[Config], dict[str, Any]] = lambda _: {}
    switches: Callable[[Config], dict[str, bool]] = lambda _: {}
    restated: tuple[str, ...] = ()
    advice: Callable[[Config, list[str]], list[str]] = lambda *_: []
    settled: Callable[[Config], Config] = lambda config: config

    def versions(self, config: Config) -> dict[str, str]:
        """Return the versions of the tables that decide the bytes of the result."""
        if self.text_sources is None:
            return {}
        sources = self.text_sources(config)
        has_auto = any(source.encoding == "auto" for source in sources)
        has_pages = any(names_pages(source) for source in sources)
        # A folder that is named may hold a tokenizer of any kind.
        has_folder = config.prepare.tokenizer or config.embed.model
        has_file = has_folder or isinstance(config.tokenizer, HuggingFaceConfig)
        # The other stages that clean text keep near-duplicates.
        has_near = self.name == "prepare" and config.prepare.near_duplicates.similarity is not None
        return {
            **table_versions(),
            **(detector_version() if has_auto else {}),
            **(extractor_version() if has_pages else {}),
            **(tokenizers_version() if has_file else {}),
            **(near_duplicate_version() if has_near else {}),
        }

    def folder(self, config: Config) -> str:
        """Return the absolute path of the stage's folder in the run folder of ``config``."""
        return storage.join(storage.absolute(config.run.output), self.name)


@dataclass(frozen=True)
class StageWork:
    """The functions that do a stage's work; loading them imports Beam or torch.

    Attributes:
        make: does the work, resuming unfinished work if there is some.
        reopen: copies a finished result into the work folder, so that it can be continued.
        restate: returns the finished result with the present `Stage.settings`.
    """

    make: Callable[[Config, StageFolder, Console], Made]
    reopen: Callable[[Config, StageFolder], None] | None = None
    restate: Callable[[Config, StageFolder, Console], Made] | None = None


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


def read_stats(folder: str, manifest: Manifest) -> dict[str, Any]:
    """Return the figures in the ``stats.json`` of a finished stage.

    Raises:
        DamagedResult: the file is damaged, or missing though its manifest lists it.
        FileNotFoundError: the file is missing.
    """
    stats = read_config(folder, manifest, STATS)
    path = storage.join(folder, STATS)
    try:
        check_types(manifest.stage, stats)
    except ValueError as error:
        raise damaged(path, f"is damaged ({error})", folder, manifest.stage) from error
    return Entries(stats, path)

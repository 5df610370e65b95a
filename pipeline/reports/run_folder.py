"""Read finished stages for the reports: manifests, ``stats.json`` and ``metrics.jsonl``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_modules.training.metrics_file import METRICS
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.stage import CONFIG, STATS, read_stats
from pipeline.reports.corpus_page import newest
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.details import Entries
from preprocess.files.manifest import NAME, Manifest, read_manifest
from preprocess.files.search.find import find_files
from preprocess.files.verified import damaged, read_config, read_rows


@dataclass(frozen=True)
class Result:
    """A finished stage.

    Attributes:
        folder: its folder, a local path or a URL.
        manifest: its manifest.
        stats: the details of the manifest and the content of ``stats.json``, merged.
    """

    folder: str
    manifest: Manifest
    stats: dict[str, Any]

    @property
    def details(self) -> dict[str, Any]:
        return self.manifest.details

    @property
    def finished(self) -> str:
        """Time at which the manifest was written, in UTC; empty if an object store does not give it."""
        found = find_files(storage.join(self.folder, NAME))
        return newest(file.version for file in found)


def read_result(folder: str, stage: str) -> Result:
    """Read the result of ``stage`` in ``folder``.

    Raises:
        ManifestError: the stage is not finished, or its details are damaged.
        DamagedResult: stats.json is damaged.
    """
    manifest = read_manifest(folder, stage)
    listed = STATS in manifest.records
    has_stats = listed or storage.exists(storage.join(folder, STATS))
    stats = read_stats(folder, manifest) if has_stats else {}
    merged = Entries({**manifest.details, **stats}, storage.join(folder, STATS))
    return Result(folder, manifest, merged)


def read_metrics(folder: str) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl`` of a finished train folder; a row is a mapping from column to value.

    Raises:
        DamagedResult: the file is missing or damaged.
    """
    rows = read_rows(folder, read_manifest(folder, "train"), METRICS)
    for number, row in enumerate(rows, 1):
        for name, value in row.items():
            is_small = type(value) is int and abs(value) < 1 << 63
            if not (is_small or value is None or isinstance(value, bool | float)):
                path = storage.join(folder, METRICS)
                reason = f"is damaged (line {number:,}: {name!r:.40} is {value!r:.40})"
                raise damaged(path, reason, folder, "train")
    return rows


@dataclass(frozen=True)
class Run:
    """The finished stages of a run folder, and the metrics of its training.

    Attributes:
        folder: the run folder, an absolute path or a URL.
        results: stage -> result, in the order of the stages. If the run did not prepare its corpus
            itself, "prepare" is the corpus of another run that it was trained on.
        metrics: rows of metrics.jsonl; empty if training is not finished.
    """

    folder: str
    results: Mapping[str, Result]
    metrics: Sequence[dict[str, Any]]

    def details(self, stage: str) -> dict[str, Any]:
        """Return the details of a stage's manifest; empty if the stage is missing."""
        return self.results[stage].details if stage in self.results else {}


def read_run(folder: str) -> Run:
    """Read a run folder, a local path or a URL.

    Raises:
        UserError: no stage is finished.
        ManifestError: a manifest is damaged.
    """
    folder = storage.absolute(folder)
    folders = {stage: storage.join(folder, stage) for stage in STAGES}
    if _is_finished(folders["train"]) and not _is_finished(folders["prepare"]):
        manifest = read_manifest(folders["train"], "train")
        train = read_config(folders["train"], manifest, CONFIG).get("train")
        corpus = train.get("corpus") if isinstance(train, dict) else None
        folders["prepare"] = storage.absolute(str(corpus or folders["prepare"]))
    results = {
        stage: read_result(path, stage) for stage, path in folders.items() if _is_finished(path)
    }
    if not results:
        raise UserError(
            f"{folder} holds no finished stage; name another run folder, or see `biloom status {folder}`"
        )
    return Run(folder, results, read_metrics(folders["train"]) if "train" in results else [])


def _is_finished(folder: str) -> bool:
    return storage.exists(storage.join(folder, NAME))

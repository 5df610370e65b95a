"""What finished stages left in their folders, as the reports read it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.lifecycle.registry import STAGES
from pipeline.reports.corpus_page import newest
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import NAME, Manifest, read_manifest

CONFIG, STATS, METRICS = "config.yaml", "stats.json", "metrics.jsonl"


@dataclass(frozen=True)
class Result:
    """A finished stage: its folder, its manifest and the content of ``stats.json``."""

    folder: str
    manifest: Manifest
    stats: dict[str, Any]

    @property
    def details(self) -> dict[str, Any]:
        return self.manifest.details

    @property
    def finished(self) -> str:
        """Date and time at which the manifest was written; empty if the store does not say."""
        found = storage.find_files(storage.join(self.folder, NAME))
        return newest(file.version for file in found)


def read_result(folder: str, stage: str) -> Result:
    """Read the result of ``stage`` in ``folder``.

    Raises:
        ManifestError: the stage is not finished.
    """
    manifest = read_manifest(folder, stage)
    path = storage.join(folder, STATS)
    stats = json.loads(storage.read_bytes(path)) if storage.exists(path) else {}
    return Result(folder, manifest, {**manifest.details, **stats})


def read_metrics(folder: str) -> list[dict[str, Any]]:
    """Read the rows of ``metrics.jsonl`` in a train folder."""
    rows = storage.read_bytes(storage.join(folder, METRICS)).decode().splitlines()
    return [json.loads(row) for row in rows]


@dataclass(frozen=True)
class Run:
    """The finished stages of a run folder, in order, and the metrics of its training.

    ``prepare`` is the corpus that was trained on, in whatever folder it lies.
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
        config = yaml.safe_load(storage.read_bytes(storage.join(folders["train"], CONFIG)))
        folders["prepare"] = storage.absolute(config["train"]["corpus"] or folders["prepare"])
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

"""The model card in a model folder: written by the export, and again by a later evaluation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.inputs import stage_folder
from pipeline.lifecycle.lock import LockedError, lock
from pipeline.lifecycle.registry import STAGES
from pipeline.reports.model_card import model_card
from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.manifest import (
    Manifest,
    ManifestError,
    read_manifest,
    record_of,
    write_manifest,
)
from preprocess.shards.format import Corpus
from preprocess.work.folder import lock_file

CARD = "README.md"
"""Name of the model card, as model hubs expect it."""

_DEFAULTS = {"weights": "float32", "head": True, "type_vectors": False, "warm_up": None}
"""Settings that models of earlier versions do not record."""


def card_of(
    config: Config, trained: Manifest, saved: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> bytes:
    """Return the model card of a trained model.

    Args:
        config: the config.
        trained: manifest of the train stage.
        saved: contents of the model's config.json.
        evaluation: details of the evaluate manifest; empty if there is none.
    """
    card = model_card(trained, {**_DEFAULTS, **saved}, evaluation, _corpus(config, trained))
    return card.encode("utf-8", "replace")


def evaluation_of(config: Config, trained: Manifest) -> dict[str, Any]:
    """Return this run's evaluation of a checkpoint, or nothing if there is none."""
    try:
        evaluated = read_manifest(STAGES["evaluate"].folder(config), "evaluate")
    except ManifestError:
        return {}
    return evaluated.details if evaluated.asked["checkpoint.content"] == trained.content else {}


def _corpus(config: Config, trained: Manifest) -> dict[str, Any]:
    """Return the details of the training corpus, or nothing if it is not available."""
    try:
        corpus = Corpus.open(stage_folder(config, "prepare", config.train.corpus)).manifest
    except ManifestError:
        return {}
    return corpus.details if corpus.content == trained.details["corpus"] else {}


def update_card(
    config: Config, trained: Manifest, evaluation: Mapping[str, Any], console: Console
) -> None:
    """Write the card of this run's exported model again, if it is the evaluated checkpoint.

    Its record in the manifest is updated, too. If the folder is locked or cannot be written, the card
    is kept and a warning says so.

    Args:
        config: the config.
        trained: manifest of the evaluated train stage.
        evaluation: details of the evaluation.
        console: prints what was done.
    """
    folder = STAGES["export"].folder(config)
    if not _is_of(folder, trained):
        return
    try:
        with lock(folder, lock_file(folder), console, wait=False):
            # Another process may have exported another checkpoint before this one got the lock.
            if not _is_of(folder, trained):
                return
            exported = read_manifest(folder, "export")
            path = storage.join(folder, CARD)
            card = card_of(config, trained, exported.details, evaluation)
            others = tuple(file for file in exported.files if file.name != CARD)
            # A process killed between these writes must not leave a card that differs from its record.
            write_manifest(folder, replace(exported, files=others))
            storage.write_bytes(path, card)
            write_manifest(folder, replace(exported, files=(*others, record_of(CARD, card))))
    except (LockedError, StorageError) as error:
        console.warn(f"the model card does not show this evaluation: {error}")
        return
    console.line(f"updated the model card {path}")


def _is_of(folder: str, trained: Manifest) -> bool:
    """Return True if a folder holds the export of a checkpoint."""
    try:
        exported = read_manifest(folder, "export")
    except ManifestError:
        return False
    return exported.asked.get("checkpoint.content") == trained.content

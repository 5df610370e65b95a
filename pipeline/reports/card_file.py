"""The model card in a model folder: written by the export, and again by a later evaluation."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning_modules.models.smaller.changes import Changes
from lightning_modules.models.smaller.description import section
from pipeline.config.former_keys import ADDED
from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.checkpoints import TrainedCheckpoint
from pipeline.lifecycle.inputs import stage_folder
from pipeline.lifecycle.lock import LockedError, lock
from pipeline.lifecycle.registry import CHECKPOINT, STAGES
from pipeline.lifecycle.task_folder import CARD
from pipeline.reports.model_card import model_card
from preprocess.files import storage
from preprocess.files.errors import StorageError
from preprocess.files.manifest import (
    Manifest,
    ManifestError,
    read_manifest,
    record_of,
    recorded,
    write_manifest,
)
from preprocess.shards.format import Corpus
from preprocess.work.folder import lock_file

SMALLER = "smaller"
"""Key of a model's manifest: `Changes`, if the model was made smaller."""

_DEFAULTS = {"weights": "float32", "head": True, "type_vectors": False, "warm_up": None}
"""Settings that models of earlier versions do not record."""


def card_of(
    config: Config,
    checkpoint: TrainedCheckpoint,
    saved: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> bytes:
    """Return the model card of a trained model.

    Args:
        config: the config.
        checkpoint: the exported checkpoint.
        saved: contents of the model's config.json, and `SMALLER` if it was made smaller.
        evaluation: details of the evaluate manifest; empty if there is none.
    """
    trained = checkpoint.manifest
    corpus = training_corpus(config, trained)
    about = corpus.manifest.details if corpus else {}
    card = model_card(trained, {**_DEFAULTS, **saved}, evaluation, about, checkpoint.step)
    if SMALLER in saved:
        card += f"\n{section(recorded(Changes, saved, SMALLER))}"
    return card.encode("utf-8", "replace")


def evaluation_of(
    config: Config, checkpoint: TrainedCheckpoint, console: Console
) -> dict[str, Any]:
    """Return this run's evaluation of a checkpoint, or nothing if there is none.

    A warning says if this run evaluated another checkpoint of the same training.
    """
    try:
        evaluated = read_manifest(STAGES["evaluate"].folder(config), "evaluate")
    except ManifestError:
        return {}
    if _is_of(evaluated, checkpoint):
        return evaluated.details
    kind = _kind(evaluated)
    if evaluated.asked.get(CHECKPOINT) == checkpoint.manifest.content:
        console.warn(
            f"the model card shows no perplexity, because this run evaluated the {kind} checkpoint and "
            f"exports the {checkpoint.kind} one; `biloom evaluate --overwrite` with the same settings, and without "
            "evaluate.checkpoint, adds it"
        )
    return {}


def training_corpus(config: Config, trained: Manifest) -> Corpus | None:
    """Return the training corpus, or None if it is not available."""
    try:
        corpus = Corpus.open(stage_folder(config, "prepare", config.train.corpus))
    except ManifestError:
        return None
    return corpus if corpus.manifest.content == trained.details["corpus"] else None


def update_card(
    config: Config,
    checkpoint: TrainedCheckpoint,
    evaluation: Mapping[str, Any],
    console: Console,
) -> None:
    """Write the card of this run's exported model again, if it is the evaluated checkpoint.

    Its record in the manifest is updated, too. If the folder is locked or cannot be written, the card
    is kept and a warning says so.

    Args:
        config: the config.
        checkpoint: the evaluated checkpoint.
        evaluation: details of the evaluation.
        console: prints what was done.
    """
    folder = STAGES["export"].folder(config)
    if not _holds(folder, checkpoint):
        return
    try:
        with lock(folder, lock_file(folder), console, wait=False):
            # Another process may have exported another checkpoint before this one got the lock.
            if not _holds(folder, checkpoint):
                return
            exported = read_manifest(folder, "export")
            path = storage.join(folder, CARD)
            card = card_of(config, checkpoint, exported.details, evaluation)
            others = tuple(file for file in exported.files if file.name != CARD)
            # A process killed between these writes must not leave a card that differs from its record.
            write_manifest(folder, replace(exported, files=others))
            storage.write_bytes(path, card)
            write_manifest(folder, replace(exported, files=(*others, record_of(CARD, card))))
    except (LockedError, StorageError) as error:
        console.warn(f"the model card does not show this evaluation: {error}")
        return
    console.line(f"updated the model card {path}")


def _holds(folder: str, checkpoint: TrainedCheckpoint) -> bool:
    """Return True if a folder holds the export of a checkpoint."""
    try:
        return _is_of(read_manifest(folder, "export"), checkpoint)
    except ManifestError:
        return False


def _is_of(manifest: Manifest, checkpoint: TrainedCheckpoint) -> bool:
    """Return True if an evaluation or export was made from a checkpoint."""
    made_from = manifest.asked.get(CHECKPOINT), _kind(manifest)
    return made_from == (checkpoint.manifest.content, checkpoint.kind)


def _kind(manifest: Manifest) -> str:
    """Return whether an evaluation or export was made from the "best" or the "last" checkpoint."""
    key = f"{manifest.stage}.checkpoint"
    return str(manifest.asked.get(key, ADDED[key]))

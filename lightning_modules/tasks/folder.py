"""Writing the folder of a trained task: a classifier or a tagger on a language model's vectors.

    head.safetensors   the tensors of the head
    config.json        the settings that it was trained with
    labels.json        the labels, in the order of the head's outputs
    metrics.json       the table of scores
    predictions.tsv    the predictions for the dev examples
    README.md          the model card
    bilm/              a copy of the language model, if it is bundled
    manifest.json      the manifest, written last

The language model is named by its content hash and path, not copied, unless it is bundled. Nothing is
pickled.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import xxhash
from safetensors.torch import save as save_safetensors
from torch import Tensor

from lightning_modules.tasks.tables import table_bytes
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.fingerprint import fingerprint
from preprocess.files.manifest import (
    HASHED_AT_ONCE,
    NAME,
    FileRecord,
    Manifest,
    content_hash,
    read_manifest,
    record_of,
    write_manifest,
)
from preprocess.files.verified import damaged

Kind = Literal["classify", "tag"]

HEAD, CONFIG, LABELS, METRICS = "head.safetensors", "config.json", "labels.json", "metrics.json"
PREDICTIONS, CARD, BUNDLE = "predictions.tsv", "README.md", "bilm"
VERSION = 1
"""Version of the folder, raised if the same request gives another result."""


class TaskError(UserError):
    """A task folder that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class ModelReference:
    """The language model that the vectors of a task are from.

    Attributes:
        content: content hash of the model folder.
        path: absolute path or URL of the model folder; empty if only a vector cache was given.
    """

    content: str
    path: str = ""


@dataclass(frozen=True)
class TaskResult:
    """A trained task, from which its folder is written.

    Attributes:
        kind: the command that uses it.
        config: the settings, as JSON types.
        labels: the labels in the order of the head's outputs; any characters.
        tensors: the tensors of the head, on the CPU.
        metrics: the scores, as JSON types; NaN and infinity become null.
        columns: names of the columns of the predictions.
        predictions: a row for each dev example; any characters.
        model: the language model.
        card: the model card, Markdown.
        bundle: copy the language model into the folder.
    """

    kind: Kind
    config: Mapping[str, Any]
    labels: Sequence[str]
    tensors: Mapping[str, Tensor]
    metrics: Mapping[str, Any]
    columns: Sequence[str]
    predictions: Sequence[Sequence[str]]
    model: ModelReference
    card: str
    bundle: bool = False


def stage_name(kind: Kind) -> str:
    """Return the stage in the manifest of a task: the command that makes it, without `biloom`."""
    return f"{kind} train"


def write_task(out: str, result: TaskResult, asked: Mapping[str, Any], biloom: str) -> Manifest:
    """Write the folder of a task, the manifest last.

    Args:
        out: path or URL of the folder.
        result: the task.
        asked: the settings and inputs that decide the result.
        biloom: version of the package.

    Raises:
        TaskError: a tensor holds NaN or infinity, or the model to bundle is not known.
        StorageError: the folder cannot be written.
    """
    for name, tensor in result.tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise TaskError(
                f"the trained head holds NaN or infinity ('{name}'); lower the learning rate, or check "
                "the vectors of the language model"
            )
    made = {
        HEAD: save_safetensors({n: t.contiguous() for n, t in sorted(result.tensors.items())}),
        CONFIG: _json(result.config),
        LABELS: _json([*result.labels]),
        METRICS: _json(result.metrics),
        PREDICTIONS: table_bytes(result.columns, result.predictions),
        CARD: result.card.encode("utf-8", "backslashreplace"),
    }
    for name, data in made.items():
        storage.write_bytes(storage.join(out, name), data)
    files = [record_of(name, data) for name, data in made.items()]
    if result.bundle:
        files += _copy_model(result.model, storage.join(out, BUNDLE))
    manifest = Manifest(
        stage=stage_name(result.kind),
        stage_version=VERSION,
        biloom=biloom,
        fingerprint=fingerprint(asked),
        content=content_hash(files),
        asked=dict(asked),
        files=tuple(files),
        details={
            "kind": result.kind,
            "labels": len(result.labels),
            "model": result.model.content,
            "model_path": result.model.path,
            "model_from_here": _relative(result.model.path, out),
            "bundled": result.bundle,
        },
    )
    write_manifest(out, manifest)
    return manifest


def _copy_model(model: ModelReference, target: str) -> list[FileRecord]:
    """Copy a model folder, and return the records of its files as files of the task folder."""
    if not model.path:
        raise TaskError(
            "bundle=true copies the language model, but only a vector cache was given; give the folder "
            "of the model with --model and the cache with cache=..."
        )
    manifest = read_manifest(model.path, "export")
    records = [
        FileRecord(f"{BUNDLE}/{one.name}", one.bytes, one.xxh128) for one in manifest.all_files
    ]
    for one in manifest.all_files:
        digest, size = xxhash.xxh3_128(), 0
        path = storage.join(model.path, one.name)
        with (
            storage.open_read(path) as source,
            storage.atomic_writer(storage.join(target, one.name)) as copy,
        ):
            while block := source.read(HASHED_AT_ONCE):
                size += len(block)
                digest.update(block)
                copy.write(block)
            if problem := one.difference(size, digest.hexdigest()):
                raise damaged(path, f"is damaged ({problem})", model.path, "export")
    data = storage.read_bytes(storage.join(model.path, NAME))
    storage.write_bytes(storage.join(target, NAME), data)
    return [*records, record_of(f"{BUNDLE}/{NAME}", data)]


def _relative(path: str, out: str) -> str:
    """Return the path of a local model as seen from a local task folder; empty for URLs."""
    if not path or storage.is_remote(path) or storage.is_remote(out):
        return ""
    try:
        return os.path.relpath(path, storage.local_path(storage.absolute(out)))
    except ValueError:  # on another drive of Windows
        return ""


def _json(value: Any) -> bytes:
    text = json.dumps(_defined(value), indent=2, ensure_ascii=False, allow_nan=False)
    # A lone surrogate is written as JSON's own escape.
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _defined(value: Any) -> Any:
    """Return JSON types with null in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

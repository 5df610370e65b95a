"""A small task folder."""

from pathlib import Path

import torch

from lightning_modules.tasks.folder import ModelReference, TaskResult, write_task
from preprocess.files.manifest import read_manifest

LABELS_OF_ALL_KINDS = ("a\tb", 'quote"', "новое", "\u2028", "", " spaces ", "\ud800")


def result(model: Path | None, bundle: bool = False) -> TaskResult:
    content = read_manifest(str(model)).content if model else "ab" * 32
    return TaskResult(
        kind="classify",
        config={"head": "pool"},
        labels=LABELS_OF_ALL_KINDS,
        tensors={"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)},
        metrics={"accuracy": 0.5, "low": float("nan")},
        columns=("text", "label"),
        predictions=[("a\nb", "a\tb"), ("\ud800", "")],
        model=ModelReference(content, str(model) if model else ""),
        card="# A task\n",
        bundle=bundle,
    )


def write_folder(out: Path, model: Path | None = None, bundle: bool = False) -> Path:
    write_task(str(out), result(model, bundle), {"stage": "classify train"}, "1.0")
    return out

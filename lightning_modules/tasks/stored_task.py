"""Reading the folder of a trained task, whose files may be damaged or from an untrusted source.

The content of each file is checked here, so that users of a `Task` need no checks: JSON against a type,
tensors against the names, types and shapes that the settings give.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from lightning_modules.tasks.folder import (
    BUNDLE,
    CONFIG,
    HEAD,
    LABELS,
    METRICS,
    VERSION,
    Kind,
    ModelReference,
    TaskError,
    stage_name,
)
from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.files.manifest import NAME, Manifest, ManifestError, read_manifest
from preprocess.files.verified import DamagedResult, damaged, read_checked, read_verified

Saved = TypeVar("Saved")
"""The type of the settings in ``config.json``."""


@dataclass(frozen=True)
class Task(Generic[Saved]):
    """A task that was read from its folder; other attributes as in `TaskResult`.

    Attributes:
        path: the folder.
        manifest: its manifest.
        config: the settings.
        bundled: whether the folder has a copy of the language model.
    """

    path: str
    manifest: Manifest
    kind: Kind
    config: Saved
    labels: tuple[str, ...]
    tensors: dict[str, Tensor]
    metrics: dict[str, Any]
    model: ModelReference
    bundled: bool

    def load_model(self, given: str | None = None) -> BiLM:
        """Load the language model, and check that it is the one that the task was trained with.

        Args:
            given: its folder; None means the copy in the task folder, or else the folder where it was
                when the task was trained.

        Raises:
            TaskError: there is no model, or another one.
            ModelError: the model is damaged.
        """
        path = given or self._found_model()
        found = read_manifest(path, "export")
        if found.content != self.model.content:
            raise TaskError(
                f"{path}: this is another language model ({found.content[:12]}) than the one that "
                f"{self.path} was trained with ({self.model.content[:12]}); give the folder of that "
                "model with --model, or train the task again with this one"
            )
        return BiLM.from_pretrained(path)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Report an error in this block as files of the folder that do not fit each other.

        Raises:
            DamagedResult: the block raised an error of torch or of wrong values.
        """
        try:
            yield
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            if isinstance(error, DamagedResult):
                raise
            reason = one_line(str(error).strip().partition("\n")[0])
            what = f"holds files that do not fit each other ({reason:.200})"
            raise damaged(self.path, what, self.path, self.manifest.stage) from error

    def check_tensors(self, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
        """Check the names, types and shapes of tensors.

        Args:
            found: tensors of the folder.
            expected: those that the settings give, on any device, also meta.

        Raises:
            DamagedResult: a tensor is missing, unknown, or of another type or shape.
        """
        if problem := _tensor_problem(found, expected):
            raise _invalid(self.path, self.manifest, HEAD, problem)

    def _found_model(self) -> str:
        if self.bundled:
            return storage.join(self.path, BUNDLE)
        known = [self.model.path]
        # If the task and the model were moved together.
        if relative := self.manifest.details.get("model_from_here"):
            known.append(storage.join(self.path, str(relative)))
        for path in filter(None, known):
            if storage.exists(storage.join(path, NAME)):
                return path
        where = f"is no longer in {self.model.path}" if self.model.path else "was not recorded"
        raise TaskError(
            f"{self.path}: the language model of this task ({self.model.content[:12]}) {where}; give "
            "its folder with --model"
        )


def read_task(path: str, kind: Kind, saved: type[Saved]) -> Task[Saved]:
    """Read the folder of a task; its language model is loaded by `Task.load_model`.

    Args:
        path: path or URL of the folder.
        kind: the kind that it must be.
        saved: type of its settings.

    Raises:
        ManifestError: there is no finished task, or one of another kind or of a newer format.
        DamagedResult: a file is missing, differs from its record, or is not valid.
    """
    manifest = read_manifest(path)
    if manifest.stage != stage_name(kind):
        raise ManifestError(
            f"{path} holds a finished '{one_line(manifest.stage):.40}', not '{stage_name(kind)}'; name "
            f"a folder that `biloom {stage_name(kind)}` wrote"
        )
    if manifest.stage_version > VERSION:
        raise ManifestError(f"{path} was written by a newer biloom; upgrade biloom")
    details = manifest.details
    return Task(
        path=path,
        manifest=manifest,
        kind=kind,
        config=read_checked(path, manifest, CONFIG, saved),
        labels=_labels(path, manifest),
        tensors=_tensors(path, manifest),
        metrics=read_checked(path, manifest, METRICS, dict[str, Any]),
        model=ModelReference(details["model"], details["model_path"]),
        bundled=details["bundled"],
    )


def _tensor_problem(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Return how tensors differ from the expected names, types and shapes, or "" if they do not."""
    for name in sorted(found.keys() ^ expected.keys()):
        return f"{'no' if name in expected else 'unknown'} tensor '{one_line(name)}'"
    for name, tensor in sorted(found.items()):
        is_, should = _described(tensor), _described(expected[name])
        if is_ != should:
            return (
                f"'{one_line(name)}' is {is_}, and must be {should} by the settings, the labels and "
                "the language model"
            )
    return ""


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _labels(path: str, manifest: Manifest) -> tuple[str, ...]:
    labels = read_checked(path, manifest, LABELS, list[str])
    if len({*labels}) < len(labels):
        raise _invalid(path, manifest, LABELS, "a label is there twice")
    return tuple(labels)


def _tensors(path: str, manifest: Manifest) -> dict[str, Tensor]:
    data = read_verified(path, manifest, HEAD)
    try:
        tensors = load_safetensors(data)
    # KeyError for a type that torch lacks.
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise _invalid(path, manifest, HEAD, one_line(str(error))) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise _invalid(path, manifest, HEAD, f"'{one_line(name)}' holds NaN or infinity")
    return tensors


def _invalid(path: str, manifest: Manifest, name: str, reason: str) -> DamagedResult:
    return damaged(storage.join(path, name), f"is damaged ({reason})", path, manifest.stage)

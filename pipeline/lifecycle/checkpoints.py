"""The checkpoint that the config names for evaluation or export.

Imports neither Beam nor torch, so that a finished stage is recognised at once.
"""

from difflib import get_close_matches
from typing import NamedTuple

from lightning_modules.models.train_files import BEST, CHECKPOINT
from pipeline.lifecycle.order import BEST_STEP, LAST_STEP, is_elsewhere
from pipeline.lifecycle.stage import StageError
from preprocess.errors import one_line
from preprocess.files import storage
from preprocess.files.manifest import NAME, Manifest, ManifestError, read_manifest

CHOICES = f"{BEST_STEP}, {LAST_STEP}, a train folder, or its {BEST} or {CHECKPOINT}"


class TrainedCheckpoint(NamedTuple):
    """A checkpoint of a finished training.

    Attributes:
        folder: the train folder, an absolute path or a URL.
        manifest: its manifest.
        name: name of the file in the folder.
    """

    folder: str
    manifest: Manifest
    name: str

    @property
    def step(self) -> int:
        """The step whose weights it has."""
        details = self.manifest.details
        return int(details["best_step"] if self.name == BEST else details["steps"])

    @property
    def described(self) -> str:
        """The step, and the number of all steps if there are later ones."""
        steps = self.manifest.details["steps"]
        return f"step {self.step:,}" + (f" of {steps:,}" if self.step < steps else "")

    @property
    def kind(self) -> str:
        """Return "last" if the weights are those of the last step, else "best"."""
        return LAST_STEP if self.step == self.manifest.details["steps"] else BEST_STEP


class Named(NamedTuple):
    """What a setting for a checkpoint names.

    Attributes:
        folder: the train folder as given; None for that of this run.
        name: name of the file; None for the best checkpoint, or the last one if there is no best.
    """

    folder: str | None
    name: str | None


def named_checkpoint(setting: str, value: str | None) -> Named:
    """Return the folder and file that a setting names.

    Args:
        setting: the setting, such as "export.checkpoint", for messages.
        value: its value.

    Raises:
        StageError: the value is a misspelled keyword, or a file that is not a checkpoint of a finished
            training.
    """
    if not value:
        return Named(None, None)
    if not is_elsewhere(setting, value):
        return Named(None, {BEST_STEP: BEST, LAST_STEP: CHECKPOINT}[value])
    folder, separator, name = value.rpartition("/")
    if name in (BEST, CHECKPOINT):
        return Named(folder or separator or ".", name)
    shown = one_line(f"{setting}={value}")
    if name.endswith(".ckpt"):
        raise StageError(
            f"{shown}: this file is not a checkpoint of a finished training; set {setting} to {CHOICES}"
        )
    if not separator and not storage.is_remote(value) and not storage.local_path(value).exists():
        meant = get_close_matches(value.strip().lower(), (BEST_STEP, LAST_STEP), n=1)
        hint = f"did you mean '{meant[0]}'? Set" if meant else "set"
        raise StageError(f"{shown}: there is no such folder; {hint} {setting} to {CHOICES}")
    return Named(value, None)


def open_checkpoint(setting: str, value: str | None, own: str) -> TrainedCheckpoint:
    """Return the checkpoint that a setting names.

    Args:
        setting: the setting, such as "export.checkpoint", for messages.
        value: its value.
        own: the train folder of this run.

    Raises:
        ManifestError: the training is not finished.
        StageError: as in `named_checkpoint`, or the training has no best checkpoint.
    """
    named = named_checkpoint(setting, value)
    folder = storage.absolute(named.folder or own)
    try:
        manifest = read_manifest(folder, "train")
    except ManifestError as error:
        inner = storage.join(folder, "train")
        if not named.folder or not storage.exists(storage.join(inner, NAME)):
            raise
        raise ManifestError(f"{error}. Did you mean {one_line(f'{setting}={inner}')}?") from error
    if BEST in manifest.records:
        return TrainedCheckpoint(folder, manifest, named.name or BEST)
    # Former versions kept the last checkpoint only, so it is the best one that there is.
    is_former = "best_step" not in manifest.details and named.folder is None
    if named.name == BEST and not is_former:
        last = storage.join(folder, CHECKPOINT) if named.folder else LAST_STEP
        raise StageError(
            one_line(
                f"{setting}={value}: {folder} has no {BEST}, because no held-out text was evaluated in "
                f"its training, or a former version of biloom finished it; set {setting}={last}"
            )
        )
    return TrainedCheckpoint(folder, manifest, CHECKPOINT)

"""The folder or file that `train.init_from` names. Imports no torch."""

from typing import NamedTuple

from lightning_modules.models.train_files import CHECKPOINT
from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.manifest import NAME, Manifest, ManifestError, read_manifest


class InitialSource(NamedTuple):
    """A model folder, or a checkpoint of a finished training.

    Attributes:
        folder: the folder, an absolute path or a URL.
        manifest: its manifest.
        checkpoint: name of the checkpoint in the folder; None for a model folder.
    """

    folder: str
    manifest: Manifest
    checkpoint: str | None

    @property
    def content(self) -> str:
        """A hash of the content: of the model, or of the checkpoint with its optimiser's state."""
        if self.checkpoint is None:
            return self.manifest.content
        return self.manifest.records[self.checkpoint].xxh128


def initial_source(path: str) -> InitialSource:
    """Open what `train.init_from` names.

    Args:
        path: a model folder, a train folder or a checkpoint in one, as a path or URL.

    Raises:
        ManifestError: there is no finished stage at the path, or its manifest is damaged.
        UserError: the stage is neither export nor train, or the training has no such checkpoint.
    """
    path = storage.absolute(path)
    folder, _, name = path.rstrip("/").rpartition("/")
    is_file = name.endswith(".ckpt")
    if not is_file:
        folder, name = path, CHECKPOINT
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        if storage.exists(storage.join(folder, NAME)):
            raise
        raise ManifestError(
            one_line(f"train.init_from: {_missing(path, folder, is_file)}")
        ) from error
    if manifest.stage == "export" and not is_file:
        return InitialSource(folder, manifest, None)
    if manifest.stage != "train":
        raise UserError(
            one_line(
                f"train.init_from: {folder} holds a finished '{manifest.stage:.40}'; name the folder of "
                "an export or train stage, or a checkpoint in the latter"
            )
        )
    if name not in manifest.records:
        held = sorted(one for one in manifest.records if one.endswith(".ckpt"))
        raise UserError(
            one_line(f"train.init_from: {folder} has no {name}; it has {', '.join(held) or 'none'}")
        )
    return InitialSource(folder, manifest, name)


def _missing(path: str, folder: str, is_file: bool) -> str:
    """Return what is wrong with a path at which there is no finished stage, and what to do."""
    if is_file and not storage.exists(path):
        return f"there is no file {path}; check the path"
    if is_file:
        return (
            f"{path} is not a checkpoint of a finished training (no {NAME} beside it); finish the "
            "training, then name its checkpoint"
        )
    stages = [
        storage.join(folder, stage)
        for stage in ("train", "export")
        if storage.exists(storage.join(folder, stage, NAME))
    ]
    if stages:
        return f"{path} is a run folder; name {' or '.join(stages)}"
    return f"{path} holds no finished export or train stage (no {NAME}); finish it first, or check the path"

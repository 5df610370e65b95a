"""The model folder that `train.teacher.model` names. Imports no torch."""

from typing import Any

from lightning_modules.models.hub import local_folder
from lightning_modules.training.distillation.config import TeacherConfig
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import ManifestError, read_manifest


def teacher_folder(teacher: TeacherConfig) -> str:
    """Return the folder of a teacher, an absolute path or a URL.

    Raises:
        UserError: none is named.
        ManifestError: the folder holds no finished model.
    """
    if teacher.model is None:
        raise UserError(
            "train.teacher.model is not set; name the model folder of the teacher, or set train.teacher "
            "to null"
        )
    try:
        folder = storage.absolute(local_folder(teacher.model))
        read_manifest(folder, "export")
    except ManifestError as error:
        raise ManifestError(f"train.teacher.model: {error}") from error
    return folder


def teacher_request(teacher: TeacherConfig | None) -> dict[str, Any]:
    """Return the content hash of the teacher, as part of the request of a training.

    Raises:
        UserError, ManifestError: as in `teacher_folder`.
    """
    if teacher is None:
        return {}
    return {"train.teacher.model": read_manifest(teacher_folder(teacher), "export").content}

"""What decides the result of a training: its settings, and the content of what it reads."""

from typing import Any

from lightning_modules.tasks.folder import VERSION, Kind, stage_name
from lightning_modules.tasks.training_config import TaskOptions
from preprocess.errors import UserError, one_line
from preprocess.files.fingerprint import plain
from preprocess.files.manifest import hash_file, read_manifest
from preprocess.reading.formats import INSTALLED_DOCS
from preprocess.reading.labelled.installed import installed_content
from preprocess.section import result_fields


class RequestError(UserError):
    """Raised if a file of a training does not exist, or the dev file is the training file."""


def request_of(kind: Kind, file: str, model: str, config: TaskOptions) -> dict[str, Any]:
    """Return the settings that change the result, and the content of files, model and cache.

    Args:
        kind: the task.
        file: the training file.
        model: folder of the model or of the cache.
        config: the settings.

    Raises:
        RequestError: a file does not exist, or both files are the same.
        ManifestError: there is no model or cache.
    """
    train, dev = _content(file), _content(config.dev) if config.dev else None
    if train == dev:
        raise RequestError(
            f"{config.dev}: the dev file has the content of the training file, so that its scores would "
            "say nothing about new text; name another file with dev=FILE, or leave dev out to hold a "
            "share of the training file out"
        )
    request: dict[str, Any] = plain(
        {
            "stage": stage_name(kind),
            "stage_version": VERSION,
            "train": train,
            "dev": dev,
            "model": read_manifest(model).content,
            "cache": read_manifest(config.cache, "embed").content if config.cache else None,
            **result_fields(config, kind),
        }
    )
    return request


def _content(path: str) -> str:
    if path == INSTALLED_DOCS:
        return installed_content()
    try:
        return hash_file(path)[1]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise RequestError(
            f"{one_line(path)}: {error.strerror or 'no such file'}; name a labelled file"
        ) from error

"""What decides the result of a training: its settings, and the content of what it reads."""

from collections.abc import Mapping
from typing import Any

from lightning_modules.tasks.folder import VERSION, Kind, stage_name
from lightning_modules.tasks.training_config import TaskOptions
from preprocess.errors import UserError, one_line
from preprocess.files.fingerprint import plain
from preprocess.files.manifest import hash_file, read_manifest
from preprocess.reading.formats.detection import INSTALLED_DOCS
from preprocess.reading.labelled.content import STANDARD_INPUT
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


def check_unchanged(request: Mapping[str, Any], file: str, config: TaskOptions) -> None:
    """Check that the files of a training, which have been read, are still those of its request.

    Raises:
        RequestError: a file changed while it was read, so that the folder would not say what it was
            trained on.
    """
    for path, content in ((file, request["train"]), (config.dev, request["dev"])):
        if path is not None and _content(path) != content:
            raise RequestError(
                f"{one_line(path)}: this file changed while it was read; run the command again when no "
                "other program writes to it"
            )


def _content(path: str) -> str:
    if path == INSTALLED_DOCS:
        return installed_content()
    if path == STANDARD_INPUT:
        raise RequestError(
            "a training cannot read standard input, because a resumed training reads its file again; "
            "write the input to a file and name it"
        )
    try:
        return hash_file(path)[1]
    except OSError as error:
        raise RequestError(
            f"{one_line(path)}: {error.strerror or 'no such file'}; name a labelled file"
        ) from error

"""What the spaCy components share: the language model, its copy in a pipeline, and places of tokens."""

from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypedDict

from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import NAME, read_manifest
from preprocess.files.verified import read_verified
from preprocess.tokenizers.segmentation.spanned_text import SpannedText


class PipelineError(UserError):
    """A pipeline whose language model cannot be found, or is another one than when it was saved."""


class SavedModel(TypedDict):
    """What a saved pipeline holds of the language model.

    Attributes:
        content: content hash of the model folder.
        files: bytes of the files of the model folder by name; empty if it is not bundled.
    """

    content: str
    files: dict[str, bytes]


class ModelSource:
    """A model folder of a pipeline, which is loaded when it is first used.

    A saved pipeline holds the content hash of the folder. The folder is loaded again by its path,
    unless ``bundle`` is set: then the files are a part of the saved pipeline.

    Args:
        path: model folder, a local path, an fsspec URL or a repository of the Hugging Face hub.
        bundle: whether a saved pipeline holds the files of the folder.
    """

    def __init__(self, path: str, bundle: bool) -> None:
        self.path, self._bundle = path, bundle
        self._model: BiLM | None = None
        self._files: dict[str, bytes] = {}

    @property
    def model(self) -> BiLM:
        """The language model."""
        if self._model is None:
            self._model = BiLM.from_pretrained(self.path)
        return self._model

    def save(self) -> SavedModel:
        """Return what a saved pipeline is to hold."""
        if self._bundle and not self._files:
            folder = self.model.folder  # the path may be a repository
            manifest = read_manifest(folder, "export")
            self._files = {
                file.name: read_verified(folder, manifest, file.name) for file in manifest.all_files
            }
            self._files[NAME] = storage.read_bytes(storage.join(folder, NAME))
        return {"content": self.model.content, "files": self._files}

    def restore(self, saved: SavedModel) -> None:
        """Load the language model of a saved pipeline.

        Raises:
            PipelineError: the pipeline does not hold the model's files, and its folder is missing or
                holds another model.
        """
        if saved["files"]:
            self._files = saved["files"]
            with TemporaryDirectory(prefix="biloom-") as folder:
                for name, data in saved["files"].items():
                    # Names are those of a pipeline, which may come from an untrusted source.
                    if PurePosixPath(name).name != name:
                        raise PipelineError(f"the pipeline holds a file with the name {name!r:.60}")
                    (Path(folder) / name).write_bytes(data)
                self._model = BiLM.from_pretrained(folder)
            return
        try:
            found = self.model
        except (UserError, OSError) as error:
            raise PipelineError(
                f"{error}; the pipeline was saved without its language model: set 'model' of the "
                "component to its folder, as in spacy.load(..., config={'components': {NAME: {'model': "
                "FOLDER}}}), or save it with bundle=true"
            ) from error
        if found.content != saved["content"]:
            raise PipelineError(
                f"{self.path} holds the model {found.content[:12]}, but the pipeline was saved with "
                f"{saved['content'][:12]}; name the folder of that model"
            )


def spanned(doc: Any) -> SpannedText:
    """Return the text of a spaCy Doc with the places of its tokens."""
    return SpannedText(doc.text, [(token.idx, token.idx + len(token)) for token in doc])

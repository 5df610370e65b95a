"""The language model or the vector cache of a task, by the path of either."""

from dataclasses import dataclass

from lightning_modules.tasks.folder import ModelReference
from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.manifest import read_manifest
from preprocess.vectors.cache import VectorCache


class VectorSourceError(UserError):
    """Raised if a path names neither a model nor a vector cache."""


@dataclass(frozen=True)
class VectorSource:
    """Where the vectors of a task come from.

    Attributes:
        model: the language model, or None if only a cache was given.
        cache: the vector cache, or None.
        reference: content and path of the model.
    """

    model: BiLM | None
    cache: VectorCache | None
    reference: ModelReference


def open_vectors(path: str, cache: str | None = None) -> VectorSource:
    """Open a model folder or a vector cache.

    Args:
        path: folder or URL of a model or of a cache.
        cache: a cache beside the model; its texts are read from it.

    Raises:
        VectorSourceError: ``path`` is neither, or both paths are caches.
        ManifestError, ModelError, CacheError: a folder is missing or damaged, or the cache is of
            another model.
    """
    manifest = read_manifest(path)
    if manifest.stage == "embed":
        if cache is not None:
            raise VectorSourceError(
                f"--model names the vector cache {path}, and cache names {cache}; name the model "
                "folder with --model, or only one cache"
            )
        opened = VectorCache.open(path)
        return VectorSource(None, opened, ModelReference(opened.model))
    if manifest.stage != "export":
        raise VectorSourceError(
            f"{path} holds a finished '{manifest.stage}'; --model must name a model folder, which "
            "`biloom export` writes, or a vector cache, which `biloom embed` writes"
        )
    model = BiLM.from_pretrained(path)
    reference = ModelReference(model.content, storage.absolute(path))
    return VectorSource(model, VectorCache.open(cache, model.content) if cache else None, reference)

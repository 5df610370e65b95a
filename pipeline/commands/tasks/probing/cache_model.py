"""The model that made a vector cache, found by its content hash."""

from collections.abc import Iterator
from contextlib import suppress

from lightning_modules.vectors.pretrained import BiLM
from preprocess.errors import UserError, one_line
from preprocess.files import storage
from preprocess.files.details import ManifestError
from preprocess.files.manifest import read_manifest
from preprocess.files.verified import DamagedResult, read_config
from preprocess.vectors.cache import VectorCache


class CacheModelError(UserError):
    """The model of a cache is not found, or a named model is another one."""


def model_of(cache: VectorCache, named: str | None) -> BiLM:
    """Load the model that made a cache.

    Args:
        cache: the cache.
        named: model folder; None looks in the ``export`` folder beside the cache, then at the model
            that the cache's config names.

    Raises:
        CacheModelError: the named model is not that of the cache, or none is found.
        ManifestError: the named folder holds no finished model.
        ModelError: a file of the model is damaged.
    """
    if named:
        content = read_manifest(named, "export").content
        if content != cache.model:
            raise CacheModelError(
                f"{named}: this is not the model that made {cache.path} ({content[:12]}, not "
                f"{cache.model[:12]}); name its model with --model, or embed the texts again"
            )
        return BiLM.from_pretrained(named)
    tried = list(dict.fromkeys(_places(cache)))
    for path in tried:
        # A folder without a model of this version is no reason to stop.
        with suppress(ManifestError, OSError):
            if read_manifest(path, "export").content == cache.model:
                return BiLM.from_pretrained(path)
    raise CacheModelError(
        f"{cache.path}: its model ({cache.model[:12]}) is needed for a text that is not in the cache, "
        f"and is not in {' or '.join(map(one_line, tried))}; name its folder with --model"
    )


def _places(cache: VectorCache) -> Iterator[str]:
    """Yield the folders in which the model of a cache may be."""
    run = cache.path.rstrip("/").rpartition("/")[0] or "."
    yield storage.join(run, "export")
    # The config is beside the result, and the cache can be read without it.
    with suppress(DamagedResult, OSError):
        embed = read_config(cache.path, cache.manifest, "config.yaml").get("embed")
        if isinstance(embed, dict) and isinstance(embed.get("model"), str):
            yield embed["model"]

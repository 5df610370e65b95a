"""The vectors of a text as a cache would hold them, whether or not the text is in the cache."""

from collections.abc import Callable
from typing import Any

from lightning_modules.config import MixConfig
from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Selection
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.codec import CacheError, Vectors
from preprocess.vectors.search.marked_text import QueryError
from preprocess.vectors.shard import Text


def entry_of(cache: VectorCache, text: str, load: Callable[[], BiLM]) -> tuple[list[str], Vectors]:
    """Return the spellings and the vectors of a text's units, as an entry of a cache.

    Args:
        cache: the cache.
        text: the text. A cache of lists of words is asked for the list of its words.
        load: returns the model of the cache. It is called only if the text is not in the cache.

    Returns:
        Spellings of the units, and their vectors, shape (layers, units, dim).

    Raises:
        CacheError: the cache is damaged, or its manifest does not say how its vectors were made.
        QueryError: the model reads no token in the text.
    """
    settings: dict[str, Any] = cache.manifest.details.get("vectors", {})
    asked: Text = text.split() if settings.get("words") else text
    if cache.texts_kept and asked in cache:
        spellings, vectors = cache.tokens(asked), cache[asked]
    else:
        model = load()
        [found] = model.embed_selection(
            [asked], _selection(cache, settings), warm_up=bool(settings.get("warm_up"))
        )
        spellings, vectors = [token.spelling for token in found.tokens], found.vectors
    if not spellings:
        raise QueryError("the text to search for has no tokens; write a text that the model reads")
    return spellings, vectors


def _selection(cache: VectorCache, settings: dict[str, Any]) -> Selection:
    try:
        layers = settings["layers"]
        return Selection(
            tuple(layers) if isinstance(layers, list) else layers,
            settings["unit"],
            settings["pooling"],
            MixConfig.model_validate(settings["mix"]),
            **{name: settings[name] for name in ("kind", "path") if name in settings},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CacheError(
            f"{cache.path}: the manifest does not say how the vectors were made, so the vectors of "
            "another text cannot be compared with them; search for a text of the cache, or make the "
            "cache again with `biloom embed --overwrite`"
        ) from error

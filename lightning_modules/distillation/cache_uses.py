"""The tokens of vector caches with their vectors."""

from collections.abc import Iterator, Sequence

import numpy as np

from lightning_modules.distillation.errors import DistillationError
from lightning_modules.distillation.layer import TeacherLayer
from lightning_modules.distillation.type_sums import Uses
from lightning_modules.vectors.pretrained import BiLM
from preprocess.vectors.cache import VectorCache


def check_cache(cache: VectorCache, model: BiLM, layer: TeacherLayer) -> None:
    """Check that a cache has the vectors of a model's tokens in a layer.

    Raises:
        DistillationError: it was made by another model, has vectors of something else than tokens or from
            another state than the zero state, or does not have the layer or its texts.
    """
    path, made = cache.path, cache.manifest.details.get("vectors", {})
    if cache.model != model.content:
        raise DistillationError(
            f"{path}: this vector cache was made by another model ({cache.model[:12]}, not "
            f"{model.content[:12]}); name the model that made it with --model, or a cache of this model"
        )
    if cache.unit != "token":
        raise DistillationError(
            f"{path}: this vector cache has one vector for each {cache.unit}, but a type's vector is the mean "
            "over its tokens; make a cache with embed.unit=token"
        )
    if made.get("kind") == "gradient":
        raise DistillationError(
            f"{path}: this vector cache has gradients; make a cache with embed.kind=vector"
        )
    if made.get("warm_up"):
        raise DistillationError(
            f"{path}: this vector cache was made with embed.warm_up=true, but types without uses are read from "
            "the zero state; make a cache with embed.warm_up=false"
        )
    if not cache.texts_kept:
        raise DistillationError(
            f"{path}: this vector cache was made without its texts, so that the types of its vectors are "
            "unknown; make a cache with embed.texts=true"
        )
    layer.place_in(path, made)


def cache_uses(
    cache: VectorCache, model: BiLM, layer: TeacherLayer, earlier: Sequence[VectorCache] = ()
) -> Iterator[Uses]:
    """Yield the tokens of each text of a cache, in the order stored.

    Args:
        cache: a cache that `check_cache` accepts.
        model: the model that made it.
        layer: the wanted layer.
        earlier: caches whose texts are left out, because they were read already.

    Raises:
        DistillationError: the stored tokens of a text are not those of the model's tokenizer.
        CacheError: the cache is damaged.
    """
    place = layer.place_in(cache.path, cache.manifest.details["vectors"])
    for text, spellings, vectors in cache.entries(earlier):
        # The ids are not stored, and an unknown word may be spelled like a token.
        [read] = model.reader.read([text])
        if [token.spelling for token in read.tokens] != spellings:
            raise DistillationError(
                f"{cache.path}: the tokens of a text are not those of the model's tokenizer: "
                f"{str(text)!r:.80}; make the cache again with `biloom embed --overwrite`"
            )
        ids = np.fromiter((token.id for token in read.tokens), np.int64, len(read.tokens))
        yield Uses(ids, layer.of_all(vectors) if place is None else vectors[place])

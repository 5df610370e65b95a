"""A text as an entry of a cache, by the cache's own settings."""

from types import SimpleNamespace

import numpy as np
import pytest

from lightning_modules.tasks.probing.cache_query import entry_of
from preprocess.vectors.codec import CacheError
from preprocess.vectors.search.marked_text import QueryError

SETTINGS = {"layers": [0, 2], "unit": "word", "pooling": "mean", "words": True, "warm_up": True}
SETTINGS["mix"] = {"weights": None, "gamma": 1.0, "layer_norm": False}


class Cache(dict):
    texts_kept, path = True, "c"

    def __init__(self, settings, **entries):
        super().__init__({tuple(key.split()): np.ones((2, 2, 4)) for key in entries})
        details = {} if settings is None else {"vectors": settings}
        self.manifest = SimpleNamespace(details=details)

    def __contains__(self, text):
        return super().__contains__(tuple(text))

    def __getitem__(self, text):
        return super().__getitem__(tuple(text))

    def tokens(self, text):
        return list(text)


def model(asked, tokens=("x",)):
    def embed_selection(texts, selection, warm_up):
        asked.append((texts, selection.layers, selection.unit, selection.pooling, warm_up))
        tokens_of = [SimpleNamespace(spelling=one) for one in tokens]
        return [SimpleNamespace(tokens=tokens_of, vectors=np.zeros((2, len(tokens), 4)))]

    return lambda: SimpleNamespace(embed_selection=embed_selection)


def test_a_text_is_embedded_as_the_cache_was():
    asked = []
    spellings, vectors = entry_of(Cache(SETTINGS), "a  b", model(asked))
    assert asked == [([["a", "b"]], (0, 2), "word", "mean", True)]
    assert (spellings, vectors.shape) == (["x"], (2, 1, 4))


def test_a_text_of_the_cache_needs_no_model():
    asked = []
    spellings, vectors = entry_of(Cache(SETTINGS, **{"a b": 1}), "a b", model(asked))
    assert (asked, spellings, vectors.sum()) == ([], ["a", "b"], 16)


def test_what_cannot_be_embedded_is_told():
    with pytest.raises(QueryError, match="has no tokens"):
        entry_of(Cache(SETTINGS), "\x00", model([], tokens=()))
    for settings in (None, {}, {**SETTINGS, "mix": 3}):
        with pytest.raises(CacheError, match="does not say how the vectors were made"):
            entry_of(Cache(settings), "a", model([]))

"""The approximate index finds what the exact search finds, and is refused for another cache."""

import numpy as np
import pytest

from preprocess.files.manifest import read_manifest
from preprocess.vectors.search.exact import ExactSearch, WordQuery
from preprocess.vectors.search.index import CacheIndex, CacheIndexError
from preprocess.vectors.search.layer import CacheLayer
from preprocess.vectors.search.marked_text import MarkedText

pytest.importorskip("usearch")

QUERY = MarkedText.parse("a0 [bank] b0 shore reed")


def opened(folder, cache, texts=False):
    return CacheIndex.open(str(folder), cache, CacheLayer.of(cache), texts, "0")


def words(uses):
    return [(one.snippet, pytest.approx(one.cosine, abs=2e-3)) for one in uses]


def test_an_index_finds_the_uses_of_the_exact_search(cache_of, banks, tmp_path):
    cache = cache_of(banks)
    layer = CacheLayer.of(cache)
    query = WordQuery.of(QUERY, cache.tokens(QUERY.text), cache[QUERY.text], layer)
    exact = ExactSearch(cache, layer).nearest_uses(query, 4)
    for _ in range(2):  # made, then opened
        found = opened(tmp_path / "index", cache).nearest_uses(query, 4)
        assert [one.snippet for one in found.others] == [one.snippet for one in exact.others]
        assert words(found.others) == words(exact.others)
        # Cosines of nearly equal uses differ by the rounding of float16.
        assert {one.snippet for one in found.same} == {one.snippet for one in exact.same}
        assert [word for word, _ in found.static] == [word for word, _ in exact.static]
        cosines = [cosine for _, cosine in exact.static]
        assert [cosine for _, cosine in found.static] == pytest.approx(cosines, abs=1e-5)
        assert found.searched == 200


def test_an_index_finds_the_texts_of_the_exact_search(cache_of, banks, tmp_path):
    cache = cache_of([*banks, []])
    layer = CacheLayer.of(cache)
    vector = layer.text(cache[QUERY.text])
    exact = ExactSearch(cache, layer).nearest_texts(QUERY.text, vector, 5)
    index = opened(tmp_path, cache, texts=True)
    found = index.nearest_texts(QUERY.text, vector, 5)
    assert {one.text for one in found} == {one.text for one in exact}
    assert index.vectors == 40


def test_the_files_of_an_index_depend_on_the_cache_only(cache_of, banks, tmp_path):
    cache = cache_of(banks)
    for name in ("a", "b"):
        opened(tmp_path / name, cache)
    made = [read_manifest(str(tmp_path / name / "words-layer-1"), "index") for name in "ab"]
    assert made[0].content == made[1].content
    assert {file.name for file in made[0].files} == {
        one.name for one in (tmp_path / "a" / "words-layer-1").iterdir()
    } - {"manifest.json"}


def test_an_index_of_another_cache_is_refused(cache_of, banks, tmp_path):
    cache = cache_of(banks)
    opened(tmp_path / "index", cache)
    object.__setattr__(cache.manifest, "content", "other")
    with pytest.raises(CacheIndexError, match="of another cache, or of this cache before"):
        opened(tmp_path / "index", cache)


def test_an_interrupted_index_is_made_again_and_a_damaged_one_is_told(cache_of, banks, tmp_path):
    cache = cache_of(banks)
    folder = tmp_path / "words-layer-1"
    opened(tmp_path, cache)
    (folder / "manifest.json").unlink()
    (folder / "words.json").write_bytes(b"[")
    assert opened(tmp_path, cache).vectors == 200
    (folder / "mean.npy").write_bytes(b"")
    with pytest.raises(CacheIndexError, match=r"mean\.npy.*delete .* to make the index again"):
        opened(tmp_path, cache)


def test_an_index_is_local_and_needs_usearch(cache_of, banks, tmp_path, monkeypatch):
    cache = cache_of(banks)
    with pytest.raises(CacheIndexError, match="must be in a local folder"):
        opened("memory://index", cache)
    monkeypatch.setitem(__import__("sys").modules, "usearch.index", None)
    with pytest.raises(CacheIndexError, match=r"pip install 'biloom\[search\]'"):
        opened(tmp_path, cache)


def test_an_empty_cache_has_an_empty_index(cache_of, tmp_path):
    cache = cache_of([[], []])
    index = opened(tmp_path, cache)
    query = WordQuery("", "bank", np.ones(16, "f4"), np.ones(8, "f4"), "bank")
    found = index.nearest_uses(query, 3)
    assert (found.same, found.others, found.static, found.searched) == ((), (), (), 0)

"""Vectors of labelled texts from a model, from a cache, or from both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_modules.tasks import stored_vectors
from lightning_modules.tasks.features import FeatureError, features_of
from lightning_modules.vectors.pretrained import BiLM
from preprocess.files.manifest import Manifest, write_manifest
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.index import write_index
from preprocess.vectors.shard import Text, VectorShardWriter

TEXTS = ["kana loko", "", "mipu tenu loko kana", "kana loko", "נונו सापु"]


@pytest.fixture(scope="module")
def model(trained: Path) -> BiLM:
    return BiLM.from_pretrained(trained / "export")


def cache_of(
    folder: Path, entries: Sequence[tuple[Text, Any]], model: str, unit: str = "token", **more: Any
) -> VectorCache:
    layers, _, dim = entries[0][1].shape
    with VectorShardWriter(str(folder), (0, 0), layers, dim, "float32") as writer:
        for text, vectors in entries:
            writer.add(text, ["t"] * vectors.shape[1], vectors)
    files = (*writer.close(), *write_index(str(folder), [(0, 0)]))
    details = {"layers": layers, "dim": dim, "dtype": "float32", "unit": unit, "model": model}
    write_manifest(
        str(folder),
        Manifest("embed", 2, "", "", "", {}, files, {**details, "texts_kept": True, **more}),
    )
    return VectorCache.open(folder)


def test_vectors_are_those_of_the_model(model: BiLM) -> None:
    found = features_of(model, None, TEXTS, "token")
    wanted = model.embed(TEXTS, layers="all", unit="token")
    assert len(found) == 5
    assert (found.depth, found.dim, found.model) == (model.depth, model.dim, model.content)
    assert found.lengths.tolist() == [len(one.tokens) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other.vectors, atol=1e-5)
    assert found[1].shape == (model.depth, 0, model.dim)
    assert found[0] is found[3]


def test_texts_that_are_computed_alone_do_not_depend_on_others(model: BiLM) -> None:
    together = features_of(model, None, TEXTS, "token", batch_tokens=1)
    alone = features_of(model, None, TEXTS[2:3], "token", batch_tokens=1)
    np.testing.assert_array_equal(together[2], alone[0])


def test_vectors_that_do_not_fit_into_memory_are_in_files(
    model: BiLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_vectors, "BLOCK_BYTES", 300)
    inside, outside = (
        features_of(model, None, TEXTS, "word", memory_bytes=n) for n in (1 << 20, 200)
    )
    assert not any(isinstance(one.base, np.memmap) for one in inside)
    assert any(isinstance(one.base, np.memmap) for one in outside)
    for one, other in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(one, other)


def test_texts_of_a_cache_are_not_computed_again(model: BiLM, tmp_path: Path) -> None:
    depth, dim = model.depth, model.dim
    stored = np.random.default_rng(0).normal(size=(depth, 2, dim)).astype("f4")
    cache = cache_of(tmp_path, [(TEXTS[0], stored)], model.content)
    found = features_of(model, cache, TEXTS, "token")
    np.testing.assert_array_equal(found[0], stored)
    computed = model.embed([TEXTS[2]])[0].vectors
    np.testing.assert_allclose(found[2], computed, atol=1e-5)
    # An empty text needs no entry.
    alone = features_of(None, cache, TEXTS[:2], "token")
    np.testing.assert_array_equal(alone[0], stored)
    assert alone[1].shape == (depth, 0, dim)
    assert alone.model == model.content


def test_batches_are_padded_and_cut(model: BiLM) -> None:
    found = features_of(model, None, TEXTS, "token")
    batch = found.batch([2, 1, 0])
    assert batch.layers.shape == (model.depth, 3, 4, model.dim)
    assert batch.lengths.tolist() == [4, 0, 2]
    np.testing.assert_array_equal(batch.layers[:, 2, :2], found[0])
    assert not batch.layers[:, 2, 2:].any()
    cut = found.batch([2, 0], most_units=3)
    assert cut.lengths.tolist() == [3, 2]
    np.testing.assert_array_equal(cut.layers[:, 0], found[2][:, :3])


def test_a_subset_keeps_the_order(model: BiLM) -> None:
    found = features_of(model, None, TEXTS, "token")
    some = found.subset([4, 0])
    assert some.lengths.tolist() == [found.lengths[4], found.lengths[0]]
    np.testing.assert_array_equal(some[0], found[4])
    assert some.content != found.subset([0, 4]).content
    assert found.content == features_of(model, None, TEXTS, "token").content


def test_progress_counts_texts(model: BiLM) -> None:
    shown: list[tuple[float, str]] = []

    class Bar:
        def update(self, done: float, note: str = "") -> None:
            shown.append((done, note))

    features_of(model, None, TEXTS, "word", Bar())
    assert [done for done, _ in shown] == [1, 2, 3, 4]
    assert shown[-1][1].endswith(" words/s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": "word"}, r"vector for each word, but token vectors are requested; set unit=word"),
        ({"model": "other"}, r"made by another model \(other, not .*use the cache of this model"),
        ({"vectors": {"kind": "gradient"}}, "holds gradients, but a task reads vectors"),
        ({"layers": 1}, r"has 1 layers of .*make a cache of all layers"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(
    model: BiLM, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    vectors = np.ones((change.get("layers", model.depth), 2, model.dim), np.float32)
    made_by, unit = change.get("model", model.content), change.get("unit", "token")
    made = change.get("vectors", {})
    cache = cache_of(tmp_path, [(TEXTS[0], vectors)], made_by, unit, vectors=made)
    with pytest.raises(FeatureError, match=message):
        features_of(model, cache, TEXTS, "token")


def test_infinite_vectors_of_a_cache_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(tmp_path, [(TEXTS[0], np.ones((2, 2, 4), np.float32))], "m")
    # The writer of a cache refuses such vectors, so they come from another program.
    strange = np.full((2, 2, 4), np.nan, np.float32)
    monkeypatch.setattr(VectorCache, "__getitem__", lambda cache, text: strange)
    with pytest.raises(
        FeatureError, match=r"'kana loko' hold NaN or infinity; make the cache again"
    ):
        features_of(None, cache, TEXTS[:1], "token")


def test_texts_that_are_not_in_a_cache_are_named(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, [(TEXTS[0], np.ones((2, 2, 4), np.float32))], "m")
    with pytest.raises(
        FeatureError,
        match=r"2 of 4 texts are not in .*\('mipu tenu loko kana'; .*pass the model folder",
    ):
        features_of(None, cache, TEXTS, "token")
    with pytest.raises(FeatureError, match="no vectors: pass a model"):
        features_of(None, None, TEXTS, "token")

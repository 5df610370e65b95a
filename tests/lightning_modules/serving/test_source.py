"""Vectors of served texts: from a model, a cache, or both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_modules.serving.answer import sentence_vector, unit_vectors
from lightning_modules.serving.source import (
    AbsentTextError,
    Choice,
    ChoiceError,
    ServedVectors,
    averaged,
)
from lightning_modules.serving.text_limit import Limit, LongTextError
from lightning_modules.vectors.pretrained import BiLM
from preprocess.vectors.cache import VectorCache
from tests.conftest import Tiny

LIMIT = Limit(100)
TEXTS = ["kana lona mina", "nuko tena", "mina lona kana"]
STORED, ABSENT = "kana lona", "nuko nuko nuko"


@pytest.fixture(scope="module")
def model(trained: Path) -> BiLM:
    return BiLM.from_pretrained(trained / "export")


def cache_of(tiny: Tiny, trained: Path, folder: Path, *settings: str) -> VectorCache:
    (folder / "texts.txt").write_text(f"{STORED}\nmina\n", encoding="utf-8")
    texts, model = f"embed.input={folder}/texts.txt", f"embed.model={trained}/export"
    tiny.run("embed", folder, texts, model, "embed.dtype=float32", *settings)
    return VectorCache.open(folder / "embed")


@pytest.fixture(scope="module")
def cache(tiny: Tiny, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> VectorCache:
    return cache_of(tiny, trained, tmp_path_factory.mktemp("cache"))


def test_fixed_batches_give_equal_bits_in_any_company(model: BiLM) -> None:
    source = ServedVectors(model, None, fixed_batches=True)
    choice = source.choose(None, "token", None)
    many = [f"{first} {second} nuko" for first in ("ka", "lo", "mi") for second in "abcdefg"]
    texts = [one.text for one in source.prepare([*TEXTS, *many], choice, LIMIT)]
    assert all(texts)
    together = source.compute(texts, choice, 50)  # type: ignore[arg-type]
    for one, vectors in zip(texts, together, strict=True):
        [alone] = source.compute([one], choice, 50)  # type: ignore[list-item]
        assert alone.tobytes() == vectors.tobytes()


def test_a_cache_answers_its_own_texts_only(cache: VectorCache) -> None:
    source = ServedVectors(None, cache)
    choice = source.choose(None, None, None)
    [found] = source.prepare([STORED], choice, LIMIT)
    assert found.text is None
    np.testing.assert_array_equal(found.vectors, cache[STORED])
    assert source.values(choice, found.units) == cache[STORED].size
    with pytest.raises(AbsentTextError, match=r"^`inputs\[1\]` is not in the vector cache; a text"):
        source.prepare([STORED, ABSENT], choice, LIMIT)
    with pytest.raises(AbsentTextError):
        source.prepare([STORED.split()], choice, LIMIT)


def test_one_vector_of_a_cached_text_is_the_mean_of_its_units(
    cache: VectorCache, model: BiLM
) -> None:
    source = ServedVectors(model, cache)
    choice = source.choose(None, "sentence", None)
    size = cache.layers * cache.dim
    assert source.values(choice, 2) == size
    # The limit counts what is sent.
    stored, absent = source.prepare([STORED, ABSENT], choice, Limit(100, values=2 * size))
    mean = cache[STORED].mean(1, dtype=np.float64, keepdims=True).astype(np.float32)
    np.testing.assert_array_equal(stored.vectors, mean)
    assert absent.text is not None
    [vectors] = source.compute([absent.text], choice, 50)
    [units] = source.compute([absent.text], Choice(choice.selection), 50)
    np.testing.assert_array_equal(vectors, averaged(units))
    # All units of a text are read, so they count, too.
    with pytest.raises(LongTextError, match=r"^the cached vectors have more than \d+ numbers"):
        source.prepare([STORED], choice, Limit(100, values=size))


def test_texts_are_read_even_if_they_are_in_the_cache(cache: VectorCache, model: BiLM) -> None:
    source = ServedVectors(model, cache)
    [read] = source.read([STORED], source.choose(None, None, None).selection, LIMIT, [0])
    assert read.text is not None
    assert read.text.tokens == model.reader.read([STORED])[0].tokens


def test_cached_vectors_of_too_many_numbers_are_not_read(
    cache: VectorCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ServedVectors(None, cache)
    choice = source.choose(None, "token", None)
    size = cache[STORED].size
    assert len(source.prepare([STORED] * 2, choice, Limit(100, values=2 * size))) == 2
    read: list[object] = []
    get = VectorCache.__getitem__

    def counted(self: VectorCache, text: str) -> Any:
        read.append(text)
        return get(self, text)

    monkeypatch.setattr(VectorCache, "__getitem__", counted)
    with pytest.raises(
        LongTextError, match=r"^the cached vectors have more than \d+ numbers; send"
    ):
        source.prepare([STORED] * 3, choice, Limit(100, values=2 * size))
    assert len(read) == 2


@pytest.mark.parametrize(
    "settings",
    [
        ("embed.layers=top", "embed.unit=word"),
        ("embed.layers=mean", "embed.unit=sentence"),
        ("embed.layers=[0,-1]", "embed.words=true"),
    ],
)
def test_a_model_computes_absent_texts_as_those_of_the_cache(
    tiny: Tiny, trained: Path, tmp_path: Path, model: BiLM, settings: tuple[str, ...]
) -> None:
    cache = cache_of(tiny, trained, tmp_path, *settings)
    source = ServedVectors(model, cache)
    choice = source.choose(None, cache.unit, None)
    stored, absent = source.prepare([STORED, ABSENT], choice, LIMIT)
    assert stored.text is None
    assert absent.text is not None
    assert stored.vectors is not None
    [again] = source.compute(model.reader.read([STORED]), choice, 50)
    np.testing.assert_allclose(again, stored.vectors, atol=1e-6)
    [computed] = source.compute([absent.text], choice, 50)
    assert computed.shape == (cache.layers, absent.units, cache.dim)


def test_the_vectors_of_a_cache_cannot_be_chosen(cache: VectorCache) -> None:
    source = ServedVectors(None, cache)
    for layers, pooling in (("top", None), (None, "mean")):
        with pytest.raises(
            ChoiceError, match="whose layers and pooling cannot be changed; leave out"
        ):
            source.choose(layers, "sentence", pooling)  # type: ignore[arg-type]
    with pytest.raises(ChoiceError, match="one vector for each token, not for each word"):
        source.choose(None, "word", None)


def test_a_cache_of_texts_has_no_vectors_of_units(
    tiny: Tiny, trained: Path, tmp_path: Path
) -> None:
    source = ServedVectors(None, cache_of(tiny, trained, tmp_path, "embed.unit=sentence"))
    assert not source.choose(None, "sentence", None).mean
    with pytest.raises(ChoiceError, match=r"one vector for each text; ask `/embed` for it"):
        source.choose(None, None, None)


def test_a_cache_of_gradients_is_refused(tiny: Tiny, trained: Path, tmp_path: Path) -> None:
    cache = cache_of(tiny, trained, tmp_path, "embed.kind=gradient")
    with pytest.raises(ChoiceError, match="holds gradients, which are not served"):
        ServedVectors(None, cache)


def test_something_must_be_served() -> None:
    with pytest.raises(ChoiceError, match="neither a model nor a vector cache"):
        ServedVectors(None, None)


def test_answers_have_one_vector_for_a_text_or_for_each_unit() -> None:
    vectors = np.arange(24, dtype=np.float32).reshape(2, 3, 4)  # layers, units, dim
    flat = sentence_vector(averaged(vectors), normalize=False)
    np.testing.assert_array_equal(flat, [4, 5, 6, 7, 16, 17, 18, 19])
    assert np.linalg.norm(sentence_vector(averaged(vectors), normalize=True)) == pytest.approx(1)
    np.testing.assert_array_equal(unit_vectors(vectors)[1], [4, 5, 6, 7, 16, 17, 18, 19])
    zero = np.zeros((1, 1, 4), np.float32)
    np.testing.assert_array_equal(sentence_vector(zero, normalize=True), zero[0, 0])

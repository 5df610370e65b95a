"""Vectors of served texts: from a model, a cache, or both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_modules.serving.answer import sentence_vector, unit_vectors
from lightning_modules.serving.source import (
    AbsentTextError,
    ChoiceError,
    Limit,
    LongTextError,
    ServedVectors,
    truncated,
)
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
    selection = source.choose(None, "token", None)
    many = [f"{first} {second} nuko" for first in ("ka", "lo", "mi") for second in "abcdefg"]
    texts = [one.text for one in source.prepare([*TEXTS, *many], selection, LIMIT)]
    assert all(texts)
    together = source.compute(texts, selection, 50)  # type: ignore[arg-type]
    for one, vectors in zip(texts, together, strict=True):
        [alone] = source.compute([one], selection, 50)  # type: ignore[list-item]
        assert alone.tobytes() == vectors.tobytes()


def test_a_long_text_is_refused_or_truncated(model: BiLM) -> None:
    source = ServedVectors(model, None)
    selection = source.choose("all", "word", None)
    with pytest.raises(
        LongTextError, match=r"^`inputs\[1\]` has 3 tokens, but at most 2 are allowed"
    ):
        source.prepare(["kana", TEXTS[0]], selection, Limit(2))
    [cut] = source.prepare([TEXTS[0]], selection, Limit(2, truncate=True))
    assert cut.text is not None
    assert (cut.text.text, cut.units, cut.tokens) == ("kana lona", 2, 2)
    assert [word.spelling for word in cut.text.words] == ["kana", "lona"]
    [vectors] = source.compute([cut.text], selection, 50)
    np.testing.assert_array_equal(vectors, model.embed(["kana lona"], unit="word")[0].vectors)


def test_truncation_keeps_the_words_of_the_first_tokens(model: BiLM) -> None:
    [read] = model.reader.read([["kana", "lona", "mina"]])
    assert truncated(read, 1).words == read.words[:1]


def test_a_cache_answers_its_own_texts_only(cache: VectorCache) -> None:
    source = ServedVectors(None, cache)
    selection = source.choose(None, "sentence", None)
    [found] = source.prepare([STORED], selection, LIMIT)
    assert found.text is None
    np.testing.assert_array_equal(found.vectors, cache[STORED])
    assert source.values(selection, found.units) == cache[STORED].size
    with pytest.raises(AbsentTextError, match=r"^`inputs\[1\]` is not in the vector cache; a text"):
        source.prepare([STORED, ABSENT], selection, LIMIT)
    with pytest.raises(AbsentTextError):
        source.prepare([STORED.split()], selection, LIMIT)


def test_cached_vectors_of_too_many_numbers_are_not_read(
    cache: VectorCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ServedVectors(None, cache)
    selection = source.choose(None, "token", None)
    size = cache[STORED].size
    assert len(source.prepare([STORED] * 2, selection, Limit(100, values=2 * size))) == 2
    read: list[object] = []
    get = VectorCache.__getitem__

    def counted(self: VectorCache, text: str) -> Any:
        read.append(text)
        return get(self, text)

    monkeypatch.setattr(VectorCache, "__getitem__", counted)
    with pytest.raises(
        LongTextError, match=r"^the cached vectors have more than \d+ numbers; send"
    ):
        source.prepare([STORED] * 3, selection, Limit(100, values=2 * size))
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
    selection = source.choose(None, cache.unit, None)
    stored, absent = source.prepare([STORED, ABSENT], selection, LIMIT)
    assert stored.text is None
    assert absent.text is not None
    assert stored.vectors is not None
    [again] = source.compute(model.reader.read([STORED]), selection, 50)
    np.testing.assert_allclose(again, stored.vectors, atol=1e-6)
    [computed] = source.compute([absent.text], selection, 50)
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


def test_a_cache_of_gradients_is_refused(tiny: Tiny, trained: Path, tmp_path: Path) -> None:
    cache = cache_of(tiny, trained, tmp_path, "embed.kind=gradient")
    with pytest.raises(ChoiceError, match="holds gradients, which are not served"):
        ServedVectors(None, cache)


def test_something_must_be_served() -> None:
    with pytest.raises(ChoiceError, match="neither a model nor a vector cache"):
        ServedVectors(None, None)


def test_answers_have_one_vector_for_a_text_or_for_each_unit() -> None:
    vectors = np.arange(24, dtype=np.float32).reshape(2, 3, 4)  # layers, units, dim
    flat = sentence_vector(vectors, normalize=False)
    np.testing.assert_array_equal(flat, [4, 5, 6, 7, 16, 17, 18, 19])
    assert np.linalg.norm(sentence_vector(vectors, normalize=True)) == pytest.approx(1)
    np.testing.assert_array_equal(unit_vectors(vectors)[1], [4, 5, 6, 7, 16, 17, 18, 19])
    zero = np.zeros((1, 1, 4), np.float32)
    np.testing.assert_array_equal(sentence_vector(zero, normalize=True), zero[0, 0])

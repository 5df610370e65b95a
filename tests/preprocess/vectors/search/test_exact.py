"""Exact search: uses of the same word, of other words, words without context, and texts."""

from types import SimpleNamespace

import numpy as np
import pytest

from preprocess.vectors.codec import CacheError
from preprocess.vectors.search.exact import ExactSearch, WordQuery
from preprocess.vectors.search.layer import CacheLayer, LayerError
from preprocess.vectors.search.marked_text import MarkedText, QueryError

DIM = 16
RIVER, MONEY, THIRD = np.eye(DIM, dtype="f4")[:3]


def query_of(cache, written, layer):
    marked = MarkedText.parse(written)
    return WordQuery.of(marked, cache.tokens(marked.text), cache[marked.text], layer)


def search(cache, written, neighbours=2, layer=-1):
    chosen = CacheLayer.of(cache, layer)
    return ExactSearch(cache, chosen).nearest_uses(query_of(cache, written, chosen), neighbours)


@pytest.mark.parametrize(
    ("written", "word", "others"),
    [
        ("a0 [bank] b0 shore reed", "shore", ["shore", "reed"]),
        ("a1 [bank] b1 loan debt", "loan", ["loan", "debt"]),
    ],
)
def test_a_use_has_its_own_neighbours(cache_of, banks, written, word, others):
    found = search(cache_of(banks), written, 5)
    assert (found.occurrences, found.searched) == (39, 39 * 5)
    assert [one.snippet.word.lower() for one in found.same] == ["bank"] * 5
    assert all(word in one.snippet.after for one in found.same)
    assert [one.snippet.word for one in found.others[:2]] == others
    assert found.others[0].cosine > 0.9
    # The query's own text is left out.
    assert all(
        not one.snippet.before.startswith(written.split()[0] + " ") or word in one.snippet.after
        for one in found.same
    )


def test_cosines_are_those_of_centred_vectors(cache_of, banks):
    cache = cache_of(banks)
    rows = np.concatenate([cache[text][1] for text in cache])
    mean = rows.mean(0)
    query = cache["a0 bank b0 shore reed"][1][1] - mean
    found = search(cache, "a0 [bank] b0 shore reed", 3)
    expected = sorted(
        (
            float(
                query
                @ (cache[text][1][1] - mean)
                / np.linalg.norm(query)
                / np.linalg.norm(cache[text][1][1] - mean)
            )
            for text in cache
            if text != "a0 bank b0 shore reed"
        ),
        reverse=True,
    )
    assert [one.cosine for one in found.same] == pytest.approx(expected[:3], abs=1e-5)


def test_words_without_context_are_those_of_layer_0(cache_of, banks):
    cache = cache_of(banks)
    found = search(cache, "a0 [bank] b0 shore reed", 3)
    static = {}
    for text in cache:
        for word, vector in zip(text.split(), cache[text][0][:, : DIM // 2], strict=True):
            static.setdefault(word.lower(), vector)
    mean = np.mean(list(static.values()), 0)
    own = static["bank"] - mean
    cosine = {
        word: own @ (v - mean) / np.linalg.norm(own) / np.linalg.norm(v - mean)
        for word, v in static.items()
        if word != "bank"
    }
    near = sorted(cosine, key=cosine.get, reverse=True)[:3]
    assert [word for word, _ in found.static] == near
    assert found.static[0][1] == pytest.approx(cosine[near[0]], abs=0.02)
    assert not found.static_is_mean


def test_a_cache_without_layer_0_compares_mean_vectors(cache_of, banks):
    cache = cache_of(banks, vectors={"layers": [-2, -1]})
    found = search(cache, "a0 [bank] b0 shore reed", 2)
    assert found.static_is_mean
    assert {word for word, _ in found.static} <= {"shore", "loan", "debt", "reed"}


def test_a_repeated_phrase_is_shown_once(cache_of):
    texts = [
        [
            (word, vector)
            for word, vector in zip(("x", "bank", f"y{n // 4}"), (RIVER, MONEY, THIRD), strict=True)
        ]
        + [(f"z{n}", n * THIRD)]
        for n in range(12)
    ]
    found = search(cache_of(texts), "x [bank] y0 z0", 9)
    assert len(found.same) == 3
    assert found.occurrences == 11


def test_the_characters_of_a_word_are_left_out(cache_of):
    random = np.random.default_rng(2)
    characters = "我在银行存钱他去河边走行人"
    texts = []
    for _ in range(12):
        order = random.permutation(len(characters))
        line = "".join(characters[i] for i in order if characters[i] not in "银行") + "银行"
        vectors = {"银": RIVER, "行": RIVER, "钱": 0.9 * RIVER + 0.1 * MONEY}
        texts.append(
            [(c, vectors.get(c, MONEY) + 0.01 * random.standard_normal(DIM)) for c in line]
        )
    cache = cache_of(texts, mark="")
    text = "".join(token for token, _ in texts[0])
    found = search(cache, text.replace("银行", "[银行]"), 4)
    assert found.occurrences == 11
    assert {one.snippet.word for one in found.same} == {"银行"}
    assert found.others[0].snippet.word == "钱"
    assert not {"银", "行"} & {one.snippet.word for one in found.others}
    assert not {"银", "行"} & {word for word, _ in found.static}


def test_uses_of_a_word_of_several_tokens_are_told_apart_by_the_words_around_them(cache_of):
    lines = ("去银行取", "在银行存", "去银行取钱吧我们", "到银行了")
    cache = cache_of([[(c, RIVER) for c in line] for line in lines], mark="")
    found = search(cache, "在[银行]存", 4)
    assert found.occurrences == 3
    # The third text has the same characters around the word as the first one.
    assert [one.snippet.after for one in found.same] == ["取", "了"]


def test_rare_words_are_no_neighbours_in_a_large_cache(cache_of, monkeypatch):
    monkeypatch.setattr("preprocess.vectors.search.exact.least_count", lambda total: 2)
    texts = [
        [("x", MONEY), ("bank", RIVER), (f"once{n}", RIVER), ("often", 0.5 * RIVER)]
        for n in range(5)
    ]
    found = search(cache_of(texts), "x [bank] once0 often", 9)
    assert [one.snippet.word for one in found.others] == ["often", "x"]


def test_layers_of_a_cache(cache_of, banks):
    cache = cache_of(banks)
    assert CacheLayer.of(cache, -1) == CacheLayer.of(cache, 1) == CacheLayer(1, "direction", 0)
    with pytest.raises(LayerError, match="no layer 2; the cache has 2 layers, 0 to 1"):
        CacheLayer.of(cache, 2)
    assert CacheLayer.of(cache_of(banks, vectors={"layers": "concat"})).pooling == "mean"
    static = SimpleNamespace(
        layers=1, dim=DIM, manifest=SimpleNamespace(details={"vectors": {"layers": "all"}})
    )
    assert CacheLayer.of(static) == CacheLayer(0, "mean", 0)
    gradients = cache_of(banks, vectors={"layers": "all", "kind": "gradient"})
    assert CacheLayer.of(gradients) == CacheLayer(1, "direction", None)
    assert CacheLayer.of(cache_of(banks, vectors={"layers": [1, 0]})) == CacheLayer(1, "last", 1)


def test_a_word_of_several_tokens_has_both_halves(cache_of):
    texts = [[("ba", RIVER), ("nk", MONEY)]] * 2
    cache = cache_of([*texts, [("x", THIRD)]], mark="")
    layer = CacheLayer.of(cache)
    vector = query_of(cache, "[bank]", layer).vector
    np.testing.assert_array_equal(vector, np.r_[MONEY[: DIM // 2], RIVER[DIM // 2 :]])


def test_texts_are_searched_by_their_mean_vector(cache_of, banks):
    cache = cache_of([*banks, []])
    layer = CacheLayer.of(cache)
    text = "a0 bank b0 shore reed"
    found = ExactSearch(cache, layer).nearest_texts(text, layer.text(cache[text]), 5)
    assert all("shore" in one.text for one in found)
    assert text not in [one.text for one in found]
    cosines = [one.cosine for one in found]
    assert cosines == sorted(cosines, reverse=True)
    assert len(ExactSearch(cache, layer).nearest_texts("?", layer.text(cache[text]), 99)) == 40


def test_a_cache_of_sentences_has_no_words(cache_of):
    cache = cache_of([[("x y", RIVER)], [("z", MONEY)]], unit="sentence")
    layer = CacheLayer.of(cache)
    query = WordQuery("", "x", RIVER, None, "x")
    with pytest.raises(QueryError, match="one vector for each text"):
        ExactSearch(cache, layer).nearest_uses(query, 2)


def test_vectors_that_are_not_finite_are_told(cache_of, banks, monkeypatch):
    monkeypatch.setattr(np, "isfinite", lambda values: np.ones(np.shape(values), bool))
    banks[3][1] = ("bank", np.full(DIM, np.nan))
    cache = cache_of(banks)
    monkeypatch.undo()
    layer = CacheLayer.of(cache)
    with pytest.raises(CacheError, match="holds NaN or infinity"):
        search(cache, "a0 [bank] b0 shore reed")
    with pytest.raises(CacheError, match="holds NaN or infinity"):
        ExactSearch(cache, layer).nearest_texts("?", RIVER, 2)

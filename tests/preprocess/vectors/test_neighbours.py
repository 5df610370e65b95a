"""Uses of words, and their neighbours, in caches with known vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files.manifest import Manifest, write_manifest
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.index import write_index
from preprocess.vectors.neighbours import two_means, word_uses
from preprocess.vectors.shard import VectorShardWriter

DIM = 16
RIVER, MONEY = np.eye(DIM, dtype="f4")[:2]


def cache_of(folder, texts):
    """Make a cache of texts, each a list of (word, top vector); layer 0 is random, fixed per word."""
    random = np.random.default_rng(0)
    static = {}
    with VectorShardWriter(str(folder), (0, 0), 2, DIM, "float32") as writer:
        for n, text in enumerate(texts):
            words = [word for word, _ in text]
            for word in words:
                if word not in static:
                    static[word] = np.tile(random.standard_normal(DIM // 2), 2)
            lower = np.array([static[word] for word in words]).reshape(-1, DIM)
            upper = np.array([vector for _, vector in text]).reshape(-1, DIM)
            writer.add(f"text {n}", [f"▁{word}" for word in words], np.stack([lower, upper]))
    records = [*writer.close(), *write_index(str(folder), [(0, 0)])]
    details = {"layers": 2, "dim": DIM, "dtype": "float32", "unit": "token", "model": "m"}
    write_manifest(str(folder), Manifest("embed", 2, "", "", "", {}, tuple(records), details))
    return VectorCache.open(folder)


@pytest.fixture
def banks(tmp_path):
    """A cache in which "bank" is near water in three of five texts, and near money in the others."""
    random = np.random.default_rng(1)

    def near(*directions):
        return sum(directions) + 0.05 * random.standard_normal(DIM).astype("f4")

    texts = []
    for n in range(60):
        sense, others = (RIVER, "shore reed") if n % 5 < 3 else (MONEY, "loan debt")
        one, two = others.split()
        words = [(f"a{n % 30}", near()), ("bank", near(3 * sense)), (f"b{n % 29}", near())]
        texts.append([*words, (one, near(2 * sense)), (two, near(sense)), ("end", near())])
    return cache_of(tmp_path, texts)


def test_each_use_of_a_word_has_its_own_neighbours(banks):
    (bank,) = word_uses(banks, ["bank"], 2)
    assert (bank.word, bank.occurrences) == ("bank", 60)
    near = [[one.snippet.word for one in use.neighbours] for use in bank.uses]
    assert near == [["shore", "reed"], ["loan", "debt"]]
    for use, follows in zip(bank.uses, ("shore", "loan"), strict=True):
        assert use.typical.word == use.again.word == "bank"
        assert follows in use.typical.after
        assert follows in use.again.after
        assert use.typical != use.again
        assert use.neighbours[0].cosine > 0.8


def test_static_neighbours_are_those_of_layer_0(tmp_path):
    texts = [[(word, RIVER) for word in ("w", "x", "y", "z")]] * 3
    cache = cache_of(tmp_path, texts)
    lower = {
        word: vector[: DIM // 2] for word, vector in zip("wxyz", cache["text 0"][0], strict=True)
    }
    centred = {word: vector - np.mean(list(lower.values()), 0) for word, vector in lower.items()}
    cosine = {
        word: centred["w"] @ v / np.linalg.norm(v) for word, v in centred.items() if word != "w"
    }
    (found,) = word_uses(cache, ["w"], 3)
    assert list(found.static) == sorted(cosine, key=cosine.get, reverse=True)


def test_the_word_with_the_most_distinct_uses_is_chosen(banks):
    chosen = [found.word for found in word_uses(banks, None, 2)]
    assert chosen[0] == "bank"
    assert chosen == [found.word for found in word_uses(banks, None, 2)]


def test_a_word_that_occurs_less_than_twice_has_no_uses(tmp_path):
    cache = cache_of(tmp_path, [[("one", RIVER)]])
    found = word_uses(cache, ["one", "none"], 2)
    assert [(w.word, w.occurrences, w.uses) for w in found] == [("one", 1, ()), ("none", 0, ())]
    assert word_uses(cache, None, 2) == []


def test_empty_cache_has_no_words(tmp_path):
    cache = cache_of(tmp_path, [])
    assert word_uses(cache, None, 2) == []
    assert word_uses(cache, ["any"], 2)[0].occurrences == 0


def test_occurrences_with_equal_vectors_are_one_use(tmp_path):
    texts = [[("one", RIVER), ("near", MONEY), ("one", RIVER)], [("two", MONEY), ("three", RIVER)]]
    (found,) = word_uses(cache_of(tmp_path, texts), ["one"], 3)
    assert [len(found.uses), found.uses[0].again] == [1, None]
    # Not "near", which is in the same text.
    assert [one.snippet.word for one in found.uses[0].neighbours] == ["three", "two"]


def test_uses_in_a_single_text_have_no_neighbours(tmp_path):
    text = [("x", MONEY), ("one", RIVER), ("y", MONEY), ("one", MONEY), ("x", RIVER)]
    (found,) = word_uses(cache_of(tmp_path, [text]), ["one"], 2)
    assert [(use.again, use.neighbours) for use in found.uses] == [(None, ())] * 2


def test_other_letter_cases_of_a_word_are_not_its_neighbours(tmp_path):
    text = [("Key", RIVER), ("key", RIVER), ("KEY", RIVER), ("lock", MONEY), ("LOCK", MONEY)]
    cache = cache_of(tmp_path, [text] * 4)
    (found,) = word_uses(cache, ["key"], 5)
    near = {one.snippet.word.casefold() for use in found.uses for one in use.neighbours}
    assert near == {"lock"}
    assert len(found.static) == 1


@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 100))
@settings(deadline=None, max_examples=50)
def test_two_means_returns_the_share_of_variance_between_the_groups(rows, dim, seed):
    values = np.random.default_rng(seed).standard_normal((rows, dim)).astype("f4")
    first, share = two_means(values)
    assert 0 < first.sum() < rows
    assert 0 < share <= 1 + 1e-5
    mean = values.mean(0)
    between = sum(
        len(group) * ((group.mean(0) - mean) ** 2).sum()
        for group in (values[first], values[~first])
    )
    assert share == pytest.approx(between / ((values - mean) ** 2).sum(), abs=1e-4)


def test_two_means_prefers_balanced_groups_to_one_outlier():
    random = np.random.default_rng(0)
    rows = 0.1 * random.standard_normal((41, 3)).astype("f4")
    rows[:20, 0] += 2
    rows[40, 1] += 12
    first, share = two_means(rows)
    assert {int(first.sum()), int((~first).sum())} == {20, 21}
    assert share < 0.5
    np.testing.assert_array_equal(first[:20], first[0])


def test_the_characters_of_a_word_are_not_its_neighbours(tmp_path):
    characters = {"银": RIVER, "行": RIVER, "钱": 0.9 * RIVER, "我": MONEY, "在": MONEY}
    lines = ["我在钱银行", "钱在我银行", "在钱我银行", "银行我在钱"]
    texts = [[(c, characters[c]) for c in line * 4] for line in lines]
    # Without the mark of a space before each token, the text has no spaces.
    random = np.random.default_rng(0)
    static = {c: np.tile(random.standard_normal(DIM // 2), 2) for c in characters}
    with VectorShardWriter(str(tmp_path), (0, 0), 2, DIM, "float32") as writer:
        for text in texts:
            labels = [("" if n else "▁") + c for n, (c, _) in enumerate(text)]
            rows = np.stack([[static[c] for c, _ in text], [v for _, v in text]])
            writer.add("".join(c for c, _ in text), labels, rows.astype("f4"))
    records = [*writer.close(), *write_index(str(tmp_path), [(0, 0)])]
    details = {"layers": 2, "dim": DIM, "dtype": "float32", "unit": "token", "model": "m"}
    write_manifest(str(tmp_path), Manifest("embed", 2, "", "", "", {}, tuple(records), details))
    (found,) = word_uses(VectorCache.open(tmp_path), ["银行"], 3)
    assert found.occurrences == 16
    near = {one.snippet.word for use in found.uses for one in use.neighbours}
    assert near
    assert not near & {"银", "行"}
    assert found.static
    assert not set(found.static) & {"银", "行"}

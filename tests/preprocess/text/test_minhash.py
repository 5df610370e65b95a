"""MinHash keys: which texts share a key, and what keys depend on."""

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preprocess.text import minhash
from preprocess.text.minhash import (
    LEAST_FILLED,
    NO_KEY,
    SHINGLE,
    Bands,
    bands_and_rows,
    most_differing,
)

LETTERS = {
    "latin": "abcdefghijklmnopqrstuvwxyz      ",
    "han": "".join(map(chr, range(0x4E00, 0x4E00 + 2000))),
    "beyond the first plane": "".join(map(chr, range(0x20000, 0x20000 + 500))),
}


def text_of(letters: str, length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices(letters, k=length))


def jaccard(one: str, other: str) -> float:
    sets = [{t[i : i + SHINGLE] for i in range(len(t) - SHINGLE + 1)} for t in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def shared(bands: Bands, one: str, other: str) -> int:
    first, second = bands.keys([one, other])[0]
    return int(np.sum(first == second))


def first_keys(bands: Bands, text: str) -> list[int]:
    """Return the keys that a text has."""
    return [key for key in bands.keys([text])[0][0].tolist() if key != NO_KEY]


def differing(bands: Bands, one: str, other: str) -> int:
    first, second = bands.keys([one, other])[1]
    return int(np.bitwise_count(first ^ second).sum())


@pytest.mark.parametrize("letters", LETTERS.values(), ids=list(LETTERS))
def test_almost_equal_texts_share_a_key_and_different_texts_do_not(letters: str) -> None:
    bands = Bands(0.8, seed=1)
    text = text_of(letters, 2000)
    edited = text[:500] + "x" + text[501:1500] + text[1510:]
    assert jaccard(text, edited) > 0.97
    assert shared(bands, text, text) == bands.bands
    assert shared(bands, text, edited) > 0
    assert shared(bands, text, text_of(letters, 2000, seed=7)) == 0
    assert differing(bands, text, edited) <= 10
    # Half of 256 bits, at most four standard deviations from it.
    assert abs(differing(bands, text, text_of(letters, 2000, seed=7)) - 128) <= 32


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.9])
def test_pairs_are_found_with_the_probability_of_the_formula(similarity: float) -> None:
    bands = Bands(similarity, seed=1)
    rounds = 300
    texts = [text_of(LETTERS["han"], 400, seed) for seed in range(rounds)]
    # Two texts of 400 characters with the same first n have the similarity (n - 4) / (796 - n).
    same = round((4 + 796 * similarity) / (1 + similarity)) - 4
    edited = [t[:same] + text_of(LETTERS["latin"], 400 - same, seed=9) for t in texts]
    true = np.mean([jaccard(*pair) for pair in zip(texts, edited, strict=True)])
    expected = 1 - (1 - true**bands.rows) ** bands.bands
    keys, sketches = bands.keys(texts)
    other_keys, other_sketches = bands.keys(edited)
    found = np.mean(np.any(keys == other_keys, axis=1))
    # At most four standard errors of 300 draws.
    assert found == pytest.approx(expected, abs=4 * 0.5 / rounds**0.5)
    bits = np.bitwise_count(sketches ^ other_sketches).sum(axis=1)
    assert np.mean(1 - 2 * bits / 256) == pytest.approx(true, abs=0.015)
    assert np.std(1 - 2 * bits / 256) < 0.08


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_bands_and_rows_find_pairs_at_the_similarity_and_few_below(similarity: float) -> None:
    bands, rows = bands_and_rows(similarity)

    def found(s: float) -> float:
        return 1 - (1 - s**rows) ** bands

    assert bands * rows <= 256
    assert rows <= minhash.MOST_ROWS
    assert found(similarity) >= 0.9
    # One band less would find too few.
    assert 1 - (1 - similarity**rows) ** (bands - 1) < 0.9
    assert found(0.1) < 0.004
    assert bands == Bands(similarity, seed=1).bands


def test_a_document_of_the_usual_similarity_has_few_keys() -> None:
    assert [bands_and_rows(s) for s in (0.7, 0.8, 0.9)] == [(27, 7), (10, 7), (4, 7)]


def test_the_bits_that_may_differ_follow_from_the_similarity() -> None:
    assert [most_differing(s) for s in (0.5, 0.8, 0.99)] == [64, 25, 1]


def test_keys_are_the_same_on_every_machine() -> None:
    texts = [text_of(LETTERS["latin"], 300), text_of(LETTERS["han"], 300), "short"]
    keys, sketches = Bands(0.9, seed=1).keys(texts)
    assert (keys.dtype, sketches.dtype) == (np.uint32, np.uint64)
    assert (keys.shape, sketches.shape) == ((3, 4), (3, 4))
    assert keys[:, 0].tolist() == [3412213686, 900545469, 294873861]
    assert sketches[:, 0].tolist() == [
        12036702573692596174,
        12314131438698216370,
        1266473590399404371,
    ]


@pytest.mark.parametrize("length", [10, 4000])
def test_keys_spread_evenly_over_any_number_of_buckets(length: int) -> None:
    texts = [text_of(LETTERS["han"], length, seed) for seed in range(60)]
    keys = Bands(0.5, seed=1).keys(texts)[0]
    keys = keys[keys != NO_KEY]
    for buckets in (2, 3, 256):
        counts = np.bincount((keys % np.uint64(buckets)).ravel().astype(int), minlength=buckets)
        # At most five standard deviations of a count.
        assert np.ptp(counts) < 2 * 5 * (keys.size / buckets) ** 0.5


def test_another_seed_gives_other_keys() -> None:
    text = text_of(LETTERS["latin"], 500)
    for texts in ([text], ["short"]):
        one, other = Bands(0.8, 1), Bands(0.8, 2)
        assert not {*first_keys(one, texts[0])} & {*first_keys(other, texts[0])}
        assert not np.any(one.keys(texts)[1] == other.keys(texts)[1])


def test_short_and_repetitive_texts_share_keys_only_with_equal_texts() -> None:
    bands = Bands(0.5, seed=1)
    short = text_of(LETTERS["latin"], LEAST_FILLED + 3)
    for text in ("", "a", short, "ab" * 1000):
        assert bands.keys([text])[0][0, 1:].tolist() == [NO_KEY] * (bands.bands - 1)
        assert shared(bands, text, text) == bands.bands
        assert differing(bands, text, text) == 0
        assert first_keys(bands, text) != first_keys(bands, text + "b")
        assert differing(bands, text, text + "b") > 64
    assert first_keys(bands, "ab" * 1000) != first_keys(bands, "ab" * 1001)


def test_keys_of_different_bands_differ() -> None:
    bands = Bands(0.5, seed=1)
    assert len({*first_keys(bands, text_of(LETTERS["latin"], 300))}) == bands.bands


def test_no_texts_give_no_keys() -> None:
    bands = Bands(0.8, seed=1)
    keys, sketches = bands.keys([])
    assert (keys.shape, sketches.shape) == ((0, bands.bands), (0, 4))


@settings(deadline=None, max_examples=40)
@example(texts=[text_of(LETTERS["latin"], 100, seed) for seed in range(4)], piece=1, batch=5000)
@given(
    texts=st.lists(
        st.one_of(
            st.text(st.characters(codec="utf-8"), max_size=8),
            st.builds(text_of, st.sampled_from(list(LETTERS.values())), st.integers(60, 700)),
        ),
        max_size=6,
    ),
    piece=st.integers(1, 300),
    batch=st.integers(1, 3000),
)
def test_keys_do_not_depend_on_the_batch_or_the_slice(
    texts: list[str], piece: int, batch: int
) -> None:
    alone = [Bands(0.8, seed=3).keys([text]) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "_SLICE", piece)
        patch.setattr(minhash, "_BATCH_CHARACTERS", batch)
        keys, sketches = Bands(0.8, seed=3).keys(texts)
    assert keys.tolist() == [one[0][0].tolist() for one in alone]
    assert sketches.tolist() == [one[1][0].tolist() for one in alone]


def test_a_signature_has_the_least_hash_of_each_entry() -> None:
    bands = Bands(0.8, seed=1)
    text = text_of(LETTERS["latin"], 300)
    expected = np.full(256, 2**32 - 1, np.uint64)
    for i in range(len(text) - SHINGLE + 1):
        grams = np.frombuffer(text[i : i + SHINGLE].encode("utf-32-le"), "<u4")
        value = int(bands._hash(grams)[0])
        expected[value % 256] = min(int(expected[value % 256]), value)
    assert bands._minima(["other", text, "xy"])[1].tolist() == expected.tolist()

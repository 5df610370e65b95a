"""MinHash keys: which texts share a key, and what keys depend on."""

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from preprocess.text import minhash
from preprocess.text.minhash import LEAST_FILLED, SHINGLE, Bands, bands_and_rows

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
    first, second = bands.keys([one, other])
    return int(np.sum(first == second))


@pytest.mark.parametrize("letters", LETTERS.values(), ids=list(LETTERS))
def test_almost_equal_texts_share_a_key_and_different_texts_do_not(letters: str) -> None:
    bands = Bands(0.8, seed=1)
    text = text_of(letters, 2000)
    edited = text[:500] + "x" + text[501:1500] + text[1510:]
    assert jaccard(text, edited) > 0.97
    assert shared(bands, text, text) == bands.bands
    assert shared(bands, text, edited) > 0
    assert shared(bands, text, text_of(letters, 2000, seed=7)) == 0


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
    found = np.mean(np.any(bands.keys(texts) == bands.keys(edited), axis=1))
    # At most four standard errors of 300 draws.
    assert found == pytest.approx(expected, abs=4 * 0.5 / rounds**0.5)


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_bands_and_rows_find_pairs_at_the_similarity_and_few_below(similarity: float) -> None:
    bands, rows = bands_and_rows(similarity)

    def found(s: float) -> float:
        return 1 - (1 - s**rows) ** bands

    assert bands * rows <= 256
    assert found(similarity) >= 0.75
    assert found(similarity - 0.2) < 0.16
    assert bands == Bands(similarity, seed=1).bands


def test_keys_are_the_same_on_every_machine() -> None:
    texts = [text_of(LETTERS["latin"], 300), text_of(LETTERS["han"], 300), "short"]
    keys = Bands(0.9, seed=1).keys(texts)
    assert keys.dtype == np.uint64
    assert keys.shape == (3, 12)
    assert keys[:, 0].tolist() == [
        7138949643235343376,
        12645515911078085955,
        13442418560790713608,
    ]


@pytest.mark.parametrize("length", [10, 4000])
def test_keys_spread_evenly_over_any_number_of_buckets(length: int) -> None:
    texts = [text_of(LETTERS["han"], length, seed) for seed in range(60)]
    keys = Bands(0.5, seed=1).keys(texts)
    for buckets in (2, 3, 256):
        counts = np.bincount((keys % np.uint64(buckets)).ravel().astype(int), minlength=buckets)
        # At most five standard deviations of a count.
        assert np.ptp(counts) < 2 * 5 * (keys.size / buckets) ** 0.5


def test_another_seed_gives_other_keys() -> None:
    text = text_of(LETTERS["latin"], 500)
    for texts in ([text], ["short"]):
        assert not np.any(Bands(0.8, seed=1).keys(texts) == Bands(0.8, seed=2).keys(texts))


def test_short_and_repetitive_texts_share_keys_only_with_equal_texts() -> None:
    bands = Bands(0.5, seed=1)
    short = text_of(LETTERS["latin"], LEAST_FILLED + 3)
    for text in ("", "a", short, "ab" * 1000):
        assert shared(bands, text, text) == bands.bands
        assert shared(bands, text, text + "b") == 0
    assert shared(bands, "ab" * 1000, "ab" * 1001) == 0


def test_no_texts_give_no_keys() -> None:
    bands = Bands(0.8, seed=1)
    assert bands.keys([]).shape == (0, bands.bands)


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
    alone = [Bands(0.8, seed=3).keys([text])[0] for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "_SLICE", piece)
        patch.setattr(minhash, "_BATCH_CHARACTERS", batch)
        together = Bands(0.8, seed=3).keys(texts)
    assert together.tolist() == [keys.tolist() for keys in alone]


def test_a_signature_has_the_least_hash_of_each_entry() -> None:
    bands = Bands(0.8, seed=1)
    text = text_of(LETTERS["latin"], 300)
    expected = np.full(256, 2**32 - 1, np.uint64)
    for i in range(len(text) - SHINGLE + 1):
        grams = np.frombuffer(text[i : i + SHINGLE].encode("utf-32-le"), "<u4")
        value = int(bands._hash(grams)[0])
        expected[value % 256] = min(int(expected[value % 256]), value)
    assert bands._minima(["other", text, "xy"])[1].tolist() == expected.tolist()

"""Words of tokenised texts, and samples of their occurrences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files.manifest import Manifest, write_manifest
from preprocess.vectors import word_sample
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.index import write_index
from preprocess.vectors.shard import VectorShardWriter
from preprocess.vectors.word_sample import Snippet, Word, find_words, joined_text, read_sample

DIM = 4


def cache_of(folder, texts):
    """Make a cache of tokenised texts; the value of a vector identifies its token and layer."""
    numbers = iter(range(1, 10_000))
    with VectorShardWriter(str(folder), (0, 0), 2, DIM, "float32") as writer:
        for n, tokens in enumerate(texts):
            base = np.array([next(numbers) for _ in tokens], "f4")[None, :, None]
            layer = np.array([0, 5000], "f4")[:, None, None]
            half = np.array([0, 0, 0.5, 0.5], "f4")
            writer.add(f"text {n}", tokens, base + layer + half)
    records = [*writer.close(), *write_index(str(folder), [(0, 0)])]
    details = {"layers": 2, "dim": DIM, "dtype": "float32", "unit": "token", "model": "m"}
    write_manifest(str(folder), Manifest("embed", 2, "", "", "", {}, tuple(records), details))
    return VectorCache.open(folder)


def spelled(tokens, requested=()):
    text, starts = joined_text(tokens)
    return [(text[w.start : w.end], w.first, w.last) for w in find_words(text, starts, requested)]


def test_joining_subwords_bytes_and_words():
    assert joined_text(["▁a", "b", "▁c"]) == (" ab c", [0, 2, 3])
    # Three byte tokens are one character, and start at the same index.
    assert joined_text(["▁x", "<0xE8>", "<0xAA>", "<0x9E>", "y"]) == (" x語y", [0, 2, 2, 2, 3])
    assert joined_text(["▁", "<0xFF>"])[0] == " \ufffd"
    assert joined_text(["one", "two"]) == (" one two", [0, 4])
    assert joined_text([]) == ("", [])
    # Tokens of a byte-level model: no space at the start, and bytes beside characters.
    assert joined_text(["One", "▁two", "s", "▁<0xE8>", "<0xAA><0x9E>", "."]) == (
        *("One twos 語.", [0, 3, 7, 8, 8, 10]),
    )
    assert joined_text(["<0xE8>", "<0xAA>", "<0x9E>"])[0] == "語"
    # A few words may contain U+2581, or be spelt like a byte below 0x80.
    words = ["a▁b", "<0x41>", *"cdefghi"]
    assert joined_text(words)[0] == " a b <0x41> c d e f g h i"


def test_words_between_spaces_have_no_punctuation_at_their_ends():
    tokens = ["▁(", "inter", "face", ").", "▁—", "▁di", "gits", "1!"]
    assert spelled(tokens) == [("interface", 1, 2), ("digits1", 5, 7)]


def test_combining_marks_at_the_end_belong_to_the_word():
    assert spelled(["▁हिन्दी", "▁भाषा।"]) == [("हिन्दी", 0, 0), ("भाषा", 1, 1)]


@pytest.mark.parametrize("length", [8, 30])
def test_tokens_are_words_in_text_without_spaces(length):
    tokens = ["▁", "银行", "，", "在", "河", "岸"] + ["好"] * length
    assert spelled(tokens)[:3] == [("银行", 1, 1), ("在", 3, 3), ("河", 4, 4)]


def test_requested_words_are_found_across_tokens_without_spaces():
    tokens = ["▁去", "银", "行取", "钱"] + ["好"] * 30
    assert ("银行", 1, 2) in spelled(tokens, ["银行"])
    assert ("银行", 1, 2) not in spelled(tokens)


def test_consecutive_byte_tokens_are_one_word():
    assert spelled(["▁ab", "▁", "<0xE8>", "<0xAA>", "<0x9E>"]) == [("ab", 0, 0), ("語", 2, 4)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)))
@settings(deadline=None)
def test_a_word_overlaps_its_first_and_last_token(tokens):
    text, starts = joined_text(tokens)
    ends = [*starts[1:], len(text)]
    for word in find_words(text, starts):
        assert text[word.start : word.end].strip() == text[word.start : word.end] != ""
        assert starts[word.first] <= word.start < word.end <= ends[word.last]


def test_each_direction_uses_the_token_at_which_it_has_read_the_whole_word(tmp_path, monkeypatch):
    monkeypatch.setattr(word_sample, "_centred", lambda vectors: vectors)
    cache = cache_of(tmp_path, [["▁a", "▁ab", "cd", "ef"]])
    sample = read_sample(cache, [])
    assert sample.spellings == ["a", "abcdef"]
    # Layer 1: token 1, then token 4 (forward) and token 2 (backward).
    np.testing.assert_array_equal(
        sample.contextual, [[5001, 5001, 5001.5, 5001.5], [5004, 5004, 5002.5, 5002.5]]
    )
    # Layer 0: the mean over the tokens of the word, of one half of the dimensions.
    np.testing.assert_array_equal(sample.static, [[1, 1], [3, 3]])


def test_the_number_of_occurrences_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(word_sample, "SAMPLE", 5)
    sample = read_sample(cache_of(tmp_path, [["▁a", "▁b"]] * 1 + [["▁c", "▁d"]] * 9), [])
    assert len(sample.types) == 5
    assert sample.places[:, 0].tolist() == [0, 0, 1, 1, 2]


def test_find_prefers_the_exact_spelling_to_another_letter_case(tmp_path):
    sample = read_sample(cache_of(tmp_path, [["▁Key", "▁key", "▁key", "▁KEY", "▁é"]]), [])
    found = {word: sample.find(word) for word in ("Key", "kEY", "e\u0301", "no")}
    assert found == {"Key": 0, "kEY": 1, "e\u0301": 3, "no": None}


def test_contexts_leave_out_repeated_neighbours_and_ends_of_texts(tmp_path):
    texts = [["▁a", "▁w", "▁b"], ["▁a", "▁w", "▁b"], ["▁c", "▁w", "▁b"], ["▁w", "▁b"], ["▁z"]]
    sample = read_sample(cache_of(tmp_path, texts), [])
    assert sample.places[sample.contexts(1), 0].tolist() == [0, 2]
    assert sample.places[sample.contexts(sample.find("z")), 0].tolist() == [4]


def test_contexts_of_a_word_of_several_tokens_are_the_words_around_it(tmp_path):
    texts = [
        ["▁去", "银", "行", "取"],
        ["▁在", "银", "行", "存"],
        ["▁银", "行", "去"],
        ["▁去", "银", "行", "取"],
    ]
    sample = read_sample(cache_of(tmp_path, texts), ["银行"])
    # Neither the third text, at whose start the word is, nor a repeated one.
    places = sample.places[sample.contexts(sample.find("银行"))]
    assert places.tolist() == [[0, 2, 4], [1, 2, 4]]


def test_a_snippet_is_one_line_cut_between_words(tmp_path):
    long = [f"▁left{n}" for n in range(20)] + ["▁word\n\u202e"] + [f"▁right{n}" for n in range(20)]
    sample = read_sample(cache_of(tmp_path, [long, ["▁\ud800", "▁word\u2028"]]), [])
    first, second = np.flatnonzero(sample.types == sample.find("word"))
    assert sample.snippet(first) == Snippet(
        "…left16 left17 left18 left19 ", "word", " right0 right1 right2 right3…"
    )
    assert sample.snippet(second) == Snippet("", "word", "")


def test_find_words_returns_spans_of_characters_and_tokens():
    assert find_words(" ab", [0]) == [Word(1, 3, 0, 0)]

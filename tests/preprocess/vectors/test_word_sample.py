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
    """A cache of texts, each a list of tokens; every value of a vector tells token and layer."""
    numbers = iter(range(1, 10_000))
    with VectorShardWriter(str(folder), (0, 0), 2, DIM, "float32") as writer:
        for n, tokens in enumerate(texts):
            base = np.array([next(numbers) for _ in tokens], "f4")[None, :, None]
            layer = np.array([0, 5000], "f4")[:, None, None]
            half = np.array([0, 0, 0.5, 0.5], "f4")
            writer.add(f"text {n}", tokens, base + layer + half)
    records = [*writer.close(), write_index(str(folder), [(0, 0)])]
    details = {"layers": 2, "dim": DIM, "dtype": "float32", "unit": "token", "model": "m"}
    write_manifest(str(folder), Manifest("embed", 2, "", "", "", {}, tuple(records), details))
    return VectorCache.open(folder)


def spelled(tokens, asked=()):
    text, starts = joined_text(tokens)
    return [(text[w.start : w.end], w.first, w.last) for w in find_words(text, starts, asked)]


def test_pieces_bytes_and_words_spell_their_text():
    assert joined_text(["▁a", "b", "▁c"]) == (" ab c", [0, 2, 3])
    # Three bytes are one character, and begin where the first does.
    assert joined_text(["▁x", "<0xE8>", "<0xAA>", "<0x9E>", "y"]) == (" x語y", [0, 2, 2, 2, 3])
    assert joined_text(["▁", "<0xFF>"])[0] == " \ufffd"
    assert joined_text(["one", "two"]) == (" one two", [0, 4])
    assert joined_text([]) == ("", [])


def test_stretches_between_spaces_are_words_without_their_punctuation():
    tokens = ["▁(", "inter", "face", ").", "▁—", "▁di", "gits", "1!"]
    assert spelled(tokens) == [("interface", 1, 2), ("digits1", 5, 7)]


def test_marks_at_a_word_end_belong_to_it():
    assert spelled(["▁हिन्दी", "▁भाषा।"]) == [("हिन्दी", 0, 0), ("भाषा", 1, 1)]


@pytest.mark.parametrize("length", [8, 30])
def test_tokens_are_words_where_there_are_no_spaces(length):
    tokens = ["▁", "银行", "，", "在", "河", "岸"] + ["好"] * length
    assert spelled(tokens)[:3] == [("银行", 1, 1), ("在", 3, 3), ("河", 4, 4)]


def test_asked_words_are_found_across_tokens_where_there_are_no_spaces():
    tokens = ["▁去", "银", "行取", "钱"] + ["好"] * 30
    assert ("银行", 1, 2) in spelled(tokens, ["银行"])
    assert ("银行", 1, 2) not in spelled(tokens)


def test_rare_characters_in_bytes_are_one_word_from_the_first_byte_to_the_last():
    assert spelled(["▁ab", "▁", "<0xE8>", "<0xAA>", "<0x9E>"]) == [("ab", 0, 0), ("語", 2, 4)]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)))
@settings(deadline=None)
def test_words_lie_in_their_tokens(tokens):
    text, starts = joined_text(tokens)
    ends = [*starts[1:], len(text)]
    for word in find_words(text, starts):
        assert text[word.start : word.end].strip() == text[word.start : word.end] != ""
        assert starts[word.first] <= word.start < word.end <= ends[word.last]


def test_each_direction_gives_the_vector_of_the_token_where_it_has_read_the_word(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(word_sample, "_centred", lambda vectors: vectors)
    cache = cache_of(tmp_path, [["▁a", "▁ab", "cd", "ef"]])
    sample = read_sample(cache, [])
    assert sample.spellings == ["a", "abcdef"]
    # Layer 1: tokens 1 and (4, forward; 2, backward).
    np.testing.assert_array_equal(
        sample.contextual, [[5001, 5001, 5001.5, 5001.5], [5004, 5004, 5002.5, 5002.5]]
    )
    # Layer 0: the mean of the word's tokens, of one half.
    np.testing.assert_array_equal(sample.static, [[1, 1], [3, 3]])


def test_sample_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(word_sample, "SAMPLE", 5)
    sample = read_sample(cache_of(tmp_path, [["▁a", "▁b"]] * 1 + [["▁c", "▁d"]] * 9), [])
    assert len(sample.types) == 5
    assert sample.places[:, 0].tolist() == [0, 0, 1, 1, 2]


def test_exact_spelling_is_found_before_another_letter_case(tmp_path):
    sample = read_sample(cache_of(tmp_path, [["▁Key", "▁key", "▁key", "▁KEY", "▁é"]]), [])
    found = {word: sample.find(word) for word in ("Key", "kEY", "e\u0301", "no")}
    assert found == {"Key": 0, "kEY": 1, "e\u0301": 3, "no": None}


def test_repeated_surroundings_count_once_and_text_ends_only_without_others(tmp_path):
    texts = [["▁a", "▁w", "▁b"], ["▁a", "▁w", "▁b"], ["▁c", "▁w", "▁b"], ["▁w", "▁b"], ["▁z"]]
    sample = read_sample(cache_of(tmp_path, texts), [])
    assert sample.places[sample.contexts(1), 0].tolist() == [0, 2]
    assert sample.places[sample.contexts(sample.find("z")), 0].tolist() == [4]


def test_snippet_is_one_line_cut_between_words(tmp_path):
    long = [f"▁left{n}" for n in range(20)] + ["▁word\n\u202e"] + [f"▁right{n}" for n in range(20)]
    sample = read_sample(cache_of(tmp_path, [long, ["▁\ud800", "▁word\u2028"]]), [])
    first, second = np.flatnonzero(sample.types == sample.find("word"))
    assert sample.snippet(first) == Snippet(
        "…left16 left17 left18 left19 ", "word", " right0 right1 right2 right3…"
    )
    assert sample.snippet(second) == Snippet("", "word", "")


def test_word_type_is_plain_data():
    assert find_words(" ab", [0]) == [Word(1, 3, 0, 0)]

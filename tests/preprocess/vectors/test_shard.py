"""Shards of the vector cache: keys of texts, and the files of a writer."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.files import storage
from preprocess.vectors import shard as vector_shard
from preprocess.vectors.codec import CacheError
from preprocess.vectors.shard import VectorShardWriter, text_key

LAYERS, DIM = 2, 3
TEXTS = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["", "/", "a\nb", "\x00", "\ud83d\ude00", "😀", "\udc80", '["']
)
WORDS = st.lists(TEXTS, max_size=4)


def vectors_of(tokens):
    """Return random vectors (layers, tokens, dim)."""
    return np.random.default_rng(0).standard_normal((LAYERS, len(tokens), DIM)).astype("f4")


def test_keys_are_those_of_earlier_versions():
    assert text_key("語").hex() == "c03491d601ab7cbb229d98bfec1f7290"


@given(WORDS, WORDS)
def test_a_list_of_words_never_has_the_key_of_a_string(one, other):
    keys = {text_key(one), text_key(other)}
    assert len(keys) == 1 + (one != other)
    for text in (
        " ".join(one),
        "".join(one),
        str(one),
        vector_shard.to_json(one).decode("latin-1"),
    ):
        assert text_key(text) not in keys


@pytest.mark.parametrize("text", [3, None, b"bytes", ["a", 3]])
def test_other_types_than_texts_are_refused(text):
    with pytest.raises(
        TypeError, match=r"must be a string or a list of strings \(its words\), not"
    ):
        text_key(text)


def test_the_files_of_a_shard_appear_when_it_is_closed(folder):
    writer = VectorShardWriter(folder, (7, 0), LAYERS, DIM, "float32")
    writer.add("a", ["a"], vectors_of("a"))
    assert all(one.startswith(storage.TEMPORARY) for one in storage.list_names(folder))
    records = writer.close()
    names = ["entries-000007-000.npy", "texts-000007-000.bin", "vectors-000007-000.bin"]
    assert [one.name for one in records] == names == storage.list_names(folder)
    assert records[0].counts == {"entries": 1, "tokens": 1}
    assert writer.close() == records


def test_a_writer_whose_block_fails_leaves_no_files(folder):
    def fail():
        with VectorShardWriter(folder, (0, 0), LAYERS, DIM, "float32") as writer:
            writer.add("a", ["a"], vectors_of("a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert storage.list_names(folder) == []


def test_the_entries_file_of_a_shard_appears_last(tmp_path, monkeypatch):
    renamed, replace = [], Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (renamed.append(Path(to).name), replace(self, to))[1]
    )
    VectorShardWriter(str(tmp_path), (0, 0), LAYERS, DIM, "float32").close()
    assert renamed[-1] == "entries-000000-000.npy"
    assert len(renamed) == 3


def test_a_shard_stores_raw_little_endian_values(tmp_path):
    vectors = vectors_of("ab")
    with VectorShardWriter(str(tmp_path), (0, 0), LAYERS, DIM, "float16") as writer:
        writer.add("ab", ["a", "b"], vectors[:, ::-1])
    assert (tmp_path / "vectors-000000-000.bin").read_bytes() == (
        vectors[:, ::-1].astype("<f2").tobytes()
    )
    assert (tmp_path / "texts-000000-000.bin").read_bytes() == b'["ab","a","b"]'


def test_writer_refuses_vectors_of_another_shape_or_not_finite(tmp_path):
    writer = VectorShardWriter(str(tmp_path), (0, 0), LAYERS, DIM, "float32")
    with pytest.raises(AssertionError, match=r"of shape \(2, 3, 3\), not \(2, 1, 3\)"):
        writer.add("a", ["a"], vectors_of("abc"))
    with pytest.raises(AssertionError, match="vectors of 'a' are not finite"):
        writer.add("a", ["a"], vectors_of("a") * np.float32("nan"))
    assert writer.close()[0].counts["entries"] == 0


def test_a_value_too_large_for_float16_is_refused(tmp_path):
    writer = VectorShardWriter(str(tmp_path), (0, 0), LAYERS, DIM, "float16")
    with pytest.raises(
        CacheError, match=r"a value of 7e\+04, too large for float16; set embed.dtype=float32"
    ):
        writer.add("a", ["a"], np.full((LAYERS, 1, DIM), 7e4, "f4"))
    writer.close()


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(CacheError, match="as 'int4'; choose float32, float16, int8"):
        VectorShardWriter(str(tmp_path), (0, 0), LAYERS, DIM, "int4")

"""The vector cache: reading, damage, and local copies of a remote cache."""

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files import local_copies, storage
from preprocess.files.manifest import (
    Manifest,
    ManifestError,
    check_files,
    read_manifest,
    write_manifest,
)
from preprocess.vectors import cache as vector_cache
from preprocess.vectors import shard as vector_shard
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.check import check_cache
from preprocess.vectors.codec import CacheError
from preprocess.vectors.files import shards_of
from preprocess.vectors.index import write_index
from preprocess.vectors.shard import VectorShardWriter, text_key

LAYERS, DIM = 2, 3
TEXTS = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["", "/", "a\nb", "\x00", "\ud83d\ude00", "😀", "\udc80", '["']
)
WORDS = st.lists(TEXTS, max_size=4)


def vectors_of(tokens, seed=0):
    """Return random vectors (layers, tokens, dim)."""
    return np.random.default_rng(seed).standard_normal((LAYERS, len(tokens), DIM)).astype("f4")


def finish(folder, records, **details):
    known = {"layers": LAYERS, "dim": DIM, "dtype": "float32", "unit": "token", "model": "m" * 64}
    details = known | details
    made = Manifest("embed", 2, "0.1.0", "f", "c", {}, tuple(records), details)
    write_manifest(folder, made)


def write(folder, shards, dtype="float32", texts=True):
    """Write and open a cache of shards, each a list of (text, tokens, vectors)."""
    records = []
    for number, entries in enumerate(shards):
        with VectorShardWriter(folder, (number, 0), LAYERS, DIM, dtype, texts) as writer:
            for entry in entries:
                writer.add(*entry)
        records += writer.close()
    index = write_index(folder, [(number, 0) for number in range(len(shards))])
    finish(folder, [*records, *index], dtype=dtype, texts_kept=texts)
    return VectorCache.open(folder)


def numbered(count):
    return [[(f"text {i}", ["語", str(i)], vectors_of("ab", i))] for i in range(count)]


@given(
    st.lists(st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=3)), max_size=4), max_size=3),
    st.sampled_from(["float32", "float16"]),
    TEXTS,
)
@settings(deadline=None, max_examples=40)
def test_cache_returns_every_text_once(tmp_path_factory, shards, dtype, other):
    stored, seed = {}, 0
    for shard in shards:
        for place, (text, tokens) in enumerate(shard):
            shard[place] = (text, tokens, vectors_of(tokens, seed := seed + 1))
            stored.setdefault(text, shard[place])
    cache = write(str(tmp_path_factory.mktemp("cache")), shards, dtype)

    assert list(cache) == list(stored)
    assert len(cache) == len(stored)
    assert (other in cache) == (other in stored)
    for text, tokens, vectors in stored.values():
        assert text in cache
        assert cache.tokens(text) == tokens
        np.testing.assert_array_equal(cache[text], vectors.astype(dtype), strict=True)
    for found, expected in zip(cache.entries(), stored.values(), strict=True):
        assert found[:2] == expected[:2]
        np.testing.assert_array_equal(found[2], cache[found[0]], strict=True)
    assert check_files(cache.path, cache.manifest) == []


def test_remote_and_local_caches_have_the_same_contents(folder):
    cache = write(folder, [*numbered(2), [("", [], vectors_of(""))], []], "float16")
    assert (cache.layers, cache.dim, cache.model) == (LAYERS, DIM, "m" * 64)
    assert cache.dtype == np.dtype("float16")
    assert list(cache) == ["text 0", "text 1", ""]
    assert cache[""].shape == (LAYERS, 0, DIM)
    assert cache.tokens("text 1") == ["語", "1"]
    np.testing.assert_array_equal(cache["text 1"], vectors_of("ab", 1).astype("f2"))


def test_a_text_and_its_list_of_words_are_different_keys(tmp_path):
    words, joined = ["a", "b"], "a b"
    cache = write(
        str(tmp_path),
        [[(words, ["a", "b"], vectors_of("ab", 1)), (joined, ["a", "b"], vectors_of("ab", 2))]],
    )
    np.testing.assert_array_equal(cache[words], vectors_of("ab", 1))
    np.testing.assert_array_equal(cache[("a", "b")], vectors_of("ab", 1))
    np.testing.assert_array_equal(cache[joined], vectors_of("ab", 2))
    assert list(cache) == [words, joined]
    assert cache.tokens(words) == ["a", "b"]
    assert ["a"] not in cache


@given(st.lists(TEXTS | WORDS, max_size=30), st.lists(TEXTS | WORDS, max_size=30))
@settings(deadline=None, max_examples=30)
def test_has_looks_up_many_keys(tmp_path_factory, stored, others):
    cache = write(
        str(tmp_path_factory.mktemp("cache")), [[(text, [], vectors_of("")) for text in stored]]
    )
    asked = [*stored, *others]
    found = cache.has(b"".join(map(text_key, asked)))
    assert found.tolist() == [text in cache for text in asked]
    assert all(found[: len(stored)])


@given(
    st.lists(TEXTS | WORDS, max_size=20),
    st.lists(st.lists(TEXTS | WORDS, max_size=20), max_size=2),
)
@settings(deadline=None, max_examples=30)
def test_entries_without_those_of_other_caches(tmp_path_factory, stored, others):
    folder = tmp_path_factory.mktemp("cache")
    own = [(text, ["a"], vectors_of(["a"])) for text in stored]
    cache = write(str(folder / "own"), [own])
    # Of each second text, another cache has a copy.
    rest = [
        write(
            str(folder / str(number)),
            [[(text, ["b"], vectors_of(["b"])) for text in texts + stored[::2]]],
        )
        for number, texts in enumerate(others)
    ]
    expected = [text for text in cache if not any(text in other for other in rest)]
    found = [text for text, _, _ in cache.entries(rest)]
    assert found == expected


def test_a_cache_without_texts_supports_lookup_only(tmp_path):
    cache = write(str(tmp_path), numbered(3), texts=False)
    np.testing.assert_array_equal(cache["text 1"], vectors_of("ab", 1))
    assert not list(tmp_path.glob("texts-*"))
    assert len(cache) == 3
    for read in (iter, lambda c: list(c.entries()), lambda c: c.tokens("text 1")):
        with pytest.raises(CacheError, match=r"made without its texts; .*embed\.texts=true"):
            read(cache)
    assert cache.at((1, 0), 0)[0] is None
    np.testing.assert_array_equal(cache.at((1, 0), 0)[1], vectors_of("ab", 1))


def test_int8_is_within_half_a_quantisation_step(tmp_path):
    vectors = np.random.default_rng(1).standard_normal((LAYERS, 50, DIM)).astype("f4") * 1e5
    vectors[1, 7] = 0
    cache = write(str(tmp_path), [[("a", ["x"] * 50, vectors)]], "int8")
    found = cache["a"]
    assert found.dtype == np.float32
    step = np.abs(vectors).max(2, keepdims=True) / 127
    assert (np.abs(found - vectors) <= 0.5001 * step).all()
    assert not found[1, 7].any()
    assert (tmp_path / "vectors-000000-000.bin").stat().st_size == LAYERS * 50 * (4 + DIM)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_writing_in_pieces_gives_the_same_files(tmp_path, monkeypatch, dtype):
    vectors = vectors_of("abcdefg" * 9)
    entry = ("a", ["x"] * 63, vectors)
    whole = write(str(tmp_path / "whole"), [[entry]], dtype)
    monkeypatch.setattr(vector_shard, "PIECE_BYTES", 100)
    pieces = write(str(tmp_path / "pieces"), [[entry]], dtype)
    assert pieces.manifest.files == whole.manifest.files
    np.testing.assert_array_equal(pieces["a"], whole["a"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_blocks_hold_all_entries(tmp_path, dtype):
    entries = [(f"text {i}", ["t"] * (i % 3), vectors_of("t" * (i % 3), i)) for i in range(7)]
    cache = write(str(tmp_path), [entries[:4], [], entries[4:]], dtype)
    found = {}
    for block in cache.blocks():
        for key, offset, units in zip(block.keys, block.offsets, block.units, strict=True):
            part = block.vectors[offset : offset + LAYERS * units]
            found[key.tobytes()] = part.reshape(LAYERS, units, DIM)
    for text, _, _ in entries:
        np.testing.assert_array_equal(found.pop(text_key(text)), cache[text])
    assert not found


def test_the_index_does_not_depend_on_the_number_of_buckets(tmp_path, monkeypatch):
    cache = write(str(tmp_path), numbered(200))
    from preprocess.vectors import index as vector_index

    monkeypatch.setattr(vector_index, "RUN_ENTRIES", 3)
    again = write_index(str(tmp_path), cache.shards)
    assert again == cache.manifest.files[-1:]


def test_a_cache_is_printed_in_one_line(tmp_path):
    cache = write(str(tmp_path), [[("a", ["x"], np.ones((LAYERS, 1, DIM)))]], "float32")
    assert repr(cache) == f"VectorCache(1 texts, {LAYERS} layers, dim {DIM}, float32: '{tmp_path}')"


def test_an_index_is_not_made_of_damaged_shards(tmp_path):
    cache = write(str(tmp_path), numbered(2))
    path = tmp_path / "entries-000001-000.npy"
    _flip(path)
    with pytest.raises(CacheError, match=r"entries-000001-000\.npy .*its hash is"):
        write_index(str(tmp_path), cache.shards, 1, records=cache.manifest.files)
    assert not (tmp_path / "index-0001-0000.npy").exists()


@pytest.mark.parametrize("version", ["as_version_0_1", "with_former_index"])
def test_texts_are_added_to_a_cache_of_a_former_version(tmp_path, make_cache, request, version):
    folder = make_cache(tmp_path / "cache", layers=LAYERS, dim=DIM, dtype="float32")
    request.getfixturevalue(version)(folder)
    old = read_manifest(str(folder))
    with VectorShardWriter(str(folder), (3, 0), LAYERS, DIM, "float32") as writer:
        writer.add("more", ["a", "b"], vectors_of("ab", 7))
        writer.add("text 1", ["a", "b"], vectors_of("ab", 8))  # known, so the first is kept
    files = [f for f in old.files if not f.name.startswith("index")] + list(writer.close())
    files += write_index(str(folder), shards_of([f.name for f in files]), 1, records=files)
    write_manifest(str(folder), replace(old, files=tuple(files)))
    with VectorCache.open(folder) as cache:
        assert (len(cache), cache.generation) == (10, 1)
        np.testing.assert_array_equal(cache["more"], vectors_of("ab", 7))
        np.testing.assert_array_equal(cache["text 1"], cache.at((0, 0), 1)[1])
        assert list(cache) == [*(f"text {n}" for n in range(9)), "more"]
        assert [len(block.keys) for block in cache.blocks()] == [3, 3, 3, 2]
        assert check_cache(str(folder), cache.manifest) == ({}, 0)


def test_an_index_of_a_new_generation_does_not_replace_the_old_one(tmp_path):
    cache = write(str(tmp_path), numbered(2))
    second = write_index(str(tmp_path), [(0, 0)], 1)
    assert [file.name for file in second] == ["index-0001-0000.npy"]
    assert "text 1" in VectorCache.open(tmp_path)
    assert cache.generation == 0
    finish(str(tmp_path), [*cache.manifest.files, *second])
    with pytest.raises(CacheError, match="its manifest lists 2 indexes, not 1"):
        VectorCache.open(tmp_path)


def test_a_cache_of_another_model_is_refused(tmp_path):
    write(str(tmp_path), numbered(1))
    assert VectorCache.open(tmp_path, "m" * 64).model == "m" * 64
    with pytest.raises(CacheError, match=r"by another model \(mmmmmmmmmmmm, not nnnnnnnnnnnn\)"):
        VectorCache.open(tmp_path, "n" * 64)


def test_a_cache_of_an_older_biloom_is_refused(tmp_path):
    write_manifest(str(tmp_path), Manifest("embed", 1, "0.0.9", "", "", {}, (), {}))
    with pytest.raises(CacheError, match=r"format of an older biloom \(0\.0\.9\)"):
        VectorCache.open(tmp_path)


def test_texts_with_equal_first_halves_of_keys_are_distinguished(tmp_path, monkeypatch):
    def colliding(text):
        return b"8 bytes " + text.encode().rjust(8)

    monkeypatch.setattr(vector_cache, "text_key", colliding)
    monkeypatch.setattr(vector_shard, "text_key", colliding)
    shards = numbered(5)
    cache = write(str(tmp_path), [*shards, *shards])
    assert len(cache) == 5
    assert [float(cache[f"text {i}"][0, 0, 0]) for i in range(5)] == [
        float(vectors_of("ab", i)[0, 0, 0]) for i in range(5)
    ]
    assert "text 9" not in cache


def test_a_missing_text_raises_a_key_error(tmp_path):
    cache = write(str(tmp_path), numbered(1))
    with pytest.raises(
        KeyError, match=r"'text 0 ' is not in the vector cache .* exactly as it was"
    ):
        cache["text 0 "]
    with pytest.raises(KeyError, match="is not in the vector cache"):
        cache.tokens("")
    assert cache.get("") is None
    assert 5 not in cache


def test_vectors_are_a_read_only_view(tmp_path):
    vectors = write(str(tmp_path), numbered(1))["text 0"]
    assert not vectors.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        vectors[0, 0, 0] = 1


def test_a_pickled_cache_can_be_read(tmp_path):
    cache = write(str(tmp_path), numbered(2))
    again = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(again["text 1"], cache["text 1"])


def test_the_first_of_equal_texts_is_kept(tmp_path):
    twice = [("a", ["first"], vectors_of("a", 1)), ("a", ["second"], vectors_of("a", 2))]
    cache = write(str(tmp_path), [twice[:1], twice[1:]])
    assert cache.tokens("a") == ["first"]
    assert write_index(str(tmp_path), [(1, 0), (0, 0), (1, 0)]) == cache.manifest.files[-1:]


def test_index_of_a_missing_shard_is_refused(tmp_path):
    with pytest.raises(CacheError, match=r"entries-000003-000\.npy of the vector cache is missing"):
        write_index(str(tmp_path), [(3, 0)])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-20] ^= 0xFF
    path.write_bytes(data)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _respell(path):
    path.write_bytes(path.read_bytes().replace(b"text 1", b"text 9"))


@pytest.mark.parametrize(
    ("name", "damage", "read", "message"),
    [
        ("vectors-000001-000.bin", Path.unlink, VectorCache.__getitem__, "is missing"),
        ("vectors-000001-000.bin", _cut, VectorCache.__getitem__, "47 bytes, not 48"),
        ("entries-000001-000.npy", Path.unlink, VectorCache.tokens, "is missing"),
        ("entries-000001-000.npy", _flip, VectorCache.tokens, "its hash is"),
        ("entries-000001-000.npy", _flip, VectorCache.__getitem__, "its hash is"),
        (
            "vectors-000001-000.bin",
            _flip,
            VectorCache.__getitem__,
            "entry 0 do not match their checksum",
        ),
        ("texts-000001-000.bin", Path.unlink, VectorCache.tokens, "is missing"),
        (
            "texts-000001-000.bin",
            _flip,
            VectorCache.tokens,
            "entry 0 does not match its key",
        ),
        (
            "texts-000001-000.bin",
            _respell,
            VectorCache.tokens,
            "entry 0 does not match its key",
        ),
        ("texts-000001-000.bin", _cut, VectorCache.tokens, "damaged"),
    ],
)
def test_a_damaged_shard_is_refused_and_the_others_stay_readable(
    tmp_path, name, damage, read, message
):
    cache = write(str(tmp_path), numbered(3))
    damage(tmp_path / name)
    with pytest.raises(CacheError) as caught:
        read(cache, "text 1")
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "`biloom embed --overwrite`" in str(caught.value)
    for text in ("text 0", "text 2"):
        assert read(cache, text) is not None
    with pytest.raises(CacheError, match=re.escape(name)):
        list(cache.entries())


def test_vectors_shorter_than_the_entries_require_are_refused(tmp_path):
    cache = write(str(tmp_path), numbered(2))
    name = "vectors-000001-000.bin"
    size = (tmp_path / name).stat().st_size - 4 * DIM
    with (tmp_path / name).open("r+b") as file:
        file.truncate(size)
    records = [
        replace(one, bytes=size) if one.name == name else one for one in cache.manifest.files
    ]
    finish(str(tmp_path), records)
    cache = VectorCache.open(tmp_path)
    for read in (lambda: cache["text 1"], lambda: cache.block(1)):
        with pytest.raises(CacheError, match=rf"{name} .*36 bytes cannot be 2 units of 2 layers"):
            read()


def test_an_entry_with_the_key_of_another_text_is_refused(tmp_path):
    cache = write(str(tmp_path), numbered(2))
    for kind in ("entries-{:06}-000.npy", "texts-{:06}-000.bin"):
        one, two = (tmp_path / kind.format(n) for n in (0, 1))
        data = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(data)
    with pytest.raises(CacheError, match=r"entries-000000-000\.npy.*its hash is .*, not "):
        cache.tokens("text 0")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, r"index-0000-0000\.npy of the vector cache is missing"),
        (_cut, r"index-0000-0000\.npy .*damaged"),
    ],
)
def test_cache_without_a_whole_index_is_refused(tmp_path, damage, message):
    write(str(tmp_path), numbered(1))
    damage(tmp_path / "index-0000-0000.npy")
    with pytest.raises(CacheError, match=message):
        VectorCache.open(tmp_path)


def test_an_unreadable_file_is_refused(tmp_path, monkeypatch):
    cache = write(str(tmp_path), numbered(1))
    cache["text 0"]
    cache._files.release()

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(storage, "open_read", refuse)
    with pytest.raises(CacheError, match=r"entries-000000-000\.npy .*cannot be read \(.*denied"):
        cache["text 0"]


def test_folder_without_a_finished_cache_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="holds no finished 'embed'"):
        VectorCache.open(tmp_path)


def test_a_manifest_without_the_shape_is_refused(tmp_path):
    details = {"layers": 1, "dtype": "float16", "unit": "token", "model": "m"}
    write_manifest(str(tmp_path), Manifest("embed", 2, "", "", "", {}, (), details))
    with pytest.raises(CacheError, match="the manifest of the vector cache lacks 'dim'"):
        VectorCache.open(tmp_path)


def test_local_copies_of_a_remote_cache_are_limited_in_bytes(tmp_path, monkeypatch):
    folder, fetched, read = "memory://test-vector-cache", [], storage.read_bytes
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    try:
        write(folder, numbered(3))
        # A shard's entries file has 192 + 44 bytes (its header is padded), its vectors 48.
        cache = VectorCache.open(folder, local_bytes=2 * (236 + 48) + 20)
        monkeypatch.setattr(
            local_copies.storage, "read_bytes", lambda *a: (fetched.append(a[0]), read(*a))[1]
        )
        kept = cache["text 0"]
        for text in ("text 0", "text 1", "text 2", "text 0"):
            cache[text]
        assert [name.rsplit("/")[-1] for name in fetched] == [
            "index-0000-0000.npy",
            *(
                name
                for n in range(3)
                for name in (f"entries-00000{n}-000.npy", f"vectors-00000{n}-000.bin")
            ),
        ]
        copies = [one for one in tmp_path.rglob("*") if one.is_file() and one.stat().st_size == 48]
        assert len(copies) == 2, "two of three copies fit; a mapped one stays readable"
        np.testing.assert_array_equal(kept, vectors_of("ab", 0))
    finally:
        storage.remove_tree(folder)


def test_a_damaged_remote_shard_is_refused(tmp_path, monkeypatch):
    folder = "memory://test-vector-cache"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    try:
        cache = write(folder, numbered(2))
        storage.write_bytes(f"{folder}/vectors-000001-000.bin", bytes(48))
        with pytest.raises(CacheError, match=r"vectors-000001-000\.bin .*damaged \(hash"):
            cache["text 1"]
        np.testing.assert_array_equal(cache["text 0"], vectors_of("ab", 0))
    finally:
        storage.remove_tree(folder)

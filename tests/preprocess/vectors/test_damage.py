"""Single bytes of a vector cache are flipped: every reader notices, or returns what it did before."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.errors import UserError
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.neighbours import word_uses
from preprocess.vectors.shard import text_key

COUNT = 9
TEXTS = [f"text {number}" for number in range(COUNT)]
OTHERS = [f"other {number}" for number in range(COUNT)]
KEYS = b"".join(text_key(text) for text in TEXTS + OTHERS)


def _array(values: Any) -> tuple[Any, ...]:
    return values.shape, values.dtype.str, values.tobytes()


READERS: dict[str, Callable[[VectorCache], Any]] = {
    "getitem": lambda cache: [_array(cache[text]) for text in TEXTS],
    "get": lambda cache: [cache.get(text) is None for text in TEXTS + OTHERS],
    "tokens": lambda cache: [cache.tokens(text) for text in TEXTS],
    "contains": lambda cache: [text in cache for text in TEXTS + OTHERS],
    "has": lambda cache: cache.has(KEYS).tolist(),
    "len": lambda cache: (len(cache), cache.units, cache.layers, cache.dim, cache.dtype),
    "iter": list,
    "entries": lambda cache: [(*found[:2], _array(found[2])) for found in cache.entries()],
    "blocks": lambda cache: [[_array(part) for part in block] for block in cache.blocks()],
    "at": lambda cache: [
        (text, _array(vectors))
        for number, shard in enumerate(cache.shards)
        for text, vectors in (cache.at(shard, entry) for entry in range(cache.sizes[number]))
    ],
    "neighbours": lambda cache: word_uses(cache, ["text1", "of"], 2),
}
WITHOUT_TEXTS = {"tokens", "iter", "entries", "neighbours"}


def read(folder: Path, reader: str) -> Any:
    """Return what a reader returns, or the error that it tells."""
    try:
        with VectorCache.open(folder) as cache:
            return READERS[reader](cache)
    except UserError as error:
        return error


def flip_and_read(folder: Path, flips: int, readers: list[str]) -> None:
    expected = {name: read(folder, name) for name in readers}
    assert not any(isinstance(value, UserError) for value in expected.values())
    draw = random.Random(2)
    files = sorted(folder.iterdir())
    for turn in range(flips):
        path = files[turn % len(files)]
        data = path.read_bytes()
        at, bit = draw.randrange(len(data)), 1 << draw.randrange(8)
        path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
        noticed = []
        for name in readers:
            found = read(folder, name)
            if isinstance(found, UserError):
                noticed.append(name)
                assert path.name in str(found) or "manifest" in str(found), (path.name, found)
            else:
                assert found == expected[name], f"byte {at} of {path.name} read by {name}"
        if path.name.startswith(("vectors", "texts")):
            assert noticed, f"byte {at} of {path.name}"
        path.write_bytes(data)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("former", [False, True])
def test_a_flipped_byte_is_noticed_or_has_no_effect(
    tmp_path: Path, make_cache: Any, as_version_0_1: Any, dtype: str, former: bool
) -> None:
    folder = make_cache(tmp_path / "cache", dtype=dtype)
    if former:
        as_version_0_1(folder)
    flip_and_read(folder, 44, list(READERS))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize("texts", [False, True])
def test_a_thousand_flipped_bytes_are_noticed_or_have_no_effect(
    tmp_path: Path, make_cache: Any, as_version_0_1: Any, dtype: str, former: bool, texts: bool
) -> None:
    folder = make_cache(tmp_path / "cache", dtype=dtype, texts=texts)
    if former:
        as_version_0_1(folder)
    flip_and_read(folder, 1000, [name for name in READERS if texts or name not in WITHOUT_TEXTS])


def _swap(one: Path, other: Path) -> None:
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize(
    "kinds", [("entries", "texts", "vectors"), ("vectors",), ("texts",), ("entries",)]
)
def test_swapped_files_of_two_shards_are_noticed(
    tmp_path: Path, make_cache: Any, as_version_0_1: Any, former: bool, kinds: tuple[str, ...]
) -> None:
    # With one text a shard of the same length, only the content of the files differs.
    folder = make_cache(tmp_path / "cache", shards=4, each=3)
    if former:
        as_version_0_1(folder)
    for kind in kinds:
        one, other = sorted(folder.glob(f"{kind}-*"))[:2]
        assert one.stat().st_size == other.stat().st_size
        _swap(one, other)
    cache = VectorCache.open(folder)
    read_it = cache.tokens if kinds == ("texts",) else cache.__getitem__
    for text in ("text 0", "text 3"):
        with pytest.raises(UserError, match=f"{kinds[0]}-00000.-000"):
            read_it(text)
    np.testing.assert_array_equal(cache["text 6"], cache.at((2, 0), 0)[1])


def test_a_lookup_checks_only_the_block_it_reads(tmp_path: Path, make_cache: Any) -> None:
    folder = make_cache(tmp_path / "cache", shards=2, each=800, layers=1, dim=1)
    cache = VectorCache.open(folder)
    assert len(cache) == 1600
    (path,) = folder.glob("index-*.npy")
    data = bytearray(path.read_bytes())
    data[128 + 40 * 700] ^= 1  # in the second of four blocks
    path.write_bytes(data)
    cache = VectorCache.open(folder)
    found = refused = 0
    for text in [f"text {number}" for number in range(1600)] + OTHERS:
        try:
            assert (text in cache) == text.startswith("text")
            found += 1
        except UserError as error:
            refused += "its entries 512 to 1,023 do not match their hash" in str(error)
    assert 500 < refused < 550
    assert found == 1609 - refused
    with pytest.raises(UserError, match="do not match their hash"):
        cache.has(KEYS)


def test_damaged_fences_of_an_index_are_noticed_by_the_first_lookup(
    tmp_path: Path, make_cache: Any
) -> None:
    folder = make_cache(tmp_path / "cache", shards=2, each=800, layers=1, dim=1)
    (path,) = folder.glob("index-*.npy")
    data = path.read_bytes()
    for at in range(len(data) - 24 * 4, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(
            UserError, match=r"index-0000-0000\.npy .*its fences do not match their hash"
        ):
            _ = TEXTS[0] in VectorCache.open(folder)

"""Caches of many shards need few open files, and views of them stay valid."""

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.vectors import stored
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.codec import CacheError

SHARDS = 250

READ_ALL = """
import pickle, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from preprocess.vectors.cache import VectorCache
from preprocess.vectors import stored
from preprocess.vectors.check import check_cache

stored.MAPPED_BYTES = int(sys.argv[2])
cache = VectorCache.open(sys.argv[1])
count = len(cache)
held = [vectors for _, _, vectors in cache.entries()]
assert len(held) == count
blocks = list(cache.blocks())
assert len(blocks) == len(cache.shards)
for text, vectors in zip(cache, held, strict=True):
    assert (cache[text] == vectors).all() and cache.tokens(text)
assert [cache.at(shard, 0)[0] for shard in reversed(cache.shards)]
others = [pickle.loads(pickle.dumps(cache)) for _ in range(10)]
for other in others:
    assert [other[text] is not None for text in cache].count(True) == count
assert not check_cache(sys.argv[1], cache.manifest).damage
cache.close()
print(count, sum(float(vectors.sum()) for vectors in held) != 0)
"""


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.fixture
def many(tmp_path: Path, make_cache: Any) -> Path:
    """A cache of many shards."""
    folder: Path = make_cache(tmp_path / "many", shards=SHARDS, each=1, layers=1, dim=2)
    return folder


@pytest.mark.parametrize(("former", "mapped"), [(False, 1 << 24), (True, 1 << 24), (False, 1)])
def test_a_cache_of_many_shards_is_read_with_few_open_files(
    many: Path, as_version_0_1: Any, former: bool, mapped: int
) -> None:
    if former:
        as_version_0_1(many)
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(many), str(mapped)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", f"{SHARDS} True\n")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_a_closed_or_forgotten_cache_leaves_no_open_file(many: Path) -> None:
    before = open_files()
    with VectorCache.open(many) as cache:
        held = [cache[text] for text in cache]
        assert before < open_files() <= before + stored.OPEN_FILES
    assert open_files() == before
    assert all(np.isfinite(vectors).all() for vectors in held)
    cache = VectorCache.open(many)
    list(cache.entries())
    gc.disable()
    try:
        del cache
        assert open_files() == before
    finally:
        gc.enable()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_the_least_recently_used_files_are_closed(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "OPEN_FILES", 9)
    before = open_files()
    cache = VectorCache.open(many)
    for text in list(cache):
        cache[text]
        assert open_files() <= before + 10
    cache.close()


def test_a_closed_cache_cannot_be_read(many: Path) -> None:
    cache = VectorCache.open(many)
    kept = cache["text 1"]
    copy = kept.copy()
    entries = cache.entries()
    next(entries)
    cache.close()
    cache.close()
    for read in (
        lambda: cache["text 1"],
        lambda: "text 1" in cache,
        lambda: len(cache),
        lambda: cache.has(b""),
        lambda: next(iter(cache)),
        lambda: next(cache.blocks()),
        lambda: next(entries),
        lambda: cache.at((0, 0), 0),
    ):
        with pytest.raises(CacheError, match="this vector cache is closed; open it again"):
            read()
    assert repr(cache) == f"VectorCache(closed: {str(many)!r})"
    np.testing.assert_array_equal(kept, copy)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache))["text 1"], copy)


@pytest.mark.parametrize("size", [1, 1 << 24])
def test_large_parts_are_mapped_and_stay_valid(
    many: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    cache = VectorCache.open(many)
    expected = [cache[text].tobytes() for text in cache]
    monkeypatch.setattr(stored, "MAPPED_BYTES", size)
    held = [vectors for _, _, vectors in cache.entries()]
    blocks = list(cache.blocks())
    cache.close()
    assert [vectors.tobytes() for vectors in held] == expected
    assert [block.vectors.tobytes() for block in blocks] == expected
    assert not any(vectors.flags.writeable for vectors in held)


def test_a_cache_is_read_from_several_threads(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "OPEN_FILES", 6)
    cache = VectorCache.open(many)
    expected = {text: cache[text].tobytes() for text in cache}
    wrong: list[object] = []

    def read(step: int) -> None:
        try:
            texts = sorted(expected, key=lambda text: hash((text, step)))
            wrong.extend(text for text in texts if cache[text].tobytes() != expected[text])
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(step,)) for step in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _sums(cache: VectorCache) -> list[float]:
    return [float(vectors.sum()) for _, _, vectors in cache.entries()]


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("fork", marks=pytest.mark.filterwarnings("ignore::DeprecationWarning")),
        pytest.param("spawn", marks=pytest.mark.slow),
    ],
)
def test_a_cache_is_read_in_other_processes(many: Path, method: str) -> None:
    cache = VectorCache.open(many)
    expected = _sums(cache)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_sums, [cache] * 2) == [expected] * 2


def test_a_file_truncated_while_it_is_open_is_damage(many: Path) -> None:
    cache = VectorCache.open(many)
    cache["text 1"]
    os.truncate(many / "vectors-000001-000.bin", 0)
    with pytest.raises(CacheError, match=r"vectors-000001-000\.bin .*truncated while it was read"):
        cache["text 1"]

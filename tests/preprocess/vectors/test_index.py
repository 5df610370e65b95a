"""The index of a vector cache: its files, look-ups on a disk and in a store, and their damage."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files import storage
from preprocess.files.local_copies import LocalCopies
from preprocess.files.manifest import FileRecord, read_manifest, write_manifest
from preprocess.vectors import index as writing
from preprocess.vectors import index_file, index_ranges, lookup
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.check import check_cache
from preprocess.vectors.codec import CacheError
from preprocess.vectors.files import CHECKED_ENTRY, HashedFile, ShardName, index_place
from preprocess.vectors.index import index_bits, write_index
from preprocess.vectors.index_file import ABSENT
from preprocess.vectors.lookup import VectorIndex
from preprocess.vectors.shard import text_key
from preprocess.vectors.stored import CacheFiles

REMOTE = "memory://test-vector-index"
Place = tuple[int, int, int, int]


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield
    storage.remove_tree(REMOTE)


def write_keys(folder: str, shards: Sequence[Sequence[bytes]]) -> dict[bytes, Place]:
    """Write entries files with these keys; return where the index must find each key."""
    places: dict[bytes, Place] = {}
    for number, keys in enumerate(shards):
        rows = np.zeros(len(keys), CHECKED_ENTRY)
        rows["key"] = np.frombuffer(b"".join(keys), "V16")
        rows["units"] = np.arange(len(keys)) % 7
        rows["offset"] = np.cumsum(rows["units"]) - rows["units"]
        with storage.atomic_writer(storage.join(folder, ShardName(number, 0).entries)) as opened:
            file = HashedFile("", opened)
            file.write_header(CHECKED_ENTRY, rows.shape)
            file.write(rows.view(np.uint8))
        for entry, (key, offset, units) in enumerate(
            zip(keys, rows["offset"].tolist(), rows["units"].tolist(), strict=True)
        ):
            places.setdefault(key, (number, entry, offset, units))
    return places


def open_index(folder: str, records: Sequence[FileRecord], limit: int = 1 << 40) -> VectorIndex:
    copies = LocalCopies(limit, "") if storage.is_remote(folder) else None
    files = CacheFiles(folder, {record.name: record for record in records}, copies)
    return VectorIndex(files, [record.name for record in records])


def made_index(folder: str, shards: Sequence[Sequence[bytes]]) -> tuple[VectorIndex, Any]:
    places = write_keys(folder, shards)
    return open_index(folder, write_index(folder, [(n, 0) for n in range(len(shards))])), places


def random_keys(count: int, seed: int = 1) -> list[bytes]:
    data = np.random.default_rng(seed).bytes(16 * count)
    return [data[at : at + 16] for at in range(0, len(data), 16)]


def check_lookups(
    index: VectorIndex, places: dict[bytes, Place], others: Sequence[bytes] = ()
) -> None:
    asked = [*places, *(key for key in others if key not in places)]
    found = index.places(b"".join(asked)).T.tolist()
    for key, (place, offset, units) in zip(asked, found, strict=True):
        expected = places.get(key)
        assert index.find(key) == expected
        if expected is None:
            assert {place, offset, units} == {int(ABSENT)}
        else:
            assert (place >> 32, place & 0xFFFFFFFF, offset, units) == expected
    assert len(index) == len(places)
    assert index.units == sum(units for *_, units in places.values())


HALVES = st.sampled_from([0, 1, 1 << 62, (1 << 63) - 1, 1 << 63, 3 << 62, (1 << 64) - 1])
KEYS = st.tuples(HALVES | st.integers(0, (1 << 64) - 1), HALVES | st.integers(0, 20)).map(
    lambda pair: pair[0].to_bytes(8, "big") + pair[1].to_bytes(8, "big")
)


@pytest.mark.parametrize("folder", ["", REMOTE])
@settings(deadline=None, max_examples=25)
@given(
    shards=st.lists(st.lists(KEYS, max_size=25), max_size=3),
    others=st.lists(KEYS, max_size=10),
    block=st.sampled_from([1, 2, 4, 512]),
    most=st.sampled_from([1, 2, 5, 1000]),
    small=st.booleans(),
)
def test_every_key_is_found_whatever_the_number_of_files_and_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    folder: str,
    shards: list[list[bytes]],
    others: list[bytes],
    block: int,
    most: int,
    small: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for module in (writing, index_file, index_ranges):
            patch.setattr(module, "BLOCK", block)
        patch.setattr(writing, "FILE_ENTRIES", most)
        patch.setattr(writing, "RUN_ENTRIES", 7)
        patch.setattr(index_ranges, "GAP_BLOCKS", 1)
        patch.setattr(index_ranges, "RECENT_BLOCKS", 3)
        if not small:
            patch.setattr(index_ranges, "SMALL_BYTES", 0)
        storage.remove_tree(REMOTE)
        index, places = made_index(folder or str(tmp_path_factory.mktemp("cache")), shards)
        check_lookups(index, places, others)
        check_lookups(index, places, others)


def test_the_number_of_files_follows_from_the_number_of_entries() -> None:
    million = writing.FILE_ENTRIES
    for entries, bits in ((0, 0), (million, 0), (million + 1, 1), (2 * million, 1)):
        assert index_bits(entries) == bits
    assert [index_bits(n * million) for n in (3, 4, 5, 1000)] == [2, 2, 3, 10]


def test_a_file_has_the_keys_with_its_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FILE_ENTRIES", 100)
    keys = random_keys(700)
    write_keys(str(tmp_path), [keys[:300], keys[300:]])
    records = write_index(str(tmp_path), [(0, 0), (1, 0)])
    assert [record.name for record in records] == [f"index-0000-000{n}.npy" for n in range(8)]
    for number, record in enumerate(records):
        rows = np.load(tmp_path / record.name)
        assert rows.shape == (record.counts["entries"], 5)
        assert rows[:, 0].tolist() == sorted(
            int.from_bytes(key[:8], "big") for key in keys if key[0] >> 5 == number
        )
        assert record.counts["units"] == rows[:, 4].sum()
    monkeypatch.setattr(writing, "RUN_ENTRIES", 10)
    assert write_index(str(tmp_path), [(0, 0), (1, 0)]) == records


def patched_store(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Return a list to which each read of the store adds the name of the file and the bytes."""
    reads: list[tuple[str, int]] = []
    read = storage.read_bytes

    def counted(path: str, *ends: Any) -> bytes:
        data = read(path, *ends)
        reads.append((path.rpartition("/")[2], len(data)))
        return data

    monkeypatch.setattr(storage, "read_bytes", counted)
    return reads


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> tuple[VectorIndex, dict[bytes, Place], list[Any]]:
    """An index of 4 files of 1.6 MB in a store, its keys, and the reads of the store."""
    monkeypatch.setattr(writing, "FILE_ENTRIES", 1 << 16)
    index, places = made_index(REMOTE, [random_keys(160_000)])
    return index, places, patched_store(monkeypatch)


def test_a_lookup_in_a_store_reads_the_fences_and_one_block(remote: Any) -> None:
    index, places, reads = remote
    key = next(iter(places))
    assert index.find(key) == places[key]
    assert [name for name, _ in reads] == [f"index-0000-000{key[0] >> 6}.npy"] * 2
    assert sum(size for _, size in reads) < 25_000
    assert index.find(key) == places[key]
    assert index.has(key).all()
    assert len(reads) == 2, "fences and block are in memory"
    other = next(one for one in places if one[0] >> 6 == key[0] >> 6)
    assert index.find(other) == places[other]
    assert len(reads) <= 3


def test_many_lookups_in_a_store_read_near_blocks_in_one_request(remote: Any) -> None:
    index, places, reads = remote
    few = list(places)[:40]
    assert index.has(b"".join(few)).all()
    assert len(reads) <= 4 + 40
    assert sum(size for _, size in reads) < 4 * 8000 + 40 * 9 * 20480
    reads.clear()
    many = list(places)[:5000]
    assert index.has(b"".join(many)).all()
    # All blocks: 7 MB, of which the kept ones are not read again.
    assert len(reads) <= 4 * 4
    assert max(size for _, size in reads) <= 25 * 512 * 40
    assert sum(size for _, size in reads) <= 7_000_000


def test_files_that_were_read_once_are_copied(remote: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    index, places, reads = remote
    monkeypatch.setattr(index_ranges, "RECENT_BLOCKS", 2)
    keys = b"".join(list(places)[:5000])
    size = sum(record.bytes for record in index._records)
    while not all(map(index._is_copied, range(4))):
        assert index.has(keys).all()
        assert sum(read for _, read in reads) < 2.2 * size
    assert index.has(keys).all()
    assert sum(read for _, read in reads) < 3.3 * size
    reads.clear()
    check_lookups(index, dict(list(places.items())), random_keys(50, 2))
    assert not reads

    reads.clear()
    records = index._records
    small = open_index(REMOTE, records, limit=2 * size - 1)
    for _ in range(4):
        assert small.has(keys).all()
    assert all(read < size / 8 for _, read in reads), "the copies would not fit"


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FILE_ENTRIES", 50)
    monkeypatch.setattr(index_ranges, "SMALL_BYTES", 0)
    for name, value in (("WHOLE_FILES", 2), ("RANGED_FILES", 3)):
        monkeypatch.setattr(lookup, name, value)
    monkeypatch.setattr(index_ranges, "RECENT_BLOCKS", 4)
    for folder in (str(tmp_path), REMOTE):
        index, places = made_index(folder, [random_keys(700)])
        check_lookups(index, places, random_keys(50, 2))
        assert index._whole.cache_info().currsize <= 2
        assert index._ranged.cache_info().currsize <= 3
        assert len(index._recent._blocks) <= 4


def test_an_index_in_a_store_is_read_from_several_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writing, "FILE_ENTRIES", 600)
    monkeypatch.setattr(index_ranges, "SMALL_BYTES", 0)
    monkeypatch.setattr(index_ranges, "RECENT_BLOCKS", 2)
    index, places = made_index(REMOTE, [random_keys(2000)])
    wrong: list[object] = []

    def read(step: int) -> None:
        try:
            for key in list(places)[step::40]:
                assert index.find(key) == places[key]
                assert index.has(key).all()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(step,)) for step in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("folder", ["", REMOTE])
@pytest.mark.parametrize("small", [False, True])
def test_a_flipped_byte_of_any_part_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, small: bool
) -> None:
    monkeypatch.setattr(writing, "FILE_ENTRIES", 8)
    if not small:
        monkeypatch.setattr(index_ranges, "SMALL_BYTES", 0)
    for module in (writing, index_file, index_ranges):
        monkeypatch.setattr(module, "BLOCK", 4)
    folder = folder or str(tmp_path)
    index, places = made_index(folder, [random_keys(30)])
    keys = b"".join(places)
    reads: list[Callable[[VectorIndex], object]] = [
        lambda one: one.places(keys),
        lambda one: [one.find(key) for key in places],
    ]
    for record in index._records:
        path = storage.join(folder, record.name)
        data = storage.read_bytes(path)
        for at in range(1, len(data), 23):
            storage.write_bytes(path, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            for read in reads:
                # The header of a file in a store is not read.
                if at < 128 and folder == REMOTE:
                    read(open_index(folder, index._records))
                    continue
                if 8 < at < 128:
                    continue  # padding
                with pytest.raises(CacheError, match=rf"{record.name} .*damaged"):
                    read(open_index(folder, index._records))
        storage.write_bytes(path, data)
    check_lookups(open_index(folder, index._records), places)


def test_missing_and_short_files_in_a_store_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FILE_ENTRIES", 1000)
    monkeypatch.setattr(index_ranges, "SMALL_BYTES", 0)
    index, places = made_index(REMOTE, [random_keys(1500)])
    first, second = (storage.join(REMOTE, record.name) for record in index._records)
    storage.write_bytes(first, storage.read_bytes(first)[:-1])
    storage.remove(second)
    for key in list(places)[:20]:
        message = "is missing" if key[0] >> 7 else "is damaged .it has no bytes "
        with pytest.raises(CacheError, match=rf"index-0000-000{key[0] >> 7}\.npy .*{message}"):
            index.find(key)


@pytest.mark.parametrize("has_fences", [True, False])
@pytest.mark.parametrize("is_remote", [True, False])
def test_an_index_of_a_former_version_is_read(
    tmp_path: Path,
    make_cache: Any,
    with_former_index: Any,
    as_version_0_1: Any,
    has_fences: bool,
    is_remote: bool,
) -> None:
    folder = make_cache(tmp_path / "cache", shards=2, each=700, layers=1, dim=1)
    with VectorCache.open(folder) as cache:
        expected = {text: (cache._index.find(text_key(text))) for text in cache}
    (with_former_index if has_fences else as_version_0_1)(folder)
    path = str(folder)
    if is_remote:
        for file in folder.iterdir():
            storage.write_bytes(f"{REMOTE}/{file.name}", file.read_bytes())
        path = REMOTE
    with VectorCache.open(path) as cache:
        keys = b"".join(map(text_key, expected))
        assert [name for name in cache.manifest.records if name.startswith("index")] == [
            "index-0000.npy"
        ]
        assert cache.has(keys).all()
        assert not cache.has(b"".join(random_keys(20))).any()
        found = {text: cache._index.find(text_key(text)) for text in expected}
        assert found == expected
        assert cache.units == sum(place[3] for place in expected.values() if place)
        assert check_cache(path, cache.manifest) == ({}, 0)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["index-0000-0000.npy", "index-0000-0001.npy", "index-0000-0002.npy"], "3 files of"),
        (["index-0000-0001.npy"], "1 files of an index that has others"),
        (["index-0000-0000.npy", "index-0000-0002.npy"], "2 files of an index that has others"),
        (["index-0000.npy", "index-0000-0000.npy"], "2 files of an index that has others"),
        (["index-0000-0000.npy", "index-0001-0001.npy"], "2 indexes, not 1"),
        (["index-0000-00000.npy"], "0 indexes, not 1"),
    ],
)
def test_a_manifest_that_lacks_files_of_the_index_is_refused(
    tmp_path: Path, make_cache: Any, names: list[str], told: str
) -> None:
    folder = make_cache(tmp_path / "cache")
    manifest = read_manifest(str(folder))
    others = [record for record in manifest.files if index_place(record.name) is None]
    (index,) = (record for record in manifest.files if index_place(record.name))
    files = (*others, *(replace(index, name=name) for name in names))
    write_manifest(str(folder), replace(manifest, files=files))
    with pytest.raises(CacheError, match=f"its manifest lists {told}"):
        VectorCache.open(folder)


def test_verify_names_the_file_of_the_index_that_lacks_an_entry(
    tmp_path: Path, make_cache: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_cache(tmp_path / "cache")
    manifest = read_manifest(str(folder))
    shards = VectorCache.open(folder).shards
    monkeypatch.setattr(writing, "FILE_ENTRIES", 5)
    # One index of all shards and one without the last shard; both have two files.
    whole = write_index(str(folder), shards, 1)
    others = [record for record in manifest.files if index_place(record.name) is None]
    write_manifest(str(folder), replace(manifest, files=(*others, *whole)))
    assert check_cache(str(folder), read_manifest(str(folder))) == ({}, 0)
    less = write_index(str(folder), shards[:2], 1)
    write_manifest(str(folder), replace(manifest, files=(*others, *less)))
    found, entries = check_cache(str(folder), read_manifest(str(folder)))
    missing: dict[str, list[int]] = {}
    for entry in range(3):
        file = f"index-0001-000{text_key(f'text {6 + entry}')[0] >> 7}.npy"
        missing.setdefault(file, []).append(entry)
    assert (entries, {*found}) == (3, {*missing})
    for reasons in found.values():
        assert "does not point to entries" in reasons[0]
        assert reasons[0].endswith("of entries-000002-000.npy")


def test_a_block_that_reaches_into_the_next_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(index_file, "BLOCK", 4)
    rows = np.zeros((6, 5), np.uint64)
    for last, told in ((4, ""), (9, "its entries 0 to 3 are not in the order of their keys")):
        rows[:, 0] = [1, 2, 3, last, 5, 6]
        made = [index_file.fence(rows[:4]), index_file.fence(rows[4:])]
        fences = index_file.Fences("index", np.array(made, np.uint64).T, 6)
        assert fences.damage(0, rows[:4]) == told
        assert fences.damage(1, rows[4:]) == ""


def test_a_cache_to_which_texts_were_added_says_that_it_must_be_opened_again(
    make_cache: Callable[..., Path], tmp_path: Path
) -> None:
    make_cache(tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        storage.write_bytes(f"{REMOTE}/{path.name}", path.read_bytes())
    cache = VectorCache.open(REMOTE)
    storage.remove(f"{REMOTE}/index-0000-0000.npy")
    with pytest.raises(CacheError, match=r"if texts were added .*, open it again; otherwise"):
        cache["text 1"]

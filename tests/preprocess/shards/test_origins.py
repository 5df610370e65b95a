"""Files of origins: what is written is read back, in few bytes a document."""

import random
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.reading.block import Locations, Place
from preprocess.shards.origins import (
    FATES,
    ID_CHARACTERS,
    DocumentKey,
    FileRun,
    Origins,
    OriginsBuilder,
    OriginsError,
    name_of,
)
from preprocess.text.config import SPLITS

PATH = "corpus/origins-000012-003.zst"
NAMES = st.sampled_from(["a.txt", "b:row 3.txt", "li\nne", "caf\udce9", "猫/\u2028.gz", ""])
PLACES: st.SearchStrategy[Place] = st.sampled_from(["byte", "unpacked byte", "UTF-8 byte", "row"])
NUMBERS = st.integers(0, 2**40)
IDS = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=5)


@st.composite
def some_origins(draw: st.DrawFn) -> Origins:
    files = draw(st.lists(st.builds(FileRun, NAMES, PLACES, st.integers(1, 4)), max_size=4))
    documents = sum(run.documents for run in files)
    exactly = {"min_size": documents, "max_size": documents}
    fates = np.array(draw(st.lists(st.integers(0, len(FATES) - 1), **exactly)), np.uint8)
    dropped = int((fates >= len(SPLITS)).sum())
    keys = st.tuples(*[st.integers(0, 2**32 - 1)] * 2)
    originals = draw(st.lists(keys, min_size=dropped, max_size=dropped))
    ids = draw(st.just([]) | st.lists(IDS, **exactly))
    return Origins(
        draw(st.sampled_from(["web", "猫"])),
        draw(st.integers(0, 2**32 - 1)),
        tuple(files),
        np.array(draw(st.lists(NUMBERS, **exactly)), np.int64),
        tuple(ids),
        fates,
        np.array(originals, np.uint32).reshape(-1, 2),
    )


def contents(origins: Origins) -> tuple[object, ...]:
    arrays = (origins.places, origins.fates, origins.originals)
    lists = [array.tolist() for array in arrays]
    return origins.source, origins.first, origins.files, origins.ids, lists


@settings(deadline=None)
@given(some_origins())
def test_what_is_written_is_read_back(origins: Origins) -> None:
    found = Origins.decode(origins.encode(), PATH)
    assert contents(found) == contents(origins)
    assert found.encode() == origins.encode()
    assert (found.places.dtype, found.originals.dtype) == (np.int64, np.uint32)


@settings(deadline=None)
@given(some_origins(), st.randoms())
def test_each_document_is_found_with_its_file_place_and_original(
    origins: Origins, draw: random.Random
) -> None:
    runs = [run for run in origins.files for _ in range(run.documents)]
    kept = [number for number, fate in enumerate(origins.fates) if fate < len(SPLITS)]
    chosen = np.zeros(len(origins), bool)
    chosen[draw.sample(kept, len(kept) // 2)] = True
    keys = np.array([(7, number) for number in np.flatnonzero(chosen)], np.uint32).reshape(-1, 2)
    found = origins.drop(chosen, "near_duplicate", keys)
    for index, run in enumerate(runs):
        assert found.file(index) == run
        number = int(origins.places[index])
        name = f"{run.name}:row {number}" if run.place == "row" else f"{run.name}:{number}"
        assert found.where(index).split(" id=")[0] == name
        if chosen[index]:
            assert found.original_of(index) == (7, index)
        elif index not in kept:
            assert found.original_of(index) == origins.original_of(index)
    for split in SPLITS:
        rows = found.in_split(split).tolist()
        fate = FATES.index(split)
        assert rows == [n for n in kept if not chosen[n] and origins.fates[n] == fate]
        assert found.ranks[rows].tolist() == [*range(len(rows))]
    names = [run.name for run in runs]
    assert found.rows_of("a.txt".__eq__).tolist() == [name == "a.txt" for name in names]


def locations(name: str, numbers: list[int], ids: list[str] | None = None) -> Locations:
    return Locations(name, "byte", lambda: numbers, ids or ())


def test_runs_of_a_file_are_joined_whatever_the_blocks() -> None:
    def build(*cuts: int) -> Origins:
        builder = OriginsBuilder("web", 5)
        for begin, end in zip((0, *cuts), (*cuts, 6), strict=True):
            numbers = [*range(0, 600, 100)][begin:end]
            builder.add(locations("a", numbers), np.arange(end - begin))
        builder.add(locations("b", [0, 50], ["x", "y" * 2000]), np.array([1]))
        return builder.build(np.zeros(7, np.uint8))

    whole = build()
    assert whole.files == (("a", "byte", 6), ("b", "byte", 1))
    assert whole.places.tolist() == [0, 100, 200, 300, 400, 500, 50]
    assert whole.ids == ("",) * 6 + ("y" * ID_CHARACTERS,)
    assert [build(*cuts).encode() for cuts in ((1,), (2, 3, 3), (5,))] == [whole.encode()] * 3


def test_documents_after_those_with_ids_have_none() -> None:
    builder = OriginsBuilder("web", 0)
    builder.add(locations("a", [0], ["x"]), np.array([0]))
    builder.add(locations("b", [0, 9]), np.array([0, 1]))
    assert builder.build(np.zeros(3, np.uint8)).ids == ("x", "", "")


def test_a_line_takes_about_two_bytes_and_a_duplicate_ten() -> None:
    draw = np.random.default_rng(1)
    lengths = draw.lognormal(5, 0.8, 100_000).astype(np.int64) + 1
    builder = OriginsBuilder("web", 0)
    builder.add(locations("news/2019.txt", lengths.cumsum().tolist()), np.arange(len(lengths)))
    kept = builder.build((draw.random(len(lengths)) < 0.01).astype(np.uint8))
    assert len(kept.encode()) < 2 * len(lengths)
    dropped = draw.random(len(lengths)) < 0.3
    keys = draw.integers(0, 2**17, (int(dropped.sum()), 2)).astype(np.uint32)
    more = len(kept.drop(dropped, "duplicate", keys).encode()) - len(kept.encode())
    assert more < 10 * dropped.sum()


@pytest.mark.parametrize("damage", ["cut", "flipped", "short column", "long column", "no head"])
def test_a_damaged_file_is_named(damage: str) -> None:
    builder = OriginsBuilder("web", 0)
    builder.add(locations("a", [0, 7], ["x", "y"]), np.arange(2))
    data = builder.build(np.zeros(2, np.uint8)).encode()
    plain = zstandard.ZstdDecompressor().decompress(data)
    pack = zstandard.ZstdCompressor().compress
    damaged = {
        "cut": data[:-9],
        "flipped": data[:20] + bytes([data[20] ^ 1]) + data[21:],
        "short column": pack(plain[:-1]),
        "long column": pack(plain + b"\0"),
        "no head": pack(b"nothing"),
    }[damage]
    with pytest.raises(OriginsError, match=f"^{PATH} is damaged .*prepare the corpus again"):
        Origins.decode(damaged, PATH)


def test_documents_of_known_corpora_need_a_newer_version_of_the_format() -> None:
    origins = OriginsBuilder("web", 0)
    locations = Locations("a.txt", "byte", lambda: [0, 9])
    origins.add(locations, np.arange(2))
    built = origins.build(np.zeros(2, np.uint8))
    rows, earlier = np.array([False, True]), np.array([[7, 5]], np.uint32)
    for reason, version in (("near_duplicate", 1), ("known", 2), ("known_near_duplicate", 2)):
        data = built.drop(rows, reason, earlier).encode()
        assert f'"format": {version},'.encode() in zstandard.ZstdDecompressor().decompress(data)
        read = Origins.decode(data, PATH)
        assert FATES[read.fates[1]] == reason
        assert read.original_of(1) == (7, 5)


def test_a_file_of_a_newer_version_is_refused() -> None:
    data = replace(OriginsBuilder("web", 0).build(np.zeros(0, np.uint8))).encode()
    plain = zstandard.ZstdDecompressor().decompress(data).replace(b'"format": 1', b'"format": 3')
    with pytest.raises(OriginsError, match=f"^{PATH}: has format 3, .*; upgrade biloom$"):
        Origins.decode(zstandard.ZstdCompressor().compress(plain), PATH)


def test_names_and_keys_are_padded_like_those_of_shards() -> None:
    assert name_of(12, 3) == "origins-000012-003"
    assert str(DocumentKey(12, 345)) == "000012 345"

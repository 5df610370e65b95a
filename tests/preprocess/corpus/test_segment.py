"""Segments: every document is in the part of its split, in order, with its number and keys."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.corpus.dedup import merge_keys, read_drops
from preprocess.corpus.near.blocks import Blocks
from preprocess.corpus.near.duplicates import decide_block, find_near_pairs, read_near_duplicates
from preprocess.corpus.segment import Segment
from preprocess.files import storage
from preprocess.files.storage import join, read_bytes
from preprocess.reading.block import Locations
from preprocess.shards.document_keys import DocumentKeys
from preprocess.shards.format import DOCUMENT
from preprocess.shards.origins import Origins
from preprocess.text.config import SPLITS
from preprocess.text.minhash import Keys
from preprocess.text.splits import text_hash
from preprocess.work.damage import checksum
from preprocess.work.shuffle import Layout
from tests.preprocess.comparing import compare_all

LAYOUT = Layout(1, 1)

WORK = "memory://segment"
U2, U4 = np.dtype("<u2"), np.dtype("<u4")
IDS = st.lists(st.integers(0, 65_535), max_size=4)


def all_train(high: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    return np.zeros(len(high), np.uint8)


def by_thirds(high: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    return (high % np.uint64(3)).astype(np.uint8)


def text_of(ids: list[int]) -> str:
    """Return a text for these ids, with characters of more than one byte."""
    return "".join(f"é{one}" for one in ids)


def add(segment: Segment, documents: list[list[int]], bands: bool = False) -> None:
    """Add a batch of documents with these ids; both bands of a document are its first id."""
    texts = [text_of(ids) for ids in documents]
    segment.add(
        texts,
        [text.encode() for text in texts],
        np.array([7 * len(ids) for ids in documents], np.uint32),
        [np.array(ids, np.int32) for ids in documents],
        near_keys([ids[0] for ids in documents]) if bands else None,
        places(segment.documents, len(documents)),
    )


def near_keys(values: list[int]) -> Keys:
    """Return two bands and a sketch of each document, all with the same value."""
    column = np.array(values)[:, None]
    return np.repeat(column, 2, axis=1).astype("<u4"), np.repeat(column, 4, axis=1).astype("<u8")


def places(first: int, documents: int) -> list[tuple[Locations, npt.NDArray[np.intp]]]:
    """Return locations in which every second document is dropped, in two files."""
    numbers = [10 * number for number in range(2 * (first + documents))]
    indexes = 2 * np.arange(first, first + documents)
    middle = first + documents // 2
    return [
        (Locations("a.txt", "byte", lambda: numbers), indexes[: middle - first]),
        (Locations("b.txt", "byte", lambda: numbers), indexes[middle - first :]),
    ]


def read_part(
    work: str, name: str, dtype: np.dtype[Any] = U2
) -> tuple[list[list[int]], npt.NDArray[Any]]:
    """Return the ids of each document of a part, and its rows."""
    ids = np.frombuffer(read_bytes(join(work, "parts", f"{name}.bin")), dtype)
    rows = np.load(io.BytesIO(read_bytes(join(work, "parts", f"{name}.npy"))))
    assert rows.dtype == DOCUMENT
    assert rows["tokens"].sum() == len(ids)
    cut = np.split(ids, np.cumsum(rows["tokens"])[:-1])
    return [one.tolist() for one in cut], rows


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(IDS, min_size=1, max_size=5), min_size=1, max_size=4), st.integers(0, 1000)
)
def test_every_document_is_whole_in_the_part_of_its_split(
    batches: list[list[list[int]]], first: int
) -> None:
    storage.remove_tree(WORK)
    segment = Segment(U2, "web", first)
    for batch in batches:
        add(segment, batch)
    documents = [ids for batch in batches for ids in batch]
    assert segment.documents == len(documents)
    assert segment.tokens == sum(map(len, documents))
    parts = segment.write(WORK, 3, 12, by_thirds, LAYOUT, LAYOUT)
    sides = [(text_hash(text_of(ids).encode()) >> 64) % 3 for ids in documents]
    assert parts == {
        "origins": "origins-000003-012",
        **{SPLITS[side]: f"{SPLITS[side]}-000003-012" for side in set(sides)},
    }
    path = join(WORK, "parts", "origins-000003-012.zst")
    origins = Origins.decode(read_bytes(path), path)
    assert (origins.source, origins.first, origins.fates.tolist()) == ("web", first, sides)
    assert origins.places.tolist() == [20 * number for number in range(len(documents))]
    assert {run.name for run in origins.files} <= {"a.txt", "b.txt"}
    for side in set(sides):
        chosen = [
            (number, ids)
            for number, (ids, on) in enumerate(zip(documents, sides, strict=True), first)
            if on == side
        ]
        found, rows = read_part(WORK, parts[SPLITS[side]])
        assert list(zip(rows["number"].tolist(), found, strict=True)) == chosen
        for row, ids in zip(rows, found, strict=True):
            text = text_of(ids)
            sizes = (row["words"], row["characters"], row["text_bytes"])
            assert sizes == (7 * len(ids), len(text), len(text.encode()))


def test_ids_above_16_bits_are_stored(tmp_path: Path) -> None:
    segment = Segment(U4, "web", 0)
    add(segment, [[1 << 16, 2_000_000], []])
    parts = segment.write(str(tmp_path), 0, 0, all_train, LAYOUT, LAYOUT)
    assert read_part(str(tmp_path), parts["train"], U4)[0] == [[1 << 16, 2_000_000], []]


@pytest.mark.parametrize("buckets", [1, 3])
def test_keys_are_numbered_across_the_segments_of_a_unit(tmp_path: Path, buckets: int) -> None:
    work = str(tmp_path)
    layout = Layout(1, buckets)
    for number, first in enumerate((0, 2)):
        segment = Segment(U2, "web", first)
        add(segment, [[5]], bands=True)
        add(segment, [[6 + number]], bands=True)
        segment.write(work, 0, number, all_train, layout, layout)
    compare_all(work, "hashes", layout)
    assert read_drops(work, "hashes", 0, layout).tolist() == [2]
    blocks = Blocks(1, 1)
    merge_keys(work, "bands", layout, 0)
    for number in range(layout.lists):
        find_near_pairs(work, layout, blocks, 0.8, number)
    decide_block(work, layout.lists, blocks, 0, 0)
    [(numbers, originals)] = read_near_duplicates(work, blocks, range(1))
    assert (numbers.tolist(), originals.tolist()) == ([2], [[0, 0]])


@pytest.mark.parametrize("bands", [False, True])
def test_the_keys_of_all_documents_are_written_if_they_are_kept(
    tmp_path: Path, bands: bool
) -> None:
    segment = Segment(U2, "web", 7, keep_keys=True)
    add(segment, [[5], [6]], bands)
    parts = segment.write(str(tmp_path), 3, 2, by_thirds, LAYOUT, LAYOUT)
    assert parts["keys"] == "keys-000003-002"
    data = (tmp_path / "parts" / "keys-000003-002.zst").read_bytes()
    assert segment.hashes["keys-000003-002.zst"] == checksum(data)
    keys = DocumentKeys.decode(data, "FILE")
    assert keys.numbers.tolist() == [7, 8]
    assert keys.hashes.tolist() == [text_hash(text_of(ids).encode()) % 2**64 for ids in ([5], [6])]
    assert keys.bands.tolist() == ([[5, 5], [6, 6]] if bands else [[], []])
    assert keys.sketches.tolist() == ([[5] * 4, [6] * 4] if bands else [[], []])


def test_no_bands_are_written_if_near_duplicates_are_kept(tmp_path: Path) -> None:
    segment = Segment(U2, "web", 0)
    add(segment, [[1]])
    segment.write(str(tmp_path), 0, 0, all_train, LAYOUT, Layout(1, 8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hashes", "parts"]

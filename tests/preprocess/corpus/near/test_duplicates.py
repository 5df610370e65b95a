"""Near-duplicates through files, against a comparison in memory, and after kills."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.corpus.dedup import band_keys, merge_keys, write_keys
from preprocess.corpus.near.blocks import PAIR, ROUNDS, Blocks, document_key, sorted_pairs
from preprocess.corpus.near.duplicates import decide_block, find_near_pairs, read_near_duplicates
from preprocess.corpus.near.pairs import find_pairs
from preprocess.files import storage
from preprocess.text.minhash import SHINGLE, Bands, most_differing
from preprocess.work import groups
from preprocess.work.damage import DamagedWork
from preprocess.work.shuffle import Layout
from tests.preprocess.corpus.near.test_blocks import in_order

WORK = "memory://near"
Document = tuple[list[int], int]
"""Keys of the bands of a document, and its sketch."""
Found = dict[tuple[int, int], tuple[int, int]]

DOCUMENT = st.tuples(
    st.lists(st.integers(0, 2), min_size=2, max_size=2), st.sampled_from([0, 1, 3, 7, 0xFFFF])
)


def keys_of(documents: list[Document]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
    bands = np.array([bands for bands, _ in documents], np.uint32).reshape(-1, 2)
    # Keys of different bands differ.
    bands += np.array([0, 10], np.uint32)
    sketches = np.zeros((len(documents), 4), np.uint64)
    sketches[:, 1] = [sketch for _, sketch in documents]
    return bands, sketches


def write(work: str, units: list[list[Document]], layout: Layout) -> None:
    for unit, documents in reversed([*enumerate(units)]):
        keys = band_keys(keys_of(documents), np.arange(len(documents), dtype=np.uint32))
        write_keys(work, "bands", unit, 0, keys, layout)


def find(work: str, layout: Layout, blocks: Blocks, similarity: float = 0.98) -> Found:
    """Find the near-duplicates, each step from the last item to the first."""
    for run in reversed(range(layout.runs)):
        merge_keys(work, "bands", layout, run)
    for number in reversed(range(layout.lists)):
        find_near_pairs(work, layout, blocks, similarity, number)
    for number in range(blocks.rounds):
        for block in reversed(range(blocks.number)):
            decide_block(work, layout.lists, blocks, number, block)
    found: Found = {}
    half = layout.own // 2
    drops = [*read_near_duplicates(work, blocks, range(half))]
    drops += read_near_duplicates(work, blocks, range(half, layout.own))
    for unit, (numbers, originals) in enumerate(drops):
        assert numbers.tolist() == sorted(numbers.tolist())
        rows = zip(numbers.tolist(), map(tuple, originals.tolist()), strict=True)
        found |= {(unit, number): original for number, original in rows}
    return found


def in_memory(units: list[list[Document]], own: int, similarity: float = 0.98) -> Found:
    """Return the same from one table of all documents, known ones first."""
    order = [*range(own, len(units)), *range(own)]
    rows = [(unit, n, d) for unit in order for n, d in enumerate(units[unit])]
    bands, sketches = keys_of([document for _, _, document in rows])
    found = find_pairs(bands.ravel(), np.repeat(sketches, 2, axis=0), most_differing(similarity))
    columns = (np.array([row[n] for row in rows], np.uint32) for n in (0, 1))
    documents = np.repeat(document_key(*columns), 2)
    pairs = np.empty(len(found.later), PAIR)
    pairs["later"], pairs["earlier"] = documents[found.later], documents[found.earlier]
    pairs["differing"] = found.differing
    of_own = pairs["later"] >> np.uint64(32) < own
    return {
        divmod(document, 1 << 32): divmod(original, 1 << 32)
        for document, original in in_order(sorted_pairs(pairs[of_own]), own).items()
    }


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(DOCUMENT, max_size=6), min_size=1, max_size=5),
    st.lists(st.lists(DOCUMENT, max_size=3), max_size=2),
    st.integers(1, 7),
    st.integers(1, 5),
)
def test_files_give_what_a_comparison_in_memory_gives(
    units: list[list[Document]], known: list[list[Document]], buckets: int, number: int
) -> None:
    layout = Layout(len(units) + len(known), buckets, len(known))
    blocks = Blocks(len(units), min(number, len(units)))
    assert blocks.number <= ROUNDS
    storage.remove_tree(WORK)
    write(WORK, units + known, layout)
    found = find(WORK, layout, blocks)
    expected = in_memory(units + known, len(units))
    assert found.keys() == expected.keys()
    if blocks.number == 1:
        assert found == expected
    for document, original in found.items():
        assert original not in found
        assert original[0] >= layout.own or original < document


def jaccard(one: str, other: str) -> float:
    sets = [{t[i : i + SHINGLE] for i in range(len(t) - SHINGLE + 1)} for t in (one, other)]
    return 1.0 if one == other else len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def texts() -> list[str]:
    """Return texts with near-duplicates, copies and a chain."""
    draw = np.random.default_rng(4)
    words = [f"w{n}" for n in range(900)]
    found = []
    for _ in range(12):
        text = draw.choice(words, 80).tolist()
        found += [" ".join(text), " ".join([*text[:79], "end"])]
    chain = draw.choice(words, 120).tolist()
    for step in range(8):
        found.append(" ".join(chain))
        chain[step * 10 : step * 10 + 9] = draw.choice(words, 9).tolist()
    return [*found, *found[3:9], "short", "short", "shorter"]


def test_texts_give_the_same_drops_in_any_units_and_blocks(tmp_path: Path) -> None:
    every = texts()
    bands, sketches = Bands(0.8, seed=1).keys(every)
    results = []
    for units, buckets, number in ((1, 1, 1), (3, 4, 2), (5, 16, 5), (len(every), 3, 5)):
        layout = Layout(units, buckets)
        work = str(tmp_path / str(units))
        edges = np.linspace(0, len(every), units + 1).astype(int).tolist()
        for unit in range(units):
            part = slice(edges[unit], edges[unit + 1])
            numbers = np.arange(part.stop - part.start, dtype=np.uint32)
            keys = band_keys((bands[part], sketches[part]), numbers)
            write_keys(work, "bands", unit, 0, keys, layout)
        found = find(work, layout, Blocks(units, number), 0.8)
        results.append(sorted(edges[unit] + number for unit, number in found))
        for (unit, number), (other_unit, other) in found.items():
            pair = every[edges[unit] + number], every[edges[other_unit] + other]
            assert jaccard(*pair) > 0.7
    assert results[1:] == results[:-1]
    dropped = {*results[0]}
    assert dropped >= {1, 3, 5, 7, 9, 11}
    # A chain keeps several documents: its ends are not similar.
    assert jaccard(every[24], every[31]) < 0.5
    assert 24 not in dropped
    assert 2 <= len({*range(24, 32)} - dropped) <= 6
    # Copies are dropped, also those of a dropped document and short ones.
    assert dropped >= {*range(32, 38), 39}
    assert 40 not in dropped


@pytest.mark.parametrize("blocks", [Blocks(4, 1), Blocks(4, 4)])
def test_a_kill_at_any_write_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: Blocks
) -> None:
    units: list[list[Document]] = [
        [([n % 3, n % 2], (1 << n) - 1) for n in range(unit, unit + 6)] for unit in range(4)
    ]
    layout = Layout(4, 3)
    work = str(tmp_path / "work")

    def everything() -> dict[str, bytes]:
        files = (path for path in (tmp_path / "work" / "near").rglob("*") if path.is_file())
        return {str(path.relative_to(tmp_path)): path.read_bytes() for path in files}

    write(work, units, layout)
    expected = find(work, layout, blocks)
    assert expected
    whole = everything()
    assert len(whole) == layout.lists + blocks.number * blocks.rounds
    left = 0

    def dying(path: str, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        storage.write_bytes(path, data)

    for last in range(0, len(whole), 3):
        storage.remove_tree(str(tmp_path / "work" / "near"))
        left = last
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(groups, "write_bytes", dying)
            find(work, layout, blocks)
        assert len(everything()) == last
        assert find(work, layout, blocks) == expected
        assert everything() == whole


@pytest.mark.parametrize("name", ["list-000000.groups", "block-000001-00.groups"])
def test_damaged_files_are_told(tmp_path: Path, name: str) -> None:
    work = str(tmp_path / "_work" / ("a" * 64))
    layout, blocks = Layout(2, 1), Blocks(2, 2)
    write(work, [[([1, 1], 1)], [([1, 1], 3)]], layout)
    find(work, layout, blocks)
    path = Path(work) / "near" / name
    path.write_bytes(path.read_bytes()[:-1])
    later = ("block-000000-00.groups", "block-000001-01.groups")
    for other in later if name.startswith("list") else later[1:]:
        (Path(work) / "near" / other).unlink()
    if name.startswith("list"):
        (Path(work) / "near" / "block-000001-00.groups").unlink()
    with pytest.raises(DamagedWork, match=r"groups is damaged .*; delete .*, which holds"):
        find(work, layout, blocks)


def test_many_documents_with_equal_keys_take_linear_time_and_few_pairs(tmp_path: Path) -> None:
    number = 3000
    documents: list[Any] = [([1, 1], n % 600) for n in range(number)]
    layout, blocks = Layout(1, 1), Blocks(1, 1)
    write(str(tmp_path), [documents], layout)
    found = find(str(tmp_path), layout, blocks)
    assert {document for _, document in found} >= {*range(600, number)}
    list_file = tmp_path / "near" / "list-000000.groups"
    assert list_file.stat().st_size < 9 * number * PAIR.itemsize

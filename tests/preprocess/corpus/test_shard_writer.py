"""Shards of a set size: whole documents, in order, whatever the parts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.corpus.shard_writer import ShardWriter
from preprocess.files import storage
from preprocess.shards.format import DOCUMENT, Shard

U2 = np.dtype("<u2")
OUTPUT = "memory://shard-writer"

Part = tuple[str, str, list[int]]
PARTS = st.lists(
    st.tuples(
        st.sampled_from(["train", "valid"]),
        st.sampled_from(["a", "b"]),
        st.lists(st.integers(0, 9), max_size=12),
    ),
    max_size=8,
)


def add(writer: ShardWriter, part: Part, first: int) -> list[list[int]]:
    """Add a part whose documents have these lengths; return their ids."""
    split, source, lengths = part
    rows = np.zeros(len(lengths), DOCUMENT)
    rows["tokens"] = lengths
    ids = np.arange(first, first + sum(lengths)).astype(U2)
    writer.add(split, source, ids, rows)
    return [piece.tolist() for piece in np.split(ids, np.cumsum(lengths)[:-1])] if lengths else []


def documents(writer: ShardWriter) -> dict[str, list[tuple[str, list[list[int]]]]]:
    """Return (source, documents) of each shard, by split."""
    found: dict[str, list[tuple[str, list[list[int]]]]] = {"train": [], "valid": []}
    for row in writer.files:
        if row["name"].endswith(".bin"):
            shard = Shard(OUTPUT, row["name"].removesuffix(".bin"), **row["counts"])
            data = storage.read_bytes(f"{OUTPUT}/{row['name']}")
            lengths = np.frombuffer(storage.read_bytes(f"{OUTPUT}/{shard.name}.len"), "<u4")
            pieces = np.split(np.frombuffer(data, U2), np.cumsum(lengths)[:-1])
            found[shard.split].append((shard.source, [piece.tolist() for piece in pieces]))
    return found


@settings(deadline=None)
@given(PARTS, st.integers(1, 20))
def test_shards_are_full_and_hold_every_document_in_order(parts: list[Part], most: int) -> None:
    storage.remove_tree(OUTPUT)
    writer = ShardWriter(OUTPUT, 3, U2, most)
    expected: dict[str, list[tuple[str, list[int]]]] = {"train": [], "valid": []}
    first = 0
    for part in parts:
        for document in add(writer, part, first):
            expected[part[0]].append((part[1], document))
        first += sum(part[2])
    writer.close()
    found = documents(writer)
    for split, shards in found.items():
        assert [(s, one) for s, docs in shards for one in docs] == expected[split]
        sizes = [sum(map(len, docs)) for _, docs in shards]
        for (_, docs), size in zip(shards, sizes, strict=True):
            assert len(docs) == 1 or (size <= most and len(docs) <= most)
        for (source, docs), (other, more), size in zip(shards, shards[1:], sizes, strict=False):
            full = size + len(more[0]) > most or len(docs) == most
            assert full or source != other
    counted = dict(writer.counts.tolist())
    train = [n for _, docs in found["train"] for one in docs for n in one]
    assert counted == {n: train.count(n) for n in set(train)}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 20), st.integers(1, 30))
def test_the_shards_do_not_depend_on_how_the_documents_are_divided_to_parts(
    lengths: list[int], most: int, size: int
) -> None:
    made = []
    for step in (size, len(lengths) or 1):
        storage.remove_tree(OUTPUT)
        writer, first = ShardWriter(OUTPUT, 0, U2, most), 0
        for begin in range(0, len(lengths), step):
            piece = lengths[begin : begin + step]
            add(writer, ("train", "a", piece), first)
            first += sum(piece)
        writer.close()
        made.append(writer.files)
    assert made[0] == made[1]

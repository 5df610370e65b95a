"""Shards as files: their types, and what is said where one is not what its manifest says."""

import re
from pathlib import Path

import numpy as np
import pytest

from preprocess.manifest import FileRecord, Manifest, ManifestError, write_manifest
from preprocess.storage import write_bytes
from preprocess.token_shard import DOCUMENT, Corpus, Shard, ShardError, shard_counts, token_dtype


def make_shard(folder: str, dtype: str = "<u2", name: str = "train-000000-000") -> Shard:
    write_bytes(f"{folder}/{name}.bin", np.array([5, 6, 60_000], dtype).tobytes())
    write_bytes(f"{folder}/{name}.len", np.array([2, 0, 1], "<u4").tobytes())
    return Shard(folder, name, "train", "corpus", dtype, 3, 3, 3, 9, 9)


def test_ids_are_two_bytes_up_to_65536_of_them() -> None:
    assert [token_dtype(n).str for n in (3, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
def test_a_shard_reads_back(tmp_path: Path, dtype: str) -> None:
    shard = make_shard(str(tmp_path), dtype)
    assert shard.ids.tolist() == [5, 6, 60_000]
    assert isinstance(shard.ids, np.memmap)
    assert shard.lengths.tolist() == [2, 0, 1]


def test_a_shard_of_empty_documents_has_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    shard = Shard(str(tmp_path), "a", "train", "corpus", "<u2", 2, 0, 0, 0, 0)
    assert shard.ids.tolist() == []


def test_remote_shards_are_fetched_whole_and_never_mixed_up() -> None:
    one = make_shard("memory://shards/a_b", name="c")
    two = make_shard("memory://shards/a", name="b_c")
    write_bytes("memory://shards/a/b_c.bin", np.array([7, 8, 9], "<u2").tobytes())
    assert one.ids.tolist() == [5, 6, 60_000]
    assert two.ids.tolist() == [7, 8, 9]
    assert two.lengths.tolist() == [2, 0, 1]


@pytest.mark.parametrize("size", [0, 4, 5, 8])
def test_a_damaged_shard_is_named(tmp_path: Path, size: int) -> None:
    shard = make_shard(str(tmp_path))
    (tmp_path / "train-000000-000.bin").write_bytes(bytes(size))
    with pytest.raises(ShardError) as error:
        _ = shard.ids
    assert str(error.value) == (
        f"{tmp_path}/train-000000-000.bin is damaged (`biloom check {tmp_path}` lists what is): "
        f"{size} bytes, not 6"
    )


@pytest.mark.parametrize("lengths", [[2, 1], [2, 0, 2], []])
def test_lengths_of_other_documents_are_named(tmp_path: Path, lengths: list[int]) -> None:
    shard = make_shard(str(tmp_path))
    (tmp_path / "train-000000-000.len").write_bytes(np.array(lengths, "<u4").tobytes())
    with pytest.raises(ShardError, match=r"000\.len is damaged .*: lengths of other documents"):
        _ = shard.lengths


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shard = make_shard(str(tmp_path))
    (tmp_path / "train-000000-000.bin").unlink()
    message = f"{tmp_path}/train-000000-000.bin is missing; run `biloom check {tmp_path}`"
    with pytest.raises(ShardError, match=re.escape(message)):
        _ = shard.ids


def test_a_corpus_knows_its_splits(tmp_path: Path) -> None:
    documents = np.array([(0, 2, 1, 4, 5), (3, 1, 1, 2, 2)], DOCUMENT)
    records = []
    for name in ("train-000000-000", "train-000001-000", "valid-000000-000"):
        counts = shard_counts(documents, name[:5], "corpus", token_dtype(10))
        records += [FileRecord(f"{name}.bin", 6, "0", counts), FileRecord(f"{name}.len", 8, "0")]
    with pytest.raises(ManifestError, match="holds no finished 'prepare'"):
        Corpus.open(str(tmp_path))
    np.save(tmp_path / "counts.npy", np.arange(10, dtype=np.uint64))
    details = {"vocabulary": 10}
    write_manifest(
        str(tmp_path), Manifest("prepare", 1, "0", "f", "c", {}, tuple(records), details)
    )
    corpus = Corpus.open(str(tmp_path))
    assert [shard.name for shard in corpus.shards("train")] == [
        "train-000000-000",
        "train-000001-000",
    ]
    sums = {"documents": 4, "tokens": 6, "words": 4, "characters": 12, "text_bytes": 14}
    assert corpus.totals("train") == sums
    assert corpus.totals("test") == dict.fromkeys(sums, 0)
    assert corpus.vocabulary == 10
    assert corpus.counts().tolist() == list(range(10))

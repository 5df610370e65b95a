"""A vector cache as a torch dataset."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_modules.vectors.dataset import VectorDataset, pad
from preprocess.files.manifest import Manifest, write_manifest
from preprocess.vectors.cache import VectorCache
from preprocess.vectors.codec import CacheError
from preprocess.vectors.index import write_index
from preprocess.vectors.shard import VectorShardWriter

COUNT = 7


def make(folder: Path, texts: bool = True) -> VectorCache:
    draw = np.random.default_rng(1)
    records: list[Any] = []
    shards = [(0, 0), (0, 1), (3, 0)]
    for shard, part in zip(shards, ((0, 1, 2), (), (3, 4, 5, 6)), strict=True):
        with VectorShardWriter(str(folder), shard, 2, 3, "float16", texts) as writer:
            for number in part:
                labels = ["t"] * (number + 1)
                writer.add(
                    f"text {number}", labels, draw.normal(size=(2, number + 1, 3)).astype("f4")
                )
        records += writer.close()
    details = {"layers": 2, "dim": 3, "dtype": "float16", "unit": "token", "model": "m"}
    files = (*records, *write_index(str(folder), shards))
    manifest = Manifest("embed", 2, "", "", "", {}, files, {**details, "texts_kept": texts})
    write_manifest(str(folder), manifest)
    return VectorCache.open(folder)


def test_texts_are_indexed_in_the_order_they_are_stored(tmp_path: Path) -> None:
    cache = make(tmp_path)
    data = pickle.loads(pickle.dumps(VectorDataset(cache)))

    assert len(data) == COUNT
    for number in range(COUNT):
        text, vectors = data[number]
        assert text == f"text {number}"
        assert vectors.dtype == torch.float32
        np.testing.assert_array_equal(vectors, cache[text].astype("f4"))
    for number in (-1, COUNT):
        with pytest.raises(IndexError, match=f"no text has index {number}; the cache has 7 texts"):
            data[number]
    assert VectorDataset(make(tmp_path / "bare", texts=False))[3].text is None


@pytest.mark.parametrize(
    ("workers", "method"),
    [
        (0, None),
        pytest.param(2, "fork", marks=pytest.mark.filterwarnings("ignore::DeprecationWarning")),
        pytest.param(2, "spawn", marks=pytest.mark.slow),
    ],
)
def test_a_loader_raises_the_damage_that_its_workers_read(
    tmp_path: Path, workers: int, method: str | None
) -> None:
    cache = make(tmp_path)
    vectors = tmp_path / "vectors-000003-000.bin"
    vectors.write_bytes(bytes([vectors.read_bytes()[0] ^ 1]) + vectors.read_bytes()[1:])
    loader = DataLoader(
        VectorDataset(cache), 1, collate_fn=pad, num_workers=workers, multiprocessing_context=method
    )
    rows = iter(loader)
    read = [next(rows).texts for _ in range(3)]
    with pytest.raises(
        CacheError, match=r"vectors-000003-000\.bin .*entry 0 do not match their checksum"
    ):
        next(rows)
    # To the end: a worker that is told to end while its thread shares a tensor may abort.
    read += [batch.texts for batch in rows]
    assert read == [[f"text {number}"] for number in (0, 1, 2, 4, 5, 6)]


def test_a_dataset_of_many_shards_needs_few_open_files(tmp_path: Path) -> None:
    records: list[Any] = []
    shards = [(number, 0) for number in range(120)]
    for shard in shards:
        with VectorShardWriter(str(tmp_path), shard, 1, 2, "float16") as writer:
            writer.add(f"text {shard[0]}", ["t"], np.full((1, 1, 2), shard[0], "f4"))
        records += writer.close()
    details = {"layers": 1, "dim": 2, "dtype": "float16", "unit": "token", "model": "m"}
    files = (*records, *write_index(str(tmp_path), shards))
    write_manifest(str(tmp_path), Manifest("embed", 2, "", "", "", {}, files, details))
    code = (
        "import resource, sys; from biloom import VectorCache, VectorDataset; import torch; "
        "data = VectorDataset(VectorCache.open(sys.argv[1])); "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); "
        "data.cache.close(); data = VectorDataset(VectorCache.open(sys.argv[1])); "
        "print(sum(int(row.vectors[0, 0, 1]) for row in [data[n] for n in range(len(data))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout) == ("", f"{sum(range(120))}\n")


def test_a_loader_pads_texts_to_batches(tmp_path: Path) -> None:
    data = VectorDataset(make(tmp_path))
    batches = list(DataLoader(data, 3, collate_fn=pad))

    assert [batch.lengths.tolist() for batch in batches] == [[1, 2, 3], [4, 5, 6], [7]]
    first = batches[0]
    assert first.texts == ["text 0", "text 1", "text 2"]
    assert first.vectors.shape == (3, 2, 3, 3)
    assert torch.equal(first.vectors[1, :, :2], data[1].vectors)
    assert not first.vectors[1, :, 2].any()

"""Small vector caches, of this version and as version 0.1 wrote them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from preprocess.files.manifest import FileRecord, Manifest, hash_file, read_manifest, write_manifest
from preprocess.vectors.files import CHECKED_ENTRY, ENTRY, HashedFile
from preprocess.vectors.index import write_index
from preprocess.vectors.index_file import BLOCK, fence
from preprocess.vectors.shard import VectorShardWriter

MakeCache = Callable[..., Path]


@pytest.fixture(scope="session")
def make_cache(tmp_path_factory: pytest.TempPathFactory) -> MakeCache:
    """A function that writes a cache of ``shards`` shards with ``each`` texts and returns its folder."""
    written: dict[tuple[Any, ...], Path] = {}

    def make(folder: Path, **settings: Any) -> Path:
        key = tuple(settings.items())
        if key not in written:
            written[key] = write(tmp_path_factory.mktemp("written"), **settings)
        return Path(shutil.copytree(written[key], folder))

    def write(
        folder: Path,
        shards: int = 3,
        each: int = 3,
        layers: int = 2,
        dim: int = 4,
        dtype: str = "float16",
        texts: bool = True,
    ) -> Path:
        draw = np.random.default_rng(1)
        records: list[FileRecord] = []
        names = [(number, 0) for number in range(shards)]
        for name in names:
            with VectorShardWriter(str(folder), name, layers, dim, dtype, texts) as writer:
                for number in range(name[0] * each, (name[0] + 1) * each):
                    labels = [f"▁text{number}", "▁of", "▁words"][: 1 + number % 3]
                    vectors = draw.normal(size=(layers, len(labels), dim)).astype("f4")
                    writer.add(f"text {number}", labels, vectors)
            records += writer.close()
        details = {"layers": layers, "dim": dim, "dtype": dtype, "unit": "token", "model": "m" * 64}
        details |= {"texts_kept": texts, "vectors": {"layers": "all"}}
        files = (*records, *write_index(str(folder), names))
        write_manifest(str(folder), Manifest("embed", 2, "0.1", "f", "c", {}, files, details))
        return folder

    return make


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """A function that updates a manifest to the present files, as an untrusted source could."""

    def rewrite(folder: Path, drop: tuple[str, ...] = (), **details: Any) -> None:
        manifest = read_manifest(str(folder))
        records = []
        for record in manifest.files:
            size, digest = hash_file(str(folder / record.name))
            counts = {key: n for key, n in record.counts.items() if key not in drop}
            records.append(FileRecord(record.name, size, digest, counts))
        made = replace(manifest, files=tuple(records), details=manifest.details | details)
        write_manifest(str(folder), made)

    return rewrite


def write_former_index(folder: Path, has_fences: bool) -> None:
    """Replace the index by one file of all entries, as former versions wrote it."""
    manifest = read_manifest(str(folder))
    files = [record for record in manifest.files if record.name.startswith("index")]
    rows = np.concatenate([np.load(folder / record.name) for record in files])
    for record in files:
        (folder / record.name).unlink()
    blocks = [rows[at : at + BLOCK] for at in range(0, len(rows), BLOCK)]
    fences = np.array([fence(block, by_column=True) for block in blocks], "<u8").T.tobytes()
    with (folder / "index-0000.npy").open("wb") as opened:
        index = HashedFile("index-0000.npy", opened)
        index.write_header(np.dtype("<u8"), rows.T.shape)
        index.write(rows.T.tobytes())
        if has_fences:
            index.write(fences)
    counts: dict[str, Any] = {"entries": len(rows), "units": int(rows[:, 4].sum())}
    counts["fences"] = xxhash.xxh3_128_hexdigest(fences)
    others = [record for record in manifest.files if record not in files]
    write_manifest(str(folder), replace(manifest, files=(*others, index.record(**counts))))


@pytest.fixture
def with_former_index() -> Callable[[Path], None]:
    """A function that replaces the index by one file, as before the index was divided."""
    return lambda folder: write_former_index(folder, has_fences=True)


@pytest.fixture
def as_version_0_1(rewrite: Callable[..., None]) -> Callable[[Path], None]:
    """A function that takes the checksums out of a cache, as version 0.1 wrote it."""

    def without_checksums(folder: Path) -> None:
        for path in folder.glob("entries-*.npy"):
            rows = np.load(path)
            assert rows.dtype == CHECKED_ENTRY
            plain = np.zeros(len(rows), ENTRY)
            for name in ENTRY.names or ():
                plain[name] = rows[name]
            with path.open("wb") as opened:
                file = HashedFile(path.name, opened)
                file.write_header(ENTRY, (len(rows),))
                file.write(plain.tobytes())
        write_former_index(folder, has_fences=False)
        rewrite(folder, drop=("fences", "units"))

    return without_checksums

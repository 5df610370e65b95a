"""Small vector caches, of this version and as version 0.1 wrote them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess.files.manifest import FileRecord, Manifest, hash_file, read_manifest, write_manifest
from preprocess.vectors.files import CHECKED_ENTRY, ENTRY, HashedFile
from preprocess.vectors.index import write_index
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
        files = (*records, write_index(str(folder), names))
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
        (index,) = folder.glob("index-*.npy")
        whole = np.load(index)
        np.save(index, whole)
        rewrite(folder, drop=("fences", "units"))

    return without_checksums

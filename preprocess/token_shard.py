"""Token shards: raw little-endian ids and, beside them, the length of every document.

A shard holds the documents' own tokens only; boundaries are added at reading. ``NAME.bin`` is
uint16 (uint32 above 65,536 ids), ``NAME.len`` uint32 a document.
"""

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from preprocess import storage
from preprocess.errors import UserError
from preprocess.manifest import Manifest, read_manifest

DOCUMENT = np.dtype(
    [
        ("number", "<u4"),
        ("tokens", "<u4"),
        ("words", "<u4"),
        ("characters", "<u4"),
        ("text_bytes", "<u4"),
    ]
)
"""A document of a part: its number in the unit and its sizes."""

SUMS = ("documents", "tokens", "words", "characters", "text_bytes")


class ShardError(UserError):
    """A shard that does not hold what its manifest says."""


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """The narrowest type that holds every id."""
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class Shard:
    """A shard as its manifest knows it, fetched when it is first read."""

    folder: str
    name: str
    split: str
    source: str
    dtype: str
    documents: int
    tokens: int
    words: int
    characters: int
    text_bytes: int

    @cached_property
    def ids(self) -> npt.NDArray[Any]:
        """(tokens,) ids, memory-mapped."""
        if not self.tokens:
            return np.empty(0, self.dtype)
        path = self._fetch(f"{self.name}.bin")
        size, due = path.stat().st_size, self.tokens * np.dtype(self.dtype).itemsize
        if size != due:
            raise ShardError(f"{self._damage('bin')}: {size:,} bytes, not {due:,}")
        return np.memmap(path, self.dtype, "r")

    @cached_property
    def lengths(self) -> npt.NDArray[np.uint32]:
        """(documents,) tokens of each document."""
        lengths = np.fromfile(self._fetch(f"{self.name}.len"), "<u4")
        if len(lengths) != self.documents or int(lengths.sum(dtype=np.int64)) != self.tokens:
            raise ShardError(f"{self._damage('len')}: lengths of other documents")
        return lengths

    def _fetch(self, name: str) -> Path:
        path = storage.join(self.folder, name)
        if not storage.is_remote(path):
            if not storage.exists(path):
                raise ShardError(f"{path} is missing; run `biloom check {self.folder}`")
            return storage.local_path(path)
        copy = Path(_cache.name) / xxhash.xxh3_128_hexdigest(path.encode())
        if not copy.exists():
            storage.write_bytes(str(copy), storage.read_bytes(path))
        return copy

    def _damage(self, ending: str) -> str:
        path = storage.join(self.folder, f"{self.name}.{ending}")
        return f"{path} is damaged (`biloom check {self.folder}` lists what is)"


_cache = tempfile.TemporaryDirectory(prefix="biloom-shards-", ignore_cleanup_errors=True)
"""Whole copies of remote shards: reading ranges of an object store costs milliseconds each."""


@dataclass(frozen=True)
class Corpus:
    """A finished corpus folder."""

    folder: str
    manifest: Manifest

    @classmethod
    def open(cls, folder: str) -> "Corpus":
        """The corpus in ``folder``.

        Raises:
            ManifestError: it holds no finished corpus.
        """
        return cls(folder, read_manifest(folder, "prepare"))

    def shards(self, split: str) -> tuple[Shard, ...]:
        """The shards of a split in the corpus's own order."""
        found = []
        for file in self.manifest.files:
            if file.name.endswith(".bin") and file.counts["split"] == split:
                columns: dict[str, Any] = dict(file.counts)
                found.append(Shard(self.folder, file.name.removesuffix(".bin"), **columns))
        return tuple(found)

    def totals(self, split: str) -> dict[str, int]:
        """Documents, tokens, words, characters and text bytes of a split."""
        shards = self.shards(split)
        return {key: sum(getattr(shard, key) for shard in shards) for key in SUMS}

    @property
    def vocabulary(self) -> int:
        return int(self.manifest.details["vocabulary"])

    def counts(self) -> npt.NDArray[np.uint64]:
        """(vocabulary,) unigram counts of the train split, in id order."""
        data = storage.read_bytes(storage.join(self.folder, "counts.npy"))
        counts: npt.NDArray[np.uint64] = np.load(io.BytesIO(data))
        return counts


def shard_counts(
    documents: npt.NDArray[Any], split: str, source: str, dtype: np.dtype[Any]
) -> Mapping[str, int | str]:
    """The manifest's columns of a shard."""
    sums = {key: int(documents[key].sum(dtype=np.int64)) for key in SUMS[1:]}
    return {
        "split": split,
        "source": source,
        "dtype": dtype.str,
        "documents": len(documents),
        **sums,
    }

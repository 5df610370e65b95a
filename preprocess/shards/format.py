"""Token shards: raw little-endian ids and, beside them, the length of every document.

A shard holds the documents' own tokens only; boundaries are added at reading. ``NAME.bin`` is
uint16 (uint32 above 65,536 ids), ``NAME.len`` uint32 a document.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.local_copies import DamagedCopy, LocalCopies
from preprocess.files.manifest import FileRecord, Manifest, read_manifest

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


CACHE_BYTES = 50_000_000_000
"""Bound of the local copies of remote shards."""


class ShardError(UserError):
    """A shard that does not hold what its manifest says."""


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """The narrowest type that holds every id."""
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class Shard:
    """A shard as its manifest knows it; each reading opens its files anew."""

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
    copies: LocalCopies | None = None
    """Where its files are fetched to; none: the folder is local."""
    files: Mapping[str, FileRecord] = field(default_factory=dict, repr=False, hash=False)
    """What they should be, by ending, where they are fetched."""

    @property
    def ids(self) -> npt.NDArray[Any]:
        """(tokens,) ids, memory-mapped.

        Raises:
            ShardError: the file is missing or damaged.
        """
        if not self.tokens:
            return np.empty(0, self.dtype)
        with self._open("bin") as file:
            size = os.fstat(file.fileno()).st_size
            due = self.tokens * np.dtype(self.dtype).itemsize
            if size != due:
                raise self._damaged("bin", f"{size:,} bytes, not {due:,}")
            return np.memmap(file, self.dtype, "r")

    def touch(self) -> bool:
        """Tell that the ids are in use; whether what was mapped of them is still on the disk."""
        return not self.copies or self.copies.touch(self.files["bin"])

    @property
    def lengths(self) -> npt.NDArray[np.uint32]:
        """(documents,) tokens of each document.

        Raises:
            ShardError: the file is missing or damaged.
        """
        with self._open("len") as file:
            lengths = np.fromfile(file, "<u4")
        if len(lengths) != self.documents or int(lengths.sum(dtype=np.int64)) != self.tokens:
            raise self._damaged("len", "lengths of other documents")
        return lengths

    def _open(self, ending: str) -> BinaryIO:
        path = self._path(ending)
        try:
            if self.copies:
                return self.copies.open(path, self.files[ending])
            return storage.open_read(path)
        except FileNotFoundError as error:
            raise ShardError(f"{path} is missing; run `biloom check {self.folder}`") from error
        except DamagedCopy as error:
            raise self._damaged(ending, str(error)) from error

    def _path(self, ending: str) -> str:
        return storage.join(self.folder, f"{self.name}.{ending}")

    def _damaged(self, ending: str, what: str) -> ShardError:
        where = f"`biloom check {self.folder}` lists what is"
        return ShardError(f"{self._path(ending)} is damaged ({where}): {what}")


@dataclass(frozen=True)
class Corpus:
    """A finished corpus folder."""

    folder: str
    manifest: Manifest
    cache_bytes: int = CACHE_BYTES

    @classmethod
    def open(cls, folder: str, cache_bytes: int = CACHE_BYTES) -> "Corpus":
        """The corpus in ``folder``; of a remote one, ``cache_bytes`` of shards lie on the local disk.

        Raises:
            ManifestError: it holds no finished corpus.
        """
        return cls(folder, read_manifest(folder, "prepare"), cache_bytes)

    def shards(self, split: str) -> tuple[Shard, ...]:
        """The shards of a split in the corpus's own order."""
        records = {file.name: file for file in self.manifest.files}
        found = []
        for file in self.manifest.files:
            if file.name.endswith(".bin") and file.counts["split"] == split:
                columns: dict[str, Any] = dict(file.counts)
                name = file.name.removesuffix(".bin")
                files = {"bin": file, "len": records[f"{name}.len"]} if self._copies else {}
                found.append(Shard(self.folder, name, **columns, copies=self._copies, files=files))
        return tuple(found)

    @cached_property
    def _copies(self) -> LocalCopies | None:
        return LocalCopies(self.cache_bytes) if storage.is_remote(self.folder) else None

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

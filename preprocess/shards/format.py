"""Token shards, the files that prepare writes and training reads.

``NAME.bin`` holds the token ids of consecutive documents, uint16 (uint32 if the vocabulary has more
than 65,536 ids). ``NAME.len`` holds the number of tokens of each document, uint32. Both are
little-endian. Boundary tokens are not stored; `preprocess.shards.stream` adds them.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.files import storage
from preprocess.files.local_copies import DamagedCopy, LocalCopies
from preprocess.files.manifest import NAME, FileRecord, Manifest, ManifestError, read_manifest
from preprocess.files.verified import DamagedResult, damaged, read_verified, verify
from preprocess.shards.npy import parse_npy
from preprocess.text.config import SPLITS

DOCUMENT = np.dtype(
    [
        ("number", "<u4"),
        ("tokens", "<u4"),
        ("words", "<u4"),
        ("characters", "<u4"),
        ("text_bytes", "<u4"),
    ]
)
"""Dtype of a document's row while prepare works on it: its number in the unit of work, and its sizes.

Words and characters are those of the cleaned text; ``text_bytes`` are its bytes in UTF-8."""

STAGE = "prepare"
"""The stage that makes corpora."""

SUMS = ("documents", "tokens", "words", "characters", "text_bytes")
"""Names of the sizes of a shard or split: the number of documents, and sums over the documents."""

CACHE_BYTES = 50_000_000_000
"""Default limit of the local copies of remote shards, in bytes."""


_COLUMNS = {"split": str, "source": str, "dtype": str, **dict.fromkeys(SUMS, int)}
_DTYPES = ("<u2", "<u4")
_MOST_IDS = 1 << 31
"""Vocabularies are smaller, so that ids fit a signed integer of 32 bits."""


class ShardError(UserError):
    """A file of a corpus that is missing, or that does not match its manifest."""


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """Return the narrowest token dtype for a vocabulary of this size."""
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


@dataclass(frozen=True)
class Shard:
    """A shard as described by the corpus manifest.

    Attributes:
        folder: folder or URL of the corpus.
        name: file name without ending.
        split: "train", "valid" or "test".
        source: name of the source of its documents.
        dtype: NumPy dtype of the ids.
        documents: number of its documents.
        tokens, words, characters, text_bytes: sums of the sizes of its documents (`DOCUMENT`).
        copies: where remote files are copied to; None if the folder is local.
        files: manifest records of the files, by ending ("bin" and "len"); without them, the files are
            not compared with their hashes.
        vocabulary: number of ids of the tokenizer; None to accept all ids.
    """

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
    files: Mapping[str, FileRecord] = field(default_factory=dict, repr=False, hash=False)
    vocabulary: int | None = None

    @property
    def ids(self) -> npt.NDArray[Any]:
        """Token ids of all documents, shape (tokens,), memory-mapped anew on each access.

        Raises:
            ShardError: the file is missing or damaged.
        """
        if not self.tokens:
            return np.empty(0, self.dtype)
        with self._open("bin") as file:
            size = os.fstat(file.fileno()).st_size
            expected = self.tokens * np.dtype(self.dtype).itemsize
            if size != expected:
                raise self._damaged("bin", f"{size:,} bytes, not {expected:,}")
            ids = np.memmap(file, self.dtype, "r")
        if self.vocabulary is not None and (largest := self._largest_id(ids)) >= self.vocabulary:
            raise self._damaged("bin", f"id {largest:,} in a vocabulary of {self.vocabulary:,}")
        return ids

    def _largest_id(self, ids: npt.NDArray[Any]) -> int:
        """Return the largest id; computed once per process for a file of known hash."""
        if "bin" not in self.files:
            return int(ids.max())
        content = self.files["bin"].xxh128
        if content not in _LARGEST:
            _LARGEST[content] = int(ids.max())
        return _LARGEST[content]

    def touch(self) -> bool:
        """Mark the local copy of the ids as recently used.

        Returns:
            False if the copy was deleted, so that `ids` must be read again.
        """
        return not self.copies or self.copies.touch(self.files["bin"])

    @property
    def lengths(self) -> npt.NDArray[np.uint32]:
        """Number of tokens of each document, shape (documents,), read anew on each access.

        Raises:
            ShardError: the file is missing or damaged.
        """
        with self._open("len") as file:
            lengths = np.fromfile(file, "<u4")
        if len(lengths) != self.documents or int(lengths.sum(dtype=np.int64)) != self.tokens:
            raise self._damaged("len", "its lengths do not match the manifest")
        return lengths

    def _open(self, ending: str) -> BinaryIO:
        path = self._path(ending)
        try:
            if self.copies:
                return self.copies.open(path, self.files[ending])
            if ending in self.files:
                verify(self.folder, self.files[ending], STAGE)
            return storage.open_read(path)
        except FileNotFoundError as error:
            raise ShardError(str(damaged(path, "is missing", self.folder, STAGE))) from error
        except DamagedCopy as error:
            raise self._damaged(ending, str(error)) from error
        except DamagedResult as error:
            raise ShardError(str(error)) from error

    def _path(self, ending: str) -> str:
        return storage.join(self.folder, f"{self.name}.{ending}")

    def _damaged(self, ending: str, reason: str) -> ShardError:
        reason = f"is damaged ({reason})"
        return ShardError(str(damaged(self._path(ending), reason, self.folder, STAGE)))


_LARGEST: dict[str, int] = {}
"""The largest id of each shard that this process opened, by the hash of its file."""


@dataclass(frozen=True, slots=True)
class _Files(Mapping[str, FileRecord]):
    """The records of a shard's files by ending, looked up in the manifest when they are needed."""

    records: Mapping[str, FileRecord]
    name: str

    def __getitem__(self, ending: str) -> FileRecord:
        return self.records[f"{self.name}.{ending}"]

    def __iter__(self) -> Iterator[str]:
        return iter(("bin", "len"))

    def __len__(self) -> int:
        return 2


@dataclass(frozen=True)
class Corpus:
    """The result of the prepare stage.

    Attributes:
        folder: folder or URL.
        manifest: its manifest.
        cache_bytes: limit of the local copies of its shards if it is remote.
    """

    folder: str
    manifest: Manifest
    cache_bytes: int = CACHE_BYTES

    @classmethod
    def open(cls, folder: str, cache_bytes: int = CACHE_BYTES) -> "Corpus":
        """Open a corpus.

        Args:
            folder: folder or URL.
            cache_bytes: limit of the local copies of its shards if it is remote, in bytes.

        Raises:
            ManifestError: the folder holds no finished corpus.
        """
        manifest = read_manifest(folder, STAGE)
        if not 0 < (vocabulary := manifest.details["vocabulary"]) < _MOST_IDS:
            raise _wrong_manifest(folder, f"'vocabulary' is {vocabulary!r:.40}")
        return cls(folder, manifest, cache_bytes)

    def shards(self, split: str) -> tuple[Shard, ...]:
        """Return the shards of a split ("train", "valid" or "test") in the order of the manifest.

        Raises:
            ManifestError: the manifest does not describe a shard completely.
        """
        return tuple(shard for shard in self._shards if shard.split == split)

    @cached_property
    def _shards(self) -> tuple[Shard, ...]:
        records = self.manifest.records
        shards = []
        for file in self.manifest.files:
            if not file.name.endswith(".bin"):
                continue
            name = file.name.removesuffix(".bin")
            columns: dict[str, Any] = dict(file.counts)
            kinds = {key: type(value) for key, value in columns.items()}
            lengths = records.get(f"{name}.len")
            if (
                kinds != _COLUMNS
                or lengths is None
                or columns["split"] not in SPLITS
                or columns["dtype"] not in _DTYPES
                or file.bytes != columns["tokens"] * np.dtype(columns["dtype"]).itemsize
                or lengths.bytes != 4 * columns["documents"]
            ):
                raise _wrong_manifest(self.folder, f"it does not describe shard '{name}'")
            files = _Files(records, name)
            rest: dict[str, Any] = {"files": files, "vocabulary": self.vocabulary}
            shards.append(Shard(self.folder, name, **columns, copies=self._copies, **rest))
        return tuple(shards)

    @cached_property
    def _copies(self) -> LocalCopies | None:
        return LocalCopies(self.cache_bytes) if storage.is_remote(self.folder) else None

    def totals(self, split: str) -> dict[str, int]:
        """Return the total documents, tokens, words, characters and text bytes of a split."""
        shards = self.shards(split)
        return {key: sum(getattr(shard, key) for shard in shards) for key in SUMS}

    @property
    def vocabulary(self) -> int:
        """Number of ids of the tokenizer."""
        return int(self.manifest.details["vocabulary"])

    def counts(self) -> npt.NDArray[np.uint64]:
        """Return how often each id occurs in the train split, shape (vocabulary,).

        Raises:
            ShardError: the file is missing or damaged.
        """
        name = "counts.npy"
        path = storage.join(self.folder, name)
        try:
            data = read_verified(self.folder, self.manifest, name)
            return parse_npy(data, np.uint64, self.vocabulary)
        except FileNotFoundError as error:
            raise ShardError(str(damaged(path, "is missing", self.folder, STAGE))) from error
        except DamagedResult as error:
            raise ShardError(str(error)) from error
        except ValueError as error:
            reason = f"is damaged ({error})"
            raise ShardError(str(damaged(path, reason, self.folder, STAGE))) from error


def _wrong_manifest(folder: str, reason: str) -> ManifestError:
    return ManifestError(
        f"{folder}: {NAME} is not that of a corpus ({reason}); make it again with "
        f"`biloom {STAGE} --overwrite`, or copy it again"
    )


def shard_counts(
    documents: npt.NDArray[Any], split: str, source: str, dtype: np.dtype[Any]
) -> Mapping[str, int | str]:
    """Return the counts of a shard's ``.bin`` file for the manifest (`FileRecord.counts`).

    Args:
        documents: its documents, of type `DOCUMENT`, shape (documents,).
        split: its split.
        source: name of its source.
        dtype: dtype of its ids.
    """
    sums = {key: int(documents[key].sum(dtype=np.int64)) for key in SUMS[1:]}
    return {
        "split": split,
        "source": source,
        "dtype": dtype.str,
        "documents": len(documents),
        **sums,
    }

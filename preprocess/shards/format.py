"""Token shards, the files that prepare writes and training reads.

``NAME.bin`` holds the token ids of consecutive documents, uint16 (uint32 if the vocabulary has more
than 65,536 ids). ``NAME.len`` holds the number of tokens of each document, uint32. Both are
little-endian. Boundary tokens are not stored; `preprocess.shards.stream` adds them.
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
"""Dtype of a document's row while prepare works on it: its number in the unit of work, and its sizes.

Words and characters are those of the cleaned text; ``text_bytes`` are its bytes in UTF-8."""

SUMS = ("documents", "tokens", "words", "characters", "text_bytes")
"""Names of the sizes of a shard or split: the number of documents, and sums over the documents."""

CACHE_BYTES = 50_000_000_000
"""Default limit of the local copies of remote shards, in bytes."""


class ShardError(UserError):
    """A shard file that is missing, or that does not match its manifest."""


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
        files: manifest records of the remote files, by ending ("bin" and "len").
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
            return np.memmap(file, self.dtype, "r")

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
            return storage.open_read(path)
        except FileNotFoundError as error:
            raise ShardError(f"{path} is missing; run `biloom check {self.folder}`") from error
        except DamagedCopy as error:
            raise self._damaged(ending, str(error)) from error

    def _path(self, ending: str) -> str:
        return storage.join(self.folder, f"{self.name}.{ending}")

    def _damaged(self, ending: str, reason: str) -> ShardError:
        return ShardError(
            f"{self._path(ending)} is damaged ({reason}); run `biloom check {self.folder}`"
        )


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
        return cls(folder, read_manifest(folder, "prepare"), cache_bytes)

    def shards(self, split: str) -> tuple[Shard, ...]:
        """Return the shards of a split ("train", "valid" or "test") in the order of the manifest."""
        records = {file.name: file for file in self.manifest.files}
        shards = []
        for file in self.manifest.files:
            if file.name.endswith(".bin") and file.counts["split"] == split:
                columns: dict[str, Any] = dict(file.counts)
                name = file.name.removesuffix(".bin")
                files = {"bin": file, "len": records[f"{name}.len"]} if self._copies else {}
                shards.append(Shard(self.folder, name, **columns, copies=self._copies, files=files))
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
        """Return how often each id occurs in the train split, shape (vocabulary,)."""
        data = storage.read_bytes(storage.join(self.folder, "counts.npy"))
        counts: npt.NDArray[np.uint64] = np.load(io.BytesIO(data))
        return counts


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

"""Keys of the documents of a corpus, by which other corpora drop these documents (`prepare.known`).

A segment of a unit has one file, ``keys-000012-003.zst``, with the documents in its shards. Duplicates
that were dropped are left out, because the document that they repeat is in the corpus. The file is a
Zstandard frame of a JSON line and columns:

    number    of the document in the unit, as the step from the one before, 4 bytes (compressed to 0.1)
    hash      the low half of the content hash (`preprocess.text.splits.text_hashes`), 8 bytes
    bands     keys of its MinHash bands (`preprocess.text.minhash`), 4 bytes each
    sketch    of its MinHash signature, 32 bytes

The last two exist if near-duplicates were removed. With 64 bits of the hash, the probability that one of
a thousand million documents equals one of a thousand million known documents by chance is 5 %.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.errors import UserError
from preprocess.shards.frame import decode_frame, encode_frame
from preprocess.text.minhash import SKETCH_WORDS

FORMAT = 1
"""Version of the file format."""

PREFIX = "keys-"
"""Prefix of the file names."""

NAME = re.compile(rf"{PREFIX}(\d{{1,9}})-(\d{{1,9}})\.zst", re.ASCII)
"""A file name, with the unit and the segment."""


class DocumentKeysError(UserError):
    """A file of keys that is damaged or was written by a newer biloom."""


@dataclass(frozen=True)
class DocumentKeys:
    """Keys of the documents of a segment.

    Attributes:
        numbers: number of each document in the unit, rising, uint32, shape (documents,).
        hashes: low halves of the content hashes, uint64, shape (documents,).
        bands: keys of the MinHash bands, uint32, shape (documents, bands); no bands if near-duplicates
            were not removed.
        sketches: their sketches, uint64, shape (documents, `SKETCH_WORDS`); shape (documents, 0)
            without bands.
    """

    numbers: npt.NDArray[np.uint32]
    hashes: npt.NDArray[np.uint64]
    bands: npt.NDArray[np.uint32]
    sketches: npt.NDArray[np.uint64]

    @classmethod
    def of(
        cls,
        first: int,
        hashes: npt.NDArray[np.uint64],
        near: tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]] | None,
    ) -> "DocumentKeys":
        """Return the keys of documents numbered from ``first``.

        Args:
            first: number of the first document.
            hashes: low halves of the content hashes.
            near: keys of the bands and sketches, if near-duplicates are removed.
        """
        numbers = np.arange(first, first + len(hashes), dtype=np.uint32)
        none = np.empty((len(hashes), 0), np.uint32), np.empty((len(hashes), 0), np.uint64)
        return cls(numbers, hashes, *(near or none))

    def without(self, numbers: npt.NDArray[np.uint32]) -> "DocumentKeys":
        """Return the keys of the documents whose numbers are not among ``numbers``."""
        kept = ~np.isin(self.numbers, numbers)
        return DocumentKeys(
            self.numbers[kept], self.hashes[kept], self.bands[kept], self.sketches[kept]
        )

    def encode(self) -> bytes:
        """Return the content of a file."""
        bands = self.bands.shape[1]
        head = {"format": FORMAT, "documents": len(self.numbers), "bands": bands}
        steps = np.diff(self.numbers, prepend=np.uint32(0)).astype("<u4")
        columns = [
            steps.tobytes(),
            self.hashes.astype("<u8").tobytes(),
            self.bands.astype("<u4").tobytes(),
            self.sketches.astype("<u8").tobytes(),
        ]
        return encode_frame(head, columns)

    @classmethod
    def decode(cls, data: bytes, path: str) -> "DocumentKeys":
        """Return the keys in the content of a file.

        Args:
            data: the content.
            path: path of the file, for messages.

        Raises:
            DocumentKeysError: the content is damaged, or of a newer version of the format.
        """
        return decode_frame(data, path, FORMAT, DocumentKeysError, cls._read)

    @classmethod
    def _read(cls, head: dict[str, Any], data: memoryview) -> "DocumentKeys":
        documents, bands = head["documents"], head["bands"]
        if any(type(size) is not int or size < 0 for size in (documents, bands)):
            raise ValueError("its sizes are not whole numbers")
        words = SKETCH_WORDS if bands else 0
        shapes: list[tuple[str, tuple[int, ...]]] = [
            ("<u4", (documents,)),
            ("<u8", (documents,)),
            ("<u4", (documents, bands)),
            ("<u8", (documents, words)),
        ]
        columns: list[npt.NDArray[Any]] = []
        end = 0
        for dtype, shape in shapes:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            columns.append(np.frombuffer(data[end : end + size], dtype).reshape(shape))
            end += size
        if end != len(data):
            raise ValueError("its columns do not fit together")
        numbers = np.cumsum(columns[0], dtype=np.int64)
        if documents and (numbers[-1] >= 1 << 32 or (columns[0][1:] == 0).any()):
            raise ValueError("its documents are not in order")
        hashes, keys, sketches = columns[1:]
        return cls(numbers.astype(np.uint32), hashes, keys, sketches)


def name_of(unit: int, segment: int) -> str:
    """Return the name of the file with the keys of a segment, without ending."""
    return f"{PREFIX}{unit:06d}-{segment:03d}"

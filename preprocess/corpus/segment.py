"""A stretch of a unit between two points from which a killed pass goes on.

It is closed at a document's end after a fixed number of tokens, so memory is bounded whatever the
size of the unit, and becomes one part a split: the tokens, and a row a document.
"""

import io
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.corpus.dedup import band_keys, hash_keys, write_keys
from preprocess.files.storage import write_bytes
from preprocess.shards.format import DOCUMENT, SUMS
from preprocess.text.config import SPLITS
from preprocess.text.splits import hash_halves, text_hashes
from preprocess.tokenizers.base import Ids
from preprocess.work.folder import part_file


class Segment:
    """The documents of all splits since the last segment was closed.

    Args:
        dtype: of the tokens.
        first: number of its first document in the unit.
    """

    def __init__(self, dtype: np.dtype[Any], first: int) -> None:
        self._dtype = dtype
        self._first = first
        self._ids: list[npt.NDArray[Any]] = []
        # Columns grow by bytes: an object a document takes more memory than its tokens, and an
        # array a batch more time than its sums.
        self._sizes = {name: array("I") for name in SUMS[1:]}
        self._hashes = bytearray()
        self._bands: list[npt.NDArray[np.uint64]] = []
        self.tokens = 0
        self.documents = 0

    def add(
        self,
        texts: Sequence[str],
        data: Sequence[bytes],
        words: npt.NDArray[np.uint32],
        ids: Sequence[Ids],
        bands: npt.NDArray[np.uint64] | None,
    ) -> None:
        """Add a batch of documents.

        Args:
            texts: of each.
            data: the same in UTF-8.
            words: (documents,) how many each one has.
            ids: the ids of each.
            bands: (documents, bands) keys for near-duplicates, where these are looked for.
        """
        # Ids are below the vocabulary, so none is cut by the unsigned type.
        self._ids.append(np.concatenate(ids, dtype=self._dtype, casting="unsafe"))
        self._sizes["tokens"].extend(map(len, ids))
        self._sizes["words"].frombytes(words.tobytes())
        self._sizes["characters"].extend(map(len, texts))
        self._sizes["text_bytes"].extend(map(len, data))
        self._hashes += text_hashes(data)
        if bands is not None:
            self._bands.append(bands)
        self.tokens += len(self._ids[-1])
        self.documents += len(texts)

    def write(
        self,
        work: str,
        unit: int,
        number: int,
        side: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.uint8]],
        buckets: int,
        band_buckets: int,
    ) -> dict[str, str]:
        """Write the parts and keys of segment ``number``; returns the part of each split in it.

        ``side`` gives, for the high halves of hashes, the numbers of their splits in ``SPLITS``.
        """
        ids = np.concatenate(self._ids)
        rows = np.empty(self.documents, DOCUMENT)
        rows["number"] = np.arange(self._first, self._first + self.documents)
        for name, sizes in self._sizes.items():
            rows[name] = sizes
        hashes = hash_halves(self._hashes)
        sides = side(hashes[:, 0])
        parts: dict[str, str] = {}
        for place, split in enumerate(SPLITS):
            chosen = sides == place
            if chosen.any():
                parts[split] = f"{split}-{unit:06d}-{number:03d}"
                path = part_file(work, parts[split])
                if chosen.all():
                    write_part(path, ids, rows)
                else:
                    write_part(path, ids[np.repeat(chosen, rows["tokens"])], rows[chosen])
        keys = hash_keys(hashes, self._first)
        write_keys(work, "hashes", unit, number, keys, buckets)
        if self._bands:
            keys = band_keys(np.concatenate(self._bands), self._first)
            write_keys(work, "bands", unit, number, keys, band_buckets)
        return parts


def write_part(path: str, ids: npt.NDArray[Any], rows: npt.NDArray[Any]) -> None:
    write_bytes(f"{path}.bin", ids.tobytes())
    table = io.BytesIO()
    np.save(table, rows)
    write_bytes(f"{path}.npy", table.getvalue())

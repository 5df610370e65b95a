"""Segments: consecutive documents of a unit that the first pass writes together.

The first pass closes a segment after the batch that reaches `PrepareConfig.part_tokens` tokens or
documents, so memory does not grow with the unit. It can be resumed after each closed segment. A
segment is written as one part per split. ``NAME.bin`` of a part holds the token ids, ``NAME.npy`` a
row of type `preprocess.shards.format.DOCUMENT` for each document. One more file for all parts has
the origins of the documents (`preprocess.shards.origins`).
"""

import io
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocess.corpus.dedup import band_keys, hash_keys, write_keys
from preprocess.files.storage import write_bytes
from preprocess.reading.block import Locations
from preprocess.shards.format import DOCUMENT, SUMS
from preprocess.shards.origins import OriginsBuilder, name_of
from preprocess.text.config import SPLITS
from preprocess.text.splits import hash_halves, text_hashes
from preprocess.tokenizers.base import Ids
from preprocess.work.damage import checksum
from preprocess.work.folder import origins_part, part_file

ORIGINS = "origins"
"""Key of the file of origins in the result of `Segment.write`."""


class Segment:
    """The tokenised documents since the last segment was closed, of all splits.

    Args:
        dtype: dtype of the token ids.
        source: name of the source.
        first: number in the unit of its first document.

    Attributes:
        tokens, documents: number of tokens and documents added so far.
        hashes: checksum of each file that `write` wrote, by name.
    """

    def __init__(self, dtype: np.dtype[Any], source: str, first: int) -> None:
        self._dtype = dtype
        self._first = first
        self._ids: list[npt.NDArray[Any]] = []
        # Columns of integers, because objects would take more memory than the tokens.
        self._sizes = {name: array("I") for name in SUMS[1:]}
        self._hashes = bytearray()
        self._origins = OriginsBuilder(source, first)
        self._bands: list[npt.NDArray[np.uint64]] = []
        self.tokens = 0
        self.documents = 0
        self.hashes: dict[str, str] = {}

    def add(
        self,
        texts: Sequence[str],
        data: Sequence[bytes],
        words: npt.NDArray[np.uint32],
        ids: Sequence[Ids],
        bands: npt.NDArray[np.uint64] | None,
        origins: Iterable[tuple[Locations, npt.NDArray[np.intp]]],
    ) -> None:
        """Add a batch of documents.

        Args:
            texts: the cleaned texts.
            data: the texts in UTF-8.
            words: number of words of each text, shape (documents,).
            ids: token ids of each text.
            bands: hashes of the MinHash bands of each text, shape (documents, bands), or None if
                near-duplicates are not removed.
            origins: locations of the texts and their rising indexes there, for each run of texts.
        """
        # Unsafe only in name, because the dtype holds every id of the vocabulary.
        self._ids.append(np.concatenate(ids, dtype=self._dtype, casting="unsafe"))
        self._sizes["tokens"].extend(map(len, ids))
        self._sizes["words"].frombytes(words.tobytes())
        self._sizes["characters"].extend(map(len, texts))
        self._sizes["text_bytes"].extend(map(len, data))
        self._hashes += text_hashes(data)
        for locations, indexes in origins:
            self._origins.add(locations, indexes)
        if bands is not None:
            self._bands.append(bands)
        self.tokens += len(self._ids[-1])
        self.documents += len(texts)

    def write(
        self,
        work: str,
        unit: int,
        number: int,
        find_splits: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.uint8]],
        buckets: int,
        band_buckets: int,
    ) -> dict[str, str]:
        """Write the parts of the segment and the keys for deduplication.

        Args:
            work: folder of unfinished work.
            unit: number of the unit.
            number: number of the segment in the unit.
            find_splits: returns the index in `SPLITS` of each document's split, shape (documents,),
                from the high halves of the content hashes (`preprocess.text.splits.splits_of`).
            buckets: number of buckets of content hashes.
            band_buckets: number of buckets of MinHash bands.

        Returns:
            The name of each part by its split, for the splits that have documents, and the name of
            the file of origins under the key `ORIGINS`. Names have no ending.
        """
        ids = np.concatenate(self._ids)
        rows = np.empty(self.documents, DOCUMENT)
        rows["number"] = np.arange(self._first, self._first + self.documents)
        for name, sizes in self._sizes.items():
            rows[name] = sizes
        hashes = hash_halves(self._hashes)
        splits = find_splits(hashes[:, 0])
        parts: dict[str, str] = {}
        for index, split in enumerate(SPLITS):
            chosen = splits == index
            if chosen.any():
                parts[split] = f"{split}-{unit:06d}-{number:03d}"
                path = part_file(work, parts[split])
                part = (
                    (ids, rows)
                    if chosen.all()
                    else (ids[np.repeat(chosen, rows["tokens"])], rows[chosen])
                )
                for ending, digest in write_part(path, *part).items():
                    self.hashes[f"{parts[split]}.{ending}"] = digest
        parts[ORIGINS] = name_of(unit, number)
        data = self._origins.build(splits).encode()
        write_bytes(origins_part(work, parts[ORIGINS]), data)
        self.hashes[f"{parts[ORIGINS]}.zst"] = checksum(data)
        keys = hash_keys(hashes, self._first)
        write_keys(work, "hashes", unit, number, keys, buckets)
        if self._bands:
            keys = band_keys(np.concatenate(self._bands), self._first)
            write_keys(work, "bands", unit, number, keys, band_buckets)
        return parts


def write_part(path: str, ids: npt.NDArray[Any], rows: npt.NDArray[Any]) -> dict[str, str]:
    """Write ``PATH.bin`` with the token ids and ``PATH.npy`` with the rows of type `DOCUMENT`.

    Returns:
        The checksum of each file by its ending.
    """
    table = io.BytesIO()
    np.save(table, rows)
    contents = {"bin": ids.tobytes(), "npy": table.getvalue()}
    for ending, data in contents.items():
        write_bytes(f"{path}.{ending}", data)
    return {ending: checksum(data) for ending, data in contents.items()}

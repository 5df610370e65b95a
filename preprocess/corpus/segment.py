"""Segments: consecutive documents of a unit that the first pass writes together.

The first pass closes a segment after the batch that reaches `PrepareConfig.part_tokens` tokens or
documents, so memory does not grow with the unit. It can be resumed after each closed segment. A
segment is written as one part per split. ``NAME.bin`` of a part holds the token ids, ``NAME.npy`` a
row of type `preprocess.shards.format.DOCUMENT` for each document. Two more files for all parts have
the origins of the documents (`preprocess.shards.origins`) and, if they are kept, their keys
(`preprocess.shards.document_keys`).
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
from preprocess.shards import document_keys
from preprocess.shards.document_keys import DocumentKeys
from preprocess.shards.format import DOCUMENT, SUMS
from preprocess.shards.origins import OriginsBuilder, name_of
from preprocess.text.config import SPLITS
from preprocess.text.minhash import Keys
from preprocess.text.splits import hash_halves, text_hashes
from preprocess.tokenizers.base import Ids
from preprocess.work.damage import checksum
from preprocess.work.folder import packed_part, part_file
from preprocess.work.shuffle import Layout

ORIGINS, KEYS = "origins", "keys"
"""Keys of the files of origins and of keys in the result of `Segment.write`."""


class Segment:
    """The tokenised documents since the last segment was closed, of all splits.

    Args:
        dtype: dtype of the token ids.
        source: name of the source.
        first: number in the unit of its first document.
        keep_keys: True if the keys of the documents become part of the corpus.

    Attributes:
        tokens, documents: number of tokens and documents added so far.
        hashes: checksum of each file that `write` wrote, by name.
    """

    def __init__(
        self, dtype: np.dtype[Any], source: str, first: int, keep_keys: bool = False
    ) -> None:
        self._dtype = dtype
        self._first = first
        self._keep_keys = keep_keys
        self._ids: list[npt.NDArray[Any]] = []
        # Columns of integers, because objects would take more memory than the tokens.
        self._sizes = {name: array("I") for name in SUMS[1:]}
        self._hashes = bytearray()
        self._origins = OriginsBuilder(source, first)
        self._near: list[Keys] = []
        self.tokens = 0
        self.documents = 0
        self.hashes: dict[str, str] = {}

    def add(
        self,
        texts: Sequence[str],
        data: Sequence[bytes],
        words: npt.NDArray[np.uint32],
        ids: Sequence[Ids],
        near: Keys | None,
        origins: Iterable[tuple[Locations, npt.NDArray[np.intp]]],
    ) -> None:
        """Add a batch of documents.

        Args:
            texts: the cleaned texts.
            data: the texts in UTF-8.
            words: number of words of each text, shape (documents,).
            ids: token ids of each text.
            near: MinHash keys and sketches of the texts, or None if near-duplicates are not removed.
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
        if near is not None:
            self._near.append(near)
        self.tokens += len(self._ids[-1])
        self.documents += len(texts)

    def write(
        self,
        work: str,
        unit: int,
        number: int,
        find_splits: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.uint8]],
        hashes: Layout,
        bands: Layout,
    ) -> dict[str, str]:
        """Write the parts of the segment and the keys for deduplication.

        Args:
            work: folder of unfinished work.
            unit: number of the unit.
            number: number of the segment in the unit.
            find_splits: returns the index in `SPLITS` of each document's split, shape (documents,),
                from the high halves of the content hashes (`preprocess.text.splits.splits_of`).
            hashes: layout of the keys of content hashes.
            bands: layout of the keys of MinHash bands.

        Returns:
            The name of each part by its split, for the splits that have documents, and the names of
            the files of origins and keys under `ORIGINS` and `KEYS`. Names have no ending.
        """
        ids = np.concatenate(self._ids)
        rows = np.empty(self.documents, DOCUMENT)
        rows["number"] = np.arange(self._first, self._first + self.documents)
        for name, sizes in self._sizes.items():
            rows[name] = sizes
        halves = hash_halves(self._hashes)
        splits = find_splits(halves[:, 0])
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
        self._write_column(work, parts[ORIGINS], self._origins.build(splits).encode())
        write_keys(work, "hashes", unit, number, hash_keys(halves, self._first), hashes)
        near = None
        if self._near:
            columns = (np.concatenate(column) for column in zip(*self._near, strict=True))
            near = next(columns), next(columns)
            write_keys(work, "bands", unit, number, band_keys(near, rows["number"]), bands)
        if self._keep_keys:
            parts[KEYS] = document_keys.name_of(unit, number)
            kept = DocumentKeys.of(self._first, halves[:, 1], near)
            self._write_column(work, parts[KEYS], kept.encode())
        return parts

    def _write_column(self, work: str, name: str, data: bytes) -> None:
        write_bytes(packed_part(work, name), data)
        self.hashes[f"{name}.zst"] = checksum(data)


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

"""Writing of one shard of a vector cache (files: `preprocess.vectors.files`)."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np

from preprocess.files import storage
from preprocess.files.manifest import FileRecord
from preprocess.tokenizers.segmentation.joined_words import JoinedWords
from preprocess.vectors.codec import Codec, Vectors
from preprocess.vectors.files import (
    CHECKED_ENTRY,
    KEY,
    LOWER_32,
    ROWS,
    HashedFile,
    ShardName,
    checksum,
    entry_digest,
)

Text = str | Sequence[str]
"""A text to embed: a string, or a list of words."""

PIECE_BYTES = 1 << 24
"""Bytes of vectors to encode at once."""


def text_key(text: Text) -> bytes:
    """Return the 16-byte key of a text: a BLAKE2b hash of its UTF-8 bytes.

    Lone surrogates are encoded too. A list of words never has the key of a string. `JoinedWords` have
    the key of a plain list if all their separators are spaces, because they are the same text.

    Raises:
        TypeError: ``text`` is neither a string nor a list of strings.
    """
    if isinstance(text, str):
        data, person = text.encode("utf-8", "surrogatepass"), b"biloom text"
    elif isinstance(text, JoinedWords) and not text.has_only_spaces:
        data, person = to_json([list(text), list(text.separators)]), b"biloom joined"
    elif isinstance(text, Sequence) and all(isinstance(word, str) for word in text):
        data, person = to_json(list(text)), b"biloom words"
    else:
        raise TypeError(
            f"a text must be a string or a list of strings (its words), not {type(text).__name__}"
        )
    return hashlib.blake2b(data, digest_size=KEY.itemsize, person=person).digest()


def to_json(value: Any) -> bytes:
    """Return compact JSON in UTF-8; lone surrogates are encoded like other characters."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


class VectorShardWriter:
    """Writer of a shard, whose files appear only when it is closed.

    `add` writes texts and vectors immediately; only 44 bytes per entry stay in memory. As a context
    manager, it closes the shard at the end of the block, or discards it if the block raises.

    Args:
        folder: folder or URL of the cache.
        shard: number of the unit of work, and of the part of that unit.
        layers: layers per entry.
        dim: dimensions of a vector.
        dtype: "float32", "float16" or "int8".
        texts: whether to keep the texts and the labels of their units.

    Raises:
        CacheError: ``dtype`` is not one of the three.
    """

    def __init__(
        self,
        folder: str,
        shard: tuple[int, int],
        layers: int,
        dim: int,
        dtype: str,
        texts: bool = True,
    ) -> None:
        self.layers, self.dim, self._codec = layers, dim, Codec(dtype, dim)
        self._rows = bytearray()
        self._units = 0
        self._records: tuple[FileRecord, ...] = ()
        self._stack = ExitStack()
        name = ShardName(*shard)
        # The exit stack completes the last file first, so an entries file implies the other files.
        names = (name.entries, *([name.texts] if texts else []), name.vectors)
        self._files = [
            HashedFile(
                file, self._stack.enter_context(storage.atomic_writer(storage.join(folder, file)))
            )
            for file in names
        ]
        self._entries, self._vectors = self._files[0], self._files[-1]
        self._texts = self._files[1] if texts else None

    def add(self, text: Text, labels: Sequence[str], vectors: Vectors) -> None:
        """Append an entry.

        Args:
            text: the text.
            labels: spellings of its units.
            vectors: float32, shape (layers, units, dim).

        Raises:
            CacheError: a value is too large for the dtype of the cache.
        """
        expected = (self.layers, len(labels), self.dim)
        assert vectors.shape == expected, f"vectors of shape {vectors.shape}, not {expected}"
        offset = self._vectors.bytes // self._codec.vector_bytes
        key = text_key(text)
        digest = entry_digest(key)
        for piece in _pieces(vectors):
            assert np.isfinite(piece).all(), f"vectors of {text!r:.60} are not finite"
            stored = self._codec.encode(piece)
            self._vectors.write(stored)
            digest.update(stored.data)
        place = text_hash = 0
        if self._texts:
            place = self._texts.bytes
            data = to_json([text if isinstance(text, str) else list(text), *labels])
            self._texts.write(data)
            text_hash = checksum(key, data)
        row = (key, offset, place, len(labels), digest.intdigest() & LOWER_32, text_hash)
        self._rows += ROWS[CHECKED_ENTRY].pack(*row)
        self._units += len(labels)

    def close(self) -> tuple[FileRecord, ...]:
        """Complete the files and return their manifest records."""
        if not self._records:
            with self._stack:
                count = len(self._rows) // CHECKED_ENTRY.itemsize
                self._entries.write_header(CHECKED_ENTRY, (count,))
                self._entries.write(self._rows)
            first = self._entries.record(entries=count, tokens=self._units)
            self._records = (first, *(file.record() for file in self._files[1:]))
        return self._records

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self._stack.__exit__(kind, error, trace)


def _pieces(vectors: Vectors) -> Iterator[Vectors]:
    """Yield consecutive pieces of (layers, units, dim) vectors, which may be a large mapped file."""
    if vectors.nbytes <= PIECE_BYTES:
        yield vectors
        return
    units = max(1, PIECE_BYTES // (4 * vectors.shape[2]))
    for layer in vectors:
        for start in range(0, len(layer), units):
            yield np.asarray(layer[start : start + units])

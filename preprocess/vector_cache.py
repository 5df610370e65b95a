"""The vector cache: the vectors of any text that was embedded, by the text itself.

Content-addressed, so a text is stored once and found without knowing where it came from. A cache is
a folder of shards (`preprocess.vector_shard`), the index over them, and last the manifest of stage
"embed", whose details tell layers, dim, dtype, unit and model.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from preprocess import storage
from preprocess.manifest import Manifest, read_manifest
from preprocess.vector_shard import (
    INDEX,
    CacheError,
    Vectors,
    VectorShard,
    make_again,
    map_file,
    npy_array,
    stored_dtype,
    text_key,
)

# A mapped file holds a file descriptor, and many systems grant a process 1024.
OPEN_LOCAL = 128
OPEN_REMOTE = 8


class VectorCache(Mapping[str, Vectors]):
    """The vectors of every text that `biloom embed` wrote to a folder or URL.

    >>> cache = VectorCache.open("runs/base/embed")  # doctest: +SKIP
    >>> cache["The cat sat ."].shape  # doctest: +SKIP
    (1, 4, 1024)
    >>> cache.tokens("The cat sat .")  # doctest: +SKIP
    ['The', 'cat', 'sat', '.']

    A read-only mapping from the text, exactly as it was given, to an array (layers, tokens, dim) of
    the stored dtype: a read-only view of the mapped file, so copy it before changing it. Iteration
    gives the texts in the order stored. Files are mapped at their first use, those of the last
    128 shards; of a remote cache whole files are fetched to the temporary folder (``TMPDIR``), those
    of the last 8 shards, so a cache that is read in random order should be copied to a local
    disk. It can be pickled (a worker opens it again) and read from several threads.

    Attributes:
        path: the folder or URL.
        manifest: what the folder's ``manifest.json`` says.
        layers, dim: shape of an entry, with its tokens between them.
        dtype: numpy dtype of the stored values.
        model: ``content`` of the model that made the vectors.
    """

    def __init__(self, path: str, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        try:
            self.layers, self.dim = int(manifest.details["layers"]), int(manifest.details["dim"])
            self.model = str(manifest.details["model"])
            self.dtype = stored_dtype(manifest.details["dtype"])
        except KeyError as error:
            raise CacheError(
                f"{path}: the manifest does not tell {error}; {make_again()}"
            ) from error
        records = {one.name: one for one in manifest.files}
        found = (re.fullmatch(r"entries-(\d{6,})\.npy", name) for name in records)
        self._shards = sorted(int(one[1]) for one in found if one)
        self._index = npy_array(INDEX, map_file(path, INDEX, records), np.dtype("<u8"), (3,))
        self._shard = lru_cache(OPEN_REMOTE if storage.is_remote(path) else OPEN_LOCAL)(
            partial(VectorShard, path, records, (self.layers, self.dim, self.dtype))
        )

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The cache in the folder or at the URL ``path``; its shards are not touched yet.

        Raises:
            ManifestError: there is no finished vector cache.
            CacheError: its index is missing or damaged.
        """
        return cls(str(path), read_manifest(str(path), "embed"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.manifest)

    def __getitem__(self, text: str) -> Vectors:
        """The vectors (layers, tokens, dim) of ``text``.

        Raises:
            KeyError: the text is not in the cache.
            CacheError: the shard that holds it is missing or damaged.
        """
        number, entry = self._place(text)
        return self._shard(number).vectors(entry, text_key(text))

    def tokens(self, text: str) -> list[str]:
        """The spellings of the tokens of ``text``, one a vector; raises as ``cache[text]``."""
        number, entry = self._place(text)
        return self._shard(number).texts(entry, text_key(text))[1:]

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self._find(text_key(text)) is not None

    def __len__(self) -> int:
        return int(self._index.shape[1])

    def __iter__(self) -> Iterator[str]:
        return (shard.texts(entry, key)[0] for shard, entry, key in self._walk())

    def entries(self) -> Iterator[tuple[str, list[str], Vectors]]:
        """Every text with its tokens and vectors, in the order stored; cheaper than ``items``.

        Raises:
            CacheError: on reaching a shard that is missing or damaged.
        """
        for shard, entry, key in self._walk():
            text, *tokens = shard.texts(entry, key)
            yield text, tokens, shard.vectors(entry, key)

    def _walk(self) -> Iterator[tuple[VectorShard, int, bytes]]:
        for number in self._shards:
            shard = self._shard(number)
            for entry, row in enumerate(shard.entries["key"]):
                # A text that a later shard holds again is given once.
                if self._find(key := row.tobytes()) == (number, entry):
                    yield shard, entry, key

    def _place(self, text: str) -> tuple[int, int]:
        place = self._find(text_key(text))
        if place is None:
            raise KeyError(
                f"{text!r:.80} is not in the vector cache {self.path}; a text must be given exactly "
                "as it was embedded"
            )
        return place

    def _find(self, key: bytes) -> tuple[int, int] | None:
        """Shard and entry of a key."""
        high, low, places = self._index
        wanted = np.frombuffer(key, ">u8").astype(np.uint64)
        at = int(high.searchsorted(wanted[0]))
        while at < high.size and high[at] == wanted[0]:
            if low[at] == wanted[1]:
                return divmod(int(places[at]), 1 << 32)
            at += 1
        return None

"""The vector cache: a mapping from texts to their contextual vectors.

It is content-addressed: a text is stored once, and found by its content. A cache is a folder with
shards (`preprocess.vectors.files`), an index over them, and the manifest of stage "embed". The
manifest's details give the model, the layers, dimensions and dtype of the vectors, and their unit.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from preprocess.files import storage
from preprocess.files.local_copies import LocalCopies
from preprocess.files.manifest import Manifest, read_manifest
from preprocess.vectors.codec import CacheError, Codec, Vectors
from preprocess.vectors.files import (
    INDEX,
    CacheFiles,
    ShardName,
    damaged_cache,
    make_again,
    shards_of,
)
from preprocess.vectors.index import VectorIndex
from preprocess.vectors.shard import Text, VectorBlock, VectorShard, text_key

OLDEST = 2
"""Oldest version of the stage "embed" whose caches can be read."""

OPEN_SHARDS = 400
"""Maximum number of open shards; many systems allow 1024 open files per process."""

LOCAL_BYTES = 8 << 30
"""Default limit of the local copies of a remote cache, in bytes."""


class VectorCache(Mapping[Text, Vectors]):
    """A read-only mapping from texts to vectors, as written by `biloom embed`; see `open`.

    >>> cache = VectorCache.open("runs/base/embed")  # doctest: +SKIP
    >>> cache["The cat sat ."].shape  # doctest: +SKIP
    (1, 4, 1024)
    >>> cache.tokens("The cat sat .")  # doctest: +SKIP
    ['The', 'cat', 'sat', '.']

    A key is a text exactly as it was embedded: a string, or a list of words, which is a different key
    than the string. A value is an array of shape (layers, units, dim): a read-only view of the
    memory-mapped file, or a new float32 array if the cache is int8. Iteration yields the texts in the
    order stored.

    Files are mapped at their first use. Files of a remote cache are copied to the temporary folder
    (``TMPDIR``), up to ``local_bytes``; the least recently used copies are deleted. A cache can be
    pickled (the copy opens the files again) and read from several threads.

    Attributes:
        path: the folder or URL.
        manifest: the manifest of the cache.
        layers: layers per entry.
        dim: dimensions of a vector.
        dtype: NumPy dtype of the arrays.
        unit: what has a vector: "token", "word" or "sentence".
        model: ``content`` hash of the model that made the vectors.
        texts_kept: True if the cache holds its texts, not only their keys.
        shards: names of the shards, in order.
        generation: how often texts were added to the finished cache.
    """

    def __init__(self, path: str, manifest: Manifest, local_bytes: int = LOCAL_BYTES) -> None:
        self.path, self.manifest, self._local_bytes = path, manifest, local_bytes
        if manifest.stage_version < OLDEST:
            raise CacheError(
                f"{path}: this vector cache has the format of an older biloom ({manifest.biloom}); "
                "make it again with `biloom embed --overwrite`"
            )
        try:
            self.layers, self.dim = int(manifest.details["layers"]), int(manifest.details["dim"])
            self.model, self.unit = (str(manifest.details[key]) for key in ("model", "unit"))
            codec = Codec(manifest.details["dtype"], self.dim)
        except KeyError as error:
            raise CacheError(
                f"{path}: the manifest of the vector cache lacks '{error.args[-1]}'; {make_again()}"
            ) from error
        self.dtype = codec.decoded_dtype
        self.texts_kept = bool(manifest.details.get("texts_kept", True))
        records = {record.name: record for record in manifest.files}
        self.shards = shards_of(records)
        generations = [int(match[1]) for match in map(INDEX.fullmatch, records) if match]
        if len(generations) != 1:
            raise damaged_cache(path, f"its manifest lists {len(generations)} indexes, not 1")
        self.generation = generations[0]
        copies = LocalCopies(local_bytes, "local_bytes") if storage.is_remote(path) else None
        folder = CacheFiles(path, records, copies)
        self._index = VectorIndex(folder, self.generation)
        self._shard = lru_cache(OPEN_SHARDS)(partial(VectorShard, folder, self.layers, codec))

    @classmethod
    def open(
        cls, path: str | Path, model: str | None = None, local_bytes: int = LOCAL_BYTES
    ) -> Self:
        """Open a cache; its shards are read later.

        Args:
            path: folder or URL.
            model: ``content`` hash of the model that must have made it, or None for any.
            local_bytes: limit of the local copies if the cache is remote, in bytes; at least one
                file is kept.

        Raises:
            ManifestError: the folder holds no finished vector cache, or one of a newer format.
            CacheError: the cache was made by another model, or its index is missing or damaged.
        """
        cache = cls(str(path), read_manifest(str(path), "embed"), local_bytes)
        if model is not None and model != cache.model:
            raise CacheError(
                f"{path}: this vector cache was made by another model ({cache.model[:12]}, not "
                f"{model[:12]}); use the cache of this model, or make one with `biloom embed`"
            )
        return cache

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.manifest, self._local_bytes)

    def __getitem__(self, text: Text) -> Vectors:
        """Return the vectors of a text, shape (layers, units, dim).

        Raises:
            KeyError: the text is not in the cache.
            CacheError: the shard that holds it is missing or damaged.
        """
        number, _, offset, units = self._find(text, text_key(text))
        return self._shard(self.shards[number]).vectors(offset, units)

    def tokens(self, text: Text) -> list[str]:
        """Return the spellings of the units of a text: one for each of its vectors per layer.

        Raises:
            KeyError: the text is not in the cache.
            CacheError: the texts were not kept, or the shard is missing or damaged.
        """
        key = text_key(text)
        number, entry, _, _ = self._find(text, key)
        self._need_texts()
        return self._shard(self.shards[number]).texts(entry, key)[1]

    def __contains__(self, text: object) -> bool:
        try:
            key = text_key(text)  # type: ignore[arg-type]
        except TypeError:
            return False
        return self._index.find(key) is not None

    def has(self, keys: "bytes | NDArray[Any]") -> NDArray[np.bool_]:
        """Return for each key whether it is in the cache, bool, shape (keys,).

        Args:
            keys: 16-byte keys (`preprocess.vectors.shard.text_key`), concatenated or as an array.
        """
        return self._index.has(keys)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        what = f"{len(self):,} texts, {self.layers} layers, dim {self.dim}, {self.dtype.name}"
        return f"VectorCache({what}: {self.path!r})"

    @property
    def units(self) -> int:
        """Total tokens, words or sentences that have vectors."""
        return self._index.units

    def __iter__(self) -> Iterator[Text]:
        self._need_texts()
        return (shard.texts(entry, key)[0] for shard, entry, key in self._walk())

    def entries(self) -> Iterator[tuple[Text, list[str], Vectors]]:
        """Yield (text, spellings of its units, vectors) in the order stored; faster than ``items``.

        Vectors have the shape (layers, units, dim).

        Raises:
            CacheError: the texts were not kept, or a shard is missing or damaged.
        """
        self._need_texts()
        for shard, entry, key in self._walk():
            text, labels = shard.texts(entry, key)
            row = shard.entries[entry]
            yield text, labels, shard.vectors(int(row["offset"]), int(row["units"]))

    def blocks(self) -> Iterator[VectorBlock]:
        """Yield each shard as one block, in order: the fastest way to read everything.

        A text may be in two blocks if it was added twice at the same time.

        Raises:
            CacheError: a shard is missing or damaged.
        """
        return map(self.block, range(len(self.shards)))

    def block(self, number: int) -> VectorBlock:
        """Return a shard as one block, by its index in `shards`; raises the errors of `blocks`."""
        return self._shard(self.shards[number]).block()

    def at(self, shard: tuple[int, int], entry: int) -> tuple[Text | None, Vectors]:
        """Return the text (None if the texts were not kept) and the vectors of an entry.

        Args:
            shard: a name in `shards`.
            entry: index of the entry in the shard.

        Raises:
            CacheError: the shard is missing or damaged.
        """
        files = self._shard(ShardName(*shard))
        row = files.entries[entry]
        text = files.texts(entry, row["key"].tobytes())[0] if self.texts_kept else None
        return text, files.vectors(int(row["offset"]), int(row["units"]))

    def _need_texts(self) -> None:
        if not self.texts_kept:
            raise CacheError(
                f"{self.path}: this vector cache was made without its texts; look up the vectors of a "
                "text with cache[text], read `blocks()`, or make the cache with embed.texts=true"
            )

    def _walk(self) -> Iterator[tuple[VectorShard, int, bytes]]:
        for number, name in enumerate(self.shards):
            shard = self._shard(name)
            for entry, row in enumerate(shard.entries["key"]):
                # Skip a text that is also in an earlier shard.
                found = self._index.find(key := row.tobytes())
                if found and found[:2] == (number, entry):
                    yield shard, entry, key

    def _find(self, text: Text, key: bytes) -> tuple[int, int, int, int]:
        """Return the result of `VectorIndex.find` for the key of ``text``."""
        found = self._index.find(key)
        if found is None:
            raise KeyError(
                f"{text!r:.80} is not in the vector cache {self.path}; a text must be passed exactly "
                "as it was embedded, a list of words as a list"
            )
        if found[0] >= len(self.shards):
            raise damaged_cache(self.path, "its index refers to a shard that does not exist")
        return found

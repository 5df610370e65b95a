"""The vector cache: a mapping from texts to their contextual vectors.

It is content-addressed: a text is stored once, and found by its content. A cache is a folder with
shards (`preprocess.vectors.files`), an index over them, and the manifest of stage "embed". The
manifest's details give the model, the layers, dimensions and dtype of the vectors, and their unit.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from preprocess.files import storage
from preprocess.files.local_copies import LocalCopies
from preprocess.files.manifest import Manifest, read_manifest
from preprocess.vectors.codec import CacheError, Vectors
from preprocess.vectors.files import ShardName, damaged_cache
from preprocess.vectors.layout import layout_of
from preprocess.vectors.lookup import VectorIndex
from preprocess.vectors.shard import Text, text_key
from preprocess.vectors.shard_reader import Row, VectorBlock, VectorShard
from preprocess.vectors.stored import CacheFiles

OLDEST = 2
"""Oldest version of the stage "embed" whose caches can be read."""

KNOWN_SHARDS = 4096
"""Shards whose headers are kept in memory."""

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
    than the string. A value is an array of shape (layers, units, dim): a read-only array, or a new
    float32 array if the cache is int8. Iteration yields the texts in the order stored.

    Everything is checked before it is returned: an entry by its checksum, a block by the hash of its file, a
    look-up by the hash of the part of the index that it reads. Damage raises `CacheError`, never
    `KeyError`.

    Files are opened at their first use; the least recently used ones are closed, so a cache of any
    size needs a bounded number of open files. `close`, or a ``with`` block, closes all of them; arrays
    that were returned stay valid. Shards of a remote cache are copied to the temporary folder
    (``TMPDIR``), up to ``local_bytes``; the least recently used copies are deleted. Of its index, the
    needed ranges are read. A cache can be pickled (the copy opens the files again) and read from several threads.

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
        sizes: number of entries of each shard, including repeated texts.
        generation: how often texts were added to the finished cache.
    """

    def __init__(self, path: str, manifest: Manifest, local_bytes: int = LOCAL_BYTES) -> None:
        self.path, self.manifest, self._local_bytes = path, manifest, local_bytes
        if manifest.stage_version < OLDEST:
            raise CacheError(
                f"{path}: this vector cache has the format of an older biloom ({manifest.biloom}); "
                "make it again with `biloom embed --overwrite`"
            )
        layout = layout_of(path, manifest)
        self.layers, self.dim, self.unit = layout.layers, layout.codec.dim, layout.unit
        self.model, self.texts_kept = layout.model, layout.texts_kept
        self.dtype = layout.codec.decoded_dtype
        self.shards, self.sizes = layout.shards, layout.sizes
        self.generation, self._index_files = layout.generation, layout.index_files
        copies = LocalCopies(local_bytes, "local_bytes") if storage.is_remote(path) else None
        self._files = CacheFiles(path, layout.records, copies)
        reader = partial(VectorShard, self._files, self.layers, layout.codec, self.texts_kept)
        self._known = lru_cache(KNOWN_SHARDS)(reader)

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
            CacheError: the cache was made by another model, a file of its index is missing (if it is
                on a disk), or its manifest is not that of a vector cache.
        """
        cache = cls(str(path), read_manifest(str(path), "embed"), local_bytes)
        if model is not None and model != cache.model:
            raise CacheError(
                f"{path}: this vector cache was made by another model ({cache.model[:12]}, not "
                f"{model[:12]}); use the cache of this model, or make one with `biloom embed`"
            )
        len(cache)
        return cache

    def close(self) -> None:
        """Close the files; arrays that were returned stay valid, and nothing more can be read."""
        self._known.cache_clear()
        self.__dict__.pop("_index", None)
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def _index(self) -> VectorIndex:
        return VectorIndex(self._files, self._index_files)

    def _shard(self, number: int) -> VectorShard:
        return self._known(self.shards[number])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.manifest, self._local_bytes)

    def __getitem__(self, text: Text) -> Vectors:
        """Return the vectors of a text, shape (layers, units, dim).

        Raises:
            KeyError: the text is not in the cache.
            CacheError: the entry, or the part of the index that leads to it, is damaged.
        """
        shard, entry, row = self._find(text, text_key(text))
        return shard.vectors(entry, row)

    def units_of(self, text: Text) -> int:
        """Return how many vectors a text has in each layer, without reading them.

        Raises:
            KeyError, CacheError: as ``cache[text]``.
        """
        _, _, row = self._find(text, text_key(text))
        return row.units

    def tokens(self, text: Text) -> list[str]:
        """Return the spellings of the units of a text: one for each of its vectors per layer.

        Raises:
            KeyError: the text is not in the cache.
            CacheError: the texts were not kept, or the entry or its part of the index is damaged.
        """
        shard, entry, row = self._find(text, text_key(text))
        self._need_texts()
        return shard.texts(entry, row)[1]

    def __contains__(self, text: object) -> bool:
        """Return whether a text is in the cache.

        Raises:
            CacheError: the part of the index where the text belongs is damaged.
        """
        try:
            key = text_key(text)  # type: ignore[arg-type]
        except TypeError:
            return False
        return self._index.find(key) is not None

    def has(self, keys: "bytes | NDArray[Any]") -> NDArray[np.bool_]:
        """Return for each key whether it is in the cache, bool, shape (keys,).

        Args:
            keys: 16-byte keys (`preprocess.vectors.shard.text_key`), concatenated or as an array.

        Raises:
            CacheError: the part of the index where a key belongs is damaged.
        """
        return self._index.has(keys)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        if self._files.closed:
            return f"VectorCache(closed: {self.path!r})"
        what = f"{len(self):,} texts, {self.layers} layers, dim {self.dim}, {self.dtype.name}"
        return f"VectorCache({what}: {self.path!r})"

    @property
    def units(self) -> int:
        """Total tokens, words or sentences that have vectors."""
        return self._index.units

    def __iter__(self) -> Iterator[Text]:
        self._need_texts()
        return (shard.texts(entry, row)[0] for shard, entry, row in self._walk())

    def entries(
        self, without: Sequence["VectorCache"] = ()
    ) -> Iterator[tuple[Text, list[str], Vectors]]:
        """Yield (text, spellings of its units, vectors) in the order stored; faster than ``items``.

        Vectors have the shape (layers, units, dim).

        Args:
            without: caches whose texts are left out. The keys of a shard are looked up at once.

        Raises:
            CacheError: the texts were not kept, or a shard is missing or damaged.
        """
        found = self.located_entries(without)
        return ((text, labels, vectors) for _, _, text, labels, vectors in found)

    def located_entries(
        self, without: Sequence["VectorCache"] = ()
    ) -> Iterator[tuple[ShardName, int, Text, list[str], Vectors]]:
        """Yield what `entries` yields, after the shard and the index of the entry in it (see `at`).

        Raises:
            CacheError: as `entries`.
        """
        self._need_texts()
        for shard, entry, row in self._walk(without):
            text, labels = shard.texts(entry, row)
            yield shard.shard, entry, text, labels, shard.vectors(entry, row)

    def blocks(self) -> Iterator[VectorBlock]:
        """Yield each shard as one block, in order: the fastest way to read everything.

        A text may be in two blocks if it was added twice at the same time.

        Raises:
            CacheError: a shard is missing or damaged.
        """
        return map(self.block, range(len(self.shards)))

    def block(self, number: int) -> VectorBlock:
        """Return a shard as one block, by its index in `shards`; raises the errors of `blocks`."""
        return self._shard(number).block()

    def at(self, shard: tuple[int, int], entry: int) -> tuple[Text | None, Vectors]:
        """Return the text (None if the texts were not kept) and the vectors of an entry.

        Args:
            shard: a name in `shards`.
            entry: index of the entry in the shard.

        Raises:
            IndexError: the shard has no such entry.
            CacheError: the shard is missing or damaged.
        """
        files = self._known(ShardName(*shard))
        row = files.row(entry)
        return files.texts(entry, row)[0] if self.texts_kept else None, files.vectors(entry, row)

    def _need_texts(self) -> None:
        if not self.texts_kept:
            raise CacheError(
                f"{self.path}: this vector cache was made without its texts; look up the vectors of a "
                "text with cache[text], read `blocks()`, or make the cache with embed.texts=true"
            )

    def _walk(
        self, without: Sequence["VectorCache"] = ()
    ) -> Iterator[tuple[VectorShard, int, Row]]:
        for number in range(len(self.shards)):
            shard = self._shard(number)
            rows = shard.entries
            places = self._index.places(rows["key"])[0]
            own = np.arange(len(rows), dtype=np.uint64) + np.uint64(number << 32)
            # A text that an earlier entry also has is skipped. An index that points to a later entry, or
            # to none, is damaged.
            if (places > own).any():
                entry = int((places > own).argmax())
                path = self._index.file_of(rows["key"][entry].tobytes())
                raise damaged_cache(path, f"it lacks entry {entry} of {shard.path}")
            kept = np.flatnonzero(places == own)
            for other in without:
                kept = kept[~other.has(rows["key"][kept])]
            for entry in kept.tolist():
                yield shard, entry, Row(*rows[entry].tolist())

    def _find(self, text: Text, key: bytes) -> tuple[VectorShard, int, Row]:
        """Return where a text is: its shard, the index of its entry there, and the entry's row."""
        found = self._index.find(key)
        if found is None:
            raise KeyError(
                f"{text!r:.80} is not in the vector cache {self.path}; a text must be passed exactly "
                "as it was embedded, a list of words as a list"
            )
        number, entry, offset, units = found
        if number >= len(self.shards):
            raise damaged_cache(
                self._index.file_of(key), "it refers to a shard that does not exist"
            )
        shard = self._shard(number)
        if entry >= len(shard):
            raise damaged_cache(
                self._index.file_of(key), f"it refers to entry {entry} of {shard.path}"
            )
        row = shard.row(entry)
        if (row.key, row.offset, row.units) != (key, offset, units):
            raise damaged_cache(shard.path, f"entry {entry} does not match the index")
        return shard, entry, row

"""The vector cache: the vectors of any text that was embedded, by the text itself.

Content-addressed, so a text is stored once and found without knowing where it came from. A cache is
a folder of shards (`preprocess.vectors.files`), the index over them, and last the manifest of stage
"embed", whose details tell layers, dim, dtype, unit, model and what the vectors are.
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
from preprocess.vectors.files import INDEX, Folder, ShardName, damaged_cache, make_again, shards_of
from preprocess.vectors.index import VectorIndex
from preprocess.vectors.shard import Text, VectorBlock, VectorShard, text_key

OLDEST = 2
"""The first version of stage "embed" whose files are these."""

OPEN_SHARDS = 400
"""A mapped file holds a file descriptor, and many systems grant a process 1024."""

LOCAL_BYTES = 8 << 30


class VectorCache(Mapping[Text, Vectors]):
    """The vectors of every text that `biloom embed` wrote to a folder or URL.

    >>> cache = VectorCache.open("runs/base/embed")  # doctest: +SKIP
    >>> cache["The cat sat ."].shape  # doctest: +SKIP
    (1, 4, 1024)
    >>> cache.tokens("The cat sat .")  # doctest: +SKIP
    ['The', 'cat', 'sat', '.']

    A read-only mapping from the text, exactly as it was given (a string, or a list of words, which is
    another key), to an array (layers, units, dim): a read-only view of the mapped file, of an int8
    cache new float32 values. Iteration gives the texts in the order stored. Files are mapped at their
    first use; those of a remote cache are copied to the temporary folder (``TMPDIR``) as wholes, up
    to ``local_bytes``, beyond which the longest unused make room. It can be pickled (a worker opens
    it again) and read from several threads.

    Attributes:
        path: the folder or URL.
        manifest: what the folder's ``manifest.json`` says.
        layers, dim: shape of an entry, with its units between them.
        dtype: numpy dtype of the arrays.
        unit: what has a vector: "token", "word" or "sentence".
        model: ``content`` of the model that made the vectors.
        shards: unit and part of each shard, in order.
        generation: how often texts were added to the finished cache.
    """

    def __init__(self, path: str, manifest: Manifest, local_bytes: int = LOCAL_BYTES) -> None:
        self.path, self.manifest, self._local_bytes = path, manifest, local_bytes
        if manifest.stage_version < OLDEST:
            raise CacheError(
                f"{path}: this vector cache was made by an older biloom ({manifest.biloom}) in another "
                "format; make it again with `biloom embed --overwrite`"
            )
        try:
            self.layers, self.dim = int(manifest.details["layers"]), int(manifest.details["dim"])
            self.model, self.unit = (str(manifest.details[key]) for key in ("model", "unit"))
            codec = Codec(manifest.details["dtype"], self.dim)
        except KeyError as error:
            raise CacheError(
                f"{path}: the manifest does not tell {error}; {make_again()}"
            ) from error
        self.dtype = codec.given
        self.texts_kept = bool(manifest.details.get("texts_kept", True))
        records = {one.name: one for one in manifest.files}
        self.shards = shards_of(records)
        generations = [int(one[1]) for one in map(INDEX.fullmatch, records) if one]
        if len(generations) != 1:
            raise damaged_cache(path, f"{len(generations)} indexes in the manifest")
        self.generation = generations[0]
        copies = LocalCopies(local_bytes, "local_bytes") if storage.is_remote(path) else None
        folder = Folder(path, records, copies)
        self._index = VectorIndex(folder, self.generation)
        self._shard = lru_cache(OPEN_SHARDS)(partial(VectorShard, folder, self.layers, codec))

    @classmethod
    def open(
        cls, path: str | Path, model: str | None = None, local_bytes: int = LOCAL_BYTES
    ) -> Self:
        """The cache in the folder or at the URL ``path``; its shards are not touched yet.

        Args:
            path: folder or URL.
            model: ``content`` of the model that must have made it, none: any.
            local_bytes: of a remote cache's files on the local disk, at most (one is always kept).

        Raises:
            ManifestError: there is no finished vector cache, or one of a newer format.
            CacheError: it is of another model, or its index is missing or damaged_cache.
        """
        cache = cls(str(path), read_manifest(str(path), "embed"), local_bytes)
        if model is not None and model != cache.model:
            raise CacheError(
                f"{path}: this vector cache is of another model ({cache.model[:12]}, not "
                f"{model[:12]}); name the cache of this model, or make one with `biloom embed`"
            )
        return cache

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.manifest, self._local_bytes)

    def __getitem__(self, text: Text) -> Vectors:
        """The vectors (layers, units, dim) of ``text``.

        Raises:
            KeyError: the text is not in the cache.
            CacheError: the shard that holds it is missing or damaged_cache.
        """
        number, _, offset, units = self._place(text, text_key(text))
        return self._shard(self.shards[number]).vectors(offset, units)

    def tokens(self, text: Text) -> list[str]:
        """The spellings of what has a vector of ``text``, in order.

        Raises:
            KeyError: the text is not in the cache.
            CacheError: the texts were not kept, or the shard is missing or damaged_cache.
        """
        key = text_key(text)
        number, entry, _, _ = self._place(text, key)
        self._need_texts()
        return self._shard(self.shards[number]).texts(entry, key)[1]

    def __contains__(self, text: object) -> bool:
        try:
            key = text_key(text)  # type: ignore[arg-type]
        except TypeError:
            return False
        return self._index.find(key) is not None

    def has(self, keys: "bytes | NDArray[Any]") -> NDArray[np.bool_]:
        """(keys,) whether the cache has each of many keys of 16 bytes (`text_key`)."""
        return self._index.has(keys)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def units(self) -> int:
        """Tokens, words or sentences that have vectors, of all texts together."""
        return self._index.units

    def __iter__(self) -> Iterator[Text]:
        self._need_texts()
        return (shard.texts(entry, key)[0] for shard, entry, key in self._walk())

    def entries(self) -> Iterator[tuple[Text, list[str], Vectors]]:
        """Every text with its tokens and vectors, in the order stored; cheaper than ``items``.

        Raises:
            CacheError: the texts were not kept; or on reaching a shard that is missing or damaged_cache.
        """
        self._need_texts()
        for shard, entry, key in self._walk():
            text, labels = shard.texts(entry, key)
            row = shard.entries[entry]
            yield text, labels, shard.vectors(int(row["offset"]), int(row["units"]))

    def blocks(self) -> Iterator[VectorBlock]:
        """The shards as wholes, in order, for reading everything; a text that is added twice at once
        may be in two of them.

        Raises:
            CacheError: on reaching a shard that is missing or damaged_cache.
        """
        return map(self.block, range(len(self.shards)))

    def block(self, number: int) -> VectorBlock:
        """A shard as a whole, by its place in `shards`; raises as `blocks`."""
        return self._shard(self.shards[number]).block()

    def at(self, shard: tuple[int, int], entry: int) -> tuple[Text | None, Vectors]:
        """An entry by its place: its text, none where texts were not kept, and its vectors."""
        found = self._shard(ShardName(*shard))
        row = found.entries[entry]
        text = found.texts(entry, row["key"].tobytes())[0] if self.texts_kept else None
        return text, found.vectors(int(row["offset"]), int(row["units"]))

    def _need_texts(self) -> None:
        if not self.texts_kept:
            raise CacheError(
                f"{self.path}: this vector cache was made without its texts; look texts up by "
                "themselves, read `blocks()`, or make it with embed.texts=true"
            )

    def _walk(self) -> Iterator[tuple[VectorShard, int, bytes]]:
        for number, name in enumerate(self.shards):
            shard = self._shard(name)
            for entry, row in enumerate(shard.entries["key"]):
                # A text that a later shard holds again is given once.
                found = self._index.find(key := row.tobytes())
                if found and found[:2] == (number, entry):
                    yield shard, entry, key

    def _place(self, text: Text, key: bytes) -> tuple[int, int, int, int]:
        place = self._index.find(key)
        if place is None:
            raise KeyError(
                f"{text!r:.80} is not in the vector cache {self.path}; a text must be given exactly "
                "as it was embedded, a list of words as a list"
            )
        if place[0] >= len(self.shards):
            raise damaged_cache(self.path, "its index names a shard that is not there")
        return place

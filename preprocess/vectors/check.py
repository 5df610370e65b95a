"""Verify a vector cache: compare its files with the manifest, read every entry, and look it up."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preprocess.files import storage
from preprocess.files.local_copies import LocalCopies
from preprocess.files.manifest import NAME, FileRecord, Manifest, hash_file
from preprocess.vectors.cache import LOCAL_BYTES
from preprocess.vectors.codec import CacheError
from preprocess.vectors.files import (
    CHECKED_ENTRY,
    DamagedCacheError,
    index_place,
    shard_of,
)
from preprocess.vectors.index_file import WholeFile
from preprocess.vectors.layout import Layout, layout_of
from preprocess.vectors.lookup import VectorIndex
from preprocess.vectors.shard_reader import Row, VectorShard
from preprocess.vectors.stored import CacheFiles, is_regular

Progress = Callable[[int, str], None]
Reasons = defaultdict[str, list[str]]


class Findings(NamedTuple):
    """What is wrong with a cache.

    Attributes:
        damage: what is wrong with each damaged file, by its name; empty if the cache is whole.
        entries: number of entries that cannot be read or found.
    """

    damage: dict[str, list[str]]
    entries: int


def check_cache(
    folder: str, manifest: Manifest, progress: Progress = lambda done, name: None
) -> Findings:
    """Read all of a cache and return what is wrong with it.

    Args:
        folder: folder or URL of the cache.
        manifest: its manifest.
        progress: called with the bytes read so far and the name of the file after each file.
    """
    found: Reasons = defaultdict(list)
    done = entries = 0
    for record in manifest.all_files:
        if reason := _difference(folder, record):
            found[record.name].append(reason)
        progress(done := done + record.bytes, record.name)
    try:
        layout = layout_of(folder, manifest)
    except CacheError as error:
        _add(found, error, NAME)
    else:
        copies = LocalCopies(LOCAL_BYTES, "local_bytes") if storage.is_remote(folder) else None
        with closing(CacheFiles(folder, layout.records, copies)) as files:
            entries = _EntryCheck(files, layout, found).run()
    return Findings({name: found[name] for name in sorted(found) if found[name]}, entries)


def unlisted_files(folder: str, manifest: Manifest) -> list[str]:
    """Return the names of a cache's files in the folder that are not in the manifest."""
    return [
        name
        for name in storage.list_names(folder)
        if (shard_of(name) or index_place(name)) and name not in manifest.records
    ]


def _difference(folder: str, record: FileRecord) -> str:
    try:
        if not storage.is_remote(folder) and not is_regular(storage.join(folder, record.name)):
            return "it is not a regular file"
        size, digest = hash_file(storage.join(folder, record.name))
    except (FileNotFoundError, NotADirectoryError):
        return "it is missing"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
    if size != record.bytes:
        return f"it has {size:,} bytes, not {record.bytes:,}"
    return "" if digest == record.xxh128 else f"its hash is {digest}, not {record.xxh128}"


def _add(found: Reasons, error: CacheError, name: str) -> None:
    """Add an error of a reader, unless the file is known to be damaged."""
    reason = str(error)
    if isinstance(error, DamagedCacheError):
        name, reason = error.name.rpartition("/")[2], error.reason
    if not found[name]:
        found[name].append(reason)


class _EntryCheck:
    """Checks the index and all entries of a cache, after its files were hashed.

    Args:
        files: the files of the cache.
        layout: its layout.
        found: what is wrong with each file; the check adds to it.
    """

    def __init__(self, files: CacheFiles, layout: Layout, found: Reasons) -> None:
        self._files, self._layout, self._found = files, layout, found

    def run(self) -> int:
        """Check everything; return the number of entries that cannot be read or found."""
        index, names = self._index(), self._layout.index_files
        reached = np.zeros(len(names), np.int64)
        entries = 0
        for number, name in enumerate(self._layout.shards):
            try:
                shard = VectorShard(
                    self._files, self._layout.layers, self._layout.codec,
                    self._layout.texts_kept, name,
                )  # fmt: skip
                rows = shard.entries
            except CacheError as error:
                _add(self._found, error, name.entries)
                entries += self._layout.sizes[number]
                continue
            damaged = self._damaged(shard, rows)
            if index is not None:
                same, unfound = _looked_up(index, number, rows)
                files = index.files_of(rows["key"])
                reached += np.bincount(files[same], minlength=len(names))
                damaged |= unfound
                for file in np.unique(files[unfound]).tolist():
                    where = _ranges(unfound & (files == file))
                    reason = f"it does not point to {where} of {name.entries}"
                    self._found[names[file]].append(reason)
            entries += int(damaged.sum())
        if index is not None and not entries:
            for file, count in zip(names, (index.sizes - reached).tolist(), strict=True):
                if count:
                    reason = f"{count:,} of its entries point to no entry of a shard"
                    self._found[file].append(reason)
        return entries

    def _index(self) -> VectorIndex | None:
        """Return the index if it is whole; add what is wrong with it."""
        for name in self._layout.index_files:
            try:
                self._found[name] += WholeFile(self._files, name).problems()
            except CacheError as error:
                _add(self._found, error, name)
        if any(self._found[name] for name in self._layout.index_files):
            return None
        return VectorIndex(self._files, self._layout.index_files)

    def _damaged(self, shard: VectorShard, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which entries of a shard are damaged."""
        damaged = np.zeros(len(rows), bool)
        readers: dict[str, Callable[[int, Row], object]] = {shard.shard.vectors: shard.vectors}
        if self._layout.texts_kept:
            readers[shard.shard.texts] = shard.texts
        for file, read in readers.items():
            if not self._found[file]:
                self._files.checked.add(file)
            elif rows.dtype != CHECKED_ENTRY:
                # Without checksums of entries, each entry of a damaged file may be damaged.
                damaged[:] = True
                continue
            wrong = np.zeros(len(rows), bool)
            for entry, row in enumerate(rows.tolist()):
                try:
                    read(entry, Row(*row))
                except CacheError as error:
                    _add(self._found, error, file)
                    wrong[entry] = True
            if wrong.any():
                self._found[file].append(f"damaged: {_ranges(wrong)}")
            damaged |= wrong
        return damaged


def _looked_up(
    index: VectorIndex, number: int, rows: NDArray[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Look up the keys of a shard's entries.

    Returns:
        Two arrays, bool (entries,): whether the index points to the entry, and whether it points to
        neither the entry nor an earlier one.
    """
    place, offset, units = index.places(rows["key"])
    own = np.arange(len(rows), dtype=np.uint64) + np.uint64(number << 32)
    same = (place == own) & (offset == rows["offset"]) & (units == rows["units"])
    return same, ~same & (place >= own)


def _ranges(entries: NDArray[np.bool_]) -> str:
    """Return the numbers of the entries, such as "entries 3, 7-9"."""
    edges = np.flatnonzero(np.diff(np.pad(entries, 1).astype(np.int8)))
    pairs = [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]
    return "entries " + ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in pairs)
